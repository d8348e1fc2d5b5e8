"""A dataset from labelled points, such as image files that are held in memory or streamed."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from autodo.config.dataset import DatasetConfig
from autodo.data.files.decode import decode_images
from autodo.data.files.listing import SetName
from autodo.data.images.crop import CentreCrop
from autodo.data.images.image_set import ArrayImages, Dataset, Images, ImageSet, Integers
from autodo.data.images.split import fixed_test_split, require_images
from autodo.data.stream.image_files import ImageFiles
from autodo.data.stream.streamed_images import StreamedImages
from autodo.errors import DataError

Points = TypeVar("Points")
_NAMED_CLASSES = 5
_CONSEQUENCES: dict[SetName, str] = {
    "val": "without clean images of them their labels and weights cannot be learned well, and they do not count in the "
    "choice of the best epoch; add some",
    "test": "the test errors do not cover them; add some",
}


@dataclass(frozen=True, eq=False)
class LabelledPoints(ABC, Generic[Points]):
    """Points, such as image files, with the name of each one's class, in sets.

    Args:
        where: the data's root, named in errors.
        sets: positions of each set's points.
        numbered: whether class names are numbers and are sorted as such.
        warnings: of the dataset.
        clean_labels: true class of each point, which only a test set that is split off train and reports use.
    """

    where: str
    points: Points
    labels: Sequence[str]
    sets: dict[SetName, Integers]
    numbered: bool = False
    warnings: tuple[str, ...] = ()
    clean_labels: Sequence[str] | None = None

    def dataset(self, config: DatasetConfig) -> Dataset:
        """The dataset of all sets. Without a test set, a fixed stratified fifth of the train images is the test set.

        It is judged by its clean labels, where they are known.

        Raises:
            DataError: if a class is missing or has too few images, or an image is unsuitable.
        """
        class_names = tuple(sorted(self._classes("train"), key=self._order))
        self._check_classes(class_names)
        number = {name: i for i, name in enumerate(class_names)}
        labels = np.array([number.get(label, -1) for label in self.labels], np.int64)
        clean = labels if self.clean_labels is None else self._clean_numbers(number)
        sets = self._with_test(labels, class_names)
        warnings = (*self.warnings, *self._missing_classes(sets, clean, class_names))

        order = np.concatenate(list(sets.values()))
        images = self._images(order, config)
        parts: dict[SetName, ImageSet] = {}
        start = 0
        for name, numbers in sets.items():
            rows = slice(start, start + len(numbers))
            part = ImageSet(images[rows], (clean if name == "test" else labels)[numbers], self._sources(numbers))
            known = name == "train" and self.clean_labels is not None
            parts[name] = dataclasses.replace(part, clean_labels=clean[numbers]) if known else part
            start = rows.stop
        val = parts["val"] if len(sets["val"]) else None
        return Dataset(parts["train"], parts["test"], class_names, val=val, warnings=warnings)

    def _clean_numbers(self, number: Mapping[str, int]) -> Integers:
        assert self.clean_labels is not None
        unknown = sorted({*self.clean_labels} - {*number})
        if unknown:
            raise DataError(
                f"{self.where}: clean_label {unknown[0]!r} is the label of no train image; classes of train: "
                f"{', '.join(number)}"
            )
        return np.array([number[label] for label in self.clean_labels], np.int64)

    @abstractmethod
    def _images(self, order: Integers, config: DatasetConfig) -> Images:
        """The points at these positions."""

    @abstractmethod
    def _sources(self, positions: Integers) -> tuple[str, ...] | None:
        """Name of the file or origin of each of these points, if it has one."""

    def _classes(self, name: SetName) -> set[str]:
        return {self.labels[i] for i in self.sets[name].tolist()}

    def _order(self, name: str) -> tuple[int, str]:
        return int(name) if self.numbered else 0, name

    def _check_classes(self, class_names: tuple[str, ...]) -> None:
        if not class_names:
            raise DataError(
                f"{self.where}: no images to train on; put them in one folder per class, PATH/<class>/*.jpg, or give "
                "a CSV"
            )
        if len(class_names) == 1:
            raise DataError(f"{self.where}: only one class, {class_names[0]!r}; a classifier needs at least two")
        for name in ("val", "test"):
            unknown = sorted(self._classes(name) - set(class_names))
            if unknown:
                raise DataError(
                    f"{self.where}: {name} has the class {unknown[0]!r}, which train does not have; "
                    f"add it to train or remove it from {name}; classes of train: {', '.join(class_names)}"
                )

    def _missing_classes(
        self, sets: dict[SetName, Integers], labels: Integers, class_names: tuple[str, ...]
    ) -> Iterator[str]:
        """Warnings about classes that the user's val or test set lacks."""
        for name in ("val", "test"):
            warning = missing_classes(name, labels[sets[name]], class_names)
            if warning is not None:
                yield f"{self.where}: {warning}"

    def _with_test(self, labels: Integers, class_names: tuple[str, ...]) -> dict[SetName, Integers]:
        """The sets; a fixed stratified fifth of train moves to test if there is none."""
        if len(self.sets["test"]):
            return self.sets
        train = self.sets["train"]
        needed = 2 if len(self.sets["val"]) else 3
        require_images(labels[train], needed, class_names=class_names, where=self.where)
        kept, held = fixed_test_split(labels[train], class_names, where=self.where)
        return self.sets | {"train": train[kept], "test": train[held]}


@dataclass(frozen=True, eq=False)
class LabelledFiles(LabelledPoints[ImageFiles]):
    """Image files with the name of each one's class."""

    def _images(self, order: Integers, config: DatasetConfig) -> Images:
        image_size = config.image_size
        assert image_size is not None
        if config.streams:
            centre = None if config.resize is None else CentreCrop(image_size / config.resize)
            return StreamedImages(self.points, image_size, order, centre)
        paths = [Path(self.points[i].path) for i in order]
        return ArrayImages(decode_images(paths, image_size, root=Path(self.where)))

    def _sources(self, positions: Integers) -> tuple[str, ...]:
        return tuple([self.points.names[i] for i in positions.tolist()])


def missing_classes(name: SetName, labels: Integers, class_names: tuple[str, ...]) -> str | None:
    """A warning about classes that the user's val or test set lacks, which is rarely intended; None if it has all or is
    empty.
    """
    there = np.bincount(labels, minlength=len(class_names)) > 0
    missing = [class_names[i] for i in np.flatnonzero(~there)]
    if not there.any() or not missing:
        return None
    named = ", ".join(map(repr, missing[:_NAMED_CLASSES])) + (", ..." if len(missing) > _NAMED_CLASSES else "")
    return f"{name} has no image of {len(missing)} of the {len(class_names)} classes: {named}; {_CONSEQUENCES[name]}"
