"""MNIST and Fashion-MNIST: four idx files, raw or gzipped."""

import gzip
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from autodo.config import DatasetConfig
from autodo.data.files import READ_ERRORS, Place, fetch, one_line, unreadable
from autodo.data.image_set import Dataset, ImageSet, Integers, checked_set
from autodo.errors import DataError

if TYPE_CHECKING:
    import torch

_IMAGES = "{part}-images-idx3-ubyte"
_LABELS = "{part}-labels-idx1-ubyte"
_PARTS = ("train", "t10k")
_FILES = tuple(kind.format(part=part) for part in _PARTS for kind in (_IMAGES, _LABELS))


def read_mnist(config: DatasetConfig, place: Place) -> Dataset:
    """Raises DataError if a file is missing or damaged."""
    from torchvision.datasets import MNIST

    return _read(config.name, place, MNIST, tuple(str(digit) for digit in range(10)))


def read_fashion_mnist(config: DatasetConfig, place: Place) -> Dataset:
    """Raises DataError if a file is missing or damaged."""
    from torchvision.datasets import FashionMNIST

    return _read(config.name, place, FashionMNIST, tuple(FashionMNIST.classes))


def _read(name: str, place: Place, torchvision_set: type, class_names: tuple[str, ...]) -> Dataset:
    layout = Path(torchvision_set.__name__) / "raw"
    folders = [place.data_dir / layout, place.data_dir]
    if place.system_dir is not None:
        folders.append(place.system_dir)

    found = _first_with_files(folders)
    if place.download and (found is None or _missing(found)):
        files = [str(layout / file) for file in _FILES]
        fetch(name, lambda root: torchvision_set(root, download=True), files, place.data_dir)
        found = place.data_dir / layout
    if found is None:
        looked = ", ".join(str(folder) for folder in folders)
        raise DataError(f"{name}: none of its files, such as {_FILES[0]}[.gz], is in {looked}; {place.remedy}")
    missing = _missing(found)
    if missing:
        raise DataError(f"{found / missing[0]}[.gz]: no such file, but others of {name} are there; {place.remedy}")
    train, test = (_read_part(found, part, len(class_names)) for part in _PARTS)
    return Dataset(train=train, test=test, class_names=class_names)


def _read_part(folder: Path, part: str, classes: int) -> ImageSet:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images_path = _present(folder, _IMAGES.format(part=part))
    labels_path = _present(folder, _LABELS.format(part=part))
    assert images_path is not None
    assert labels_path is not None
    images = _read_file(images_path, read_image_file)
    labels: Integers = _read_file(labels_path, read_label_file)
    return checked_set(images[:, None], labels, classes=classes, where=f"{images_path}, {labels_path.name}")


def _read_file(path: Path, read: "Callable[[str], torch.Tensor]") -> NDArray[Any]:
    """Checksums are not compared: a recompressed .gz is as good, and gzip checks its own CRC."""
    try:
        if path.suffix != ".gz":
            return read(str(path)).numpy()
        with tempfile.TemporaryDirectory() as temporary:
            raw = Path(temporary) / path.stem
            with gzip.open(path) as packed, raw.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
            return read(str(raw)).numpy()
    except READ_ERRORS as error:
        raise unreadable(path, one_line(error)) from None


def _first_with_files(folders: list[Path]) -> Path | None:
    return next((folder for folder in folders if len(_missing(folder)) < len(_FILES)), None)


def _missing(folder: Path) -> list[str]:
    return [file for file in _FILES if _present(folder, file) is None]


def _present(folder: Path, file: str) -> Path | None:
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)
