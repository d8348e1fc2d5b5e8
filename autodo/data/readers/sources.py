"""Sources of streamed images: class folders, a CSV or tar shards, without the images that are damaged."""

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from autodo.data.files.listing import SET_NAMES, Listing, SetName, list_images, root_of
from autodo.data.files.read_errors import reading
from autodo.data.images.image_set import Integers
from autodo.data.readers.labelled_files import LabelledFiles
from autodo.data.stream.check import check_images, check_shards, label_members
from autodo.data.stream.image_files import ByteRanges, ImageFiles
from autodo.data.stream.index import checked_files, file_states, index_file
from autodo.errors import DataError
from autodo.io.atomic import atomic_path

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_SET = re.compile(r"(train|val|test)(ing|idation)?(?![A-Za-z])")
"""Start of the name of a set's shard."""
_IMAGES_PER_CHECK = 64
_NAMED_FILES = 3


def list_shards(root: Path, *, among_others: bool = False) -> dict[SetName, list[str]]:
    """Lists ROOT/train-*.tar and optionally val-*.tar and test-*.tar; all are train if none is named by a set.

    Empty if there are none, or if none is named by a set and folders lie beside them, which are class folders then.

    Args:
        among_others: ignore files and folders that are not named by a set; otherwise they are an error.
    Raises:
        DataError: if folders lie beside shards of sets, only some shards are named by a set, or one is compressed.
    """
    with reading(root):
        entries = sorted(os.scandir(root), key=lambda entry: entry.name) if root.is_dir() else []
        folders = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    shards = [entry.name for entry in entries if entry.name.endswith(_TARS) and entry.name[0] != "."]
    set_of = {shard: _SET.match(shard) for shard in shards}
    named = [shard for shard in shards if set_of[shard]]
    if among_others:
        shards, folders = named, [folder for folder in folders if folder in ("train", "val")]
    # Without a number it is the archive that the folders came in.
    numbered = next((shard for shard in named if re.search(r"\d", shard)), None)
    if folders and numbered is not None:
        raise DataError(
            f"{root / numbered}: lies beside the folder {folders[0]}, and images are in shards or in folders; move one "
            "of them away"
        )
    if folders or not shards:
        return {}
    packed = next((shard for shard in shards if not shard.endswith(".tar")), None)
    if packed is not None:
        raise DataError(f"{root / packed}: a compressed shard, whose images cannot be read one by one; unpack it")
    if not named:
        return {name: shards if name == "train" else [] for name in SET_NAMES}
    if len(named) < len(shards):
        other = next(shard for shard in shards if not set_of[shard])
        raise DataError(f"{root / other}: not named by its set, as others are: train-*.tar, val-*.tar or test-*.tar")
    return {name: [shard for shard in shards if shard.startswith(name)] for name in SET_NAMES}


_listed: dict[Path, "ImageSource"] | None = None


@contextlib.contextmanager
def shared_listing() -> Iterator[None]:
    """Lets the listing made for a fingerprint serve the next load of the same path within the block.

    It serves one load only, so that no listing outlives the start of a run.
    """
    global _listed  # noqa: PLW0603
    before, _listed = _listed, {}
    try:
        yield
    finally:
        _listed = before


def image_source(path: Path, *, to_load: bool = False) -> "ImageSource":
    """The files of `dataset.path`: tar shards if the folder holds some, else the images of class folders or a CSV.

    Args:
        to_load: for reading the images, not only for their fingerprint; see `shared_listing`.
    Raises:
        DataError: if it is none of these.
    """
    found = None if _listed is None else _listed.pop(path, None)
    if found is None:
        shards = list_shards(path)
        found = ShardSource(path, shards) if shards else FileSource(path, list_images(path))
    if _listed is not None and not to_load:
        _listed[path] = found
    return found


class ImageSource(ABC):
    """Files that hold images.

    Args:
        path: named in errors.
        names: files of each set, relative to `root`.
        labels: class of each file; empty strings for shards.
        clean_labels: true class of each file, where a CSV has them.
    """

    def __init__(
        self,
        path: Path,
        root: Path,
        names: dict[SetName, list[str]],
        labels: Sequence[str],
        clean_labels: Sequence[str] | None = None,
    ) -> None:
        self.path, self.root, self.labels, self.clean_labels = path, root, labels, clean_labels
        self.names = [name for part in names.values() for name in part]
        self.sets = tuple(names)
        self.set_of = np.repeat(np.arange(len(names)), [len(part) for part in names.values()])

    @functools.cached_property
    def states(self) -> Integers:
        """Size in bytes and time of change in ns of each file. Shape: [files, 2]."""
        try:
            return file_states(self.root, self.names)
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read: {error.strerror}; replace or remove it") from None

    @functools.cached_property
    def content(self) -> str:
        """Fingerprint of the files' names, sizes, classes and sets: 16 hex digits. No file is read."""
        digest = hashlib.blake2b(digest_size=8)
        rows = zip(self.set_of.tolist(), self.labels, self.names, self.states[:, 0].tolist(), strict=True)
        for part, label, name, size in rows:
            digest.update(f"{self.sets[part]}\0{label}\0{name}\0{size}\n".encode(errors="surrogateescape"))
        digest.update("\n".join(self.clean_labels or ()).encode())
        return digest.hexdigest()

    @abstractmethod
    def labelled_files(self, damaged_limit: float) -> LabelledFiles:
        """The undamaged images; a warning names the damaged ones.

        Raises:
            DataError: if more than a share of `damaged_limit` of the images are damaged, or all of a class.
        """

    def _sets(self, set_of: Integers) -> dict[SetName, Integers]:
        return {name: np.flatnonzero(set_of == i) for i, name in enumerate(self.sets)}

    def _check_limit(self, damaged: Sequence[str], lost: int, total: int, limit: float) -> tuple[str, ...]:
        """Writes the names of the damaged images to a file and returns the warning about them, if there are any.

        Args:
            damaged: a line for each damaged image or shard; `lost` of `total` images.
        """
        file = index_file(self.path, ".damaged.txt")
        if not damaged:
            file.unlink(missing_ok=True)
            return ()
        with atomic_path(file) as temporary:
            temporary.write_text("\n".join(damaged) + "\n")
        named = ", ".join(damaged[:_NAMED_FILES]) + (", ..." if len(damaged) > _NAMED_FILES else "")
        problem = f"{lost} of {total} images are damaged: {named}; all are named in {file}"
        if lost > limit * total:
            raise DataError(
                f"{self.path}: {problem}; replace or remove them, or raise dataset.damaged_limit, the share that is "
                f"left out (now {limit:g})"
            )
        return (f"{self.path}: left out: {problem}",)

    def _without(self, bad: NDArray[np.bool_], files: LabelledFiles) -> LabelledFiles:
        classes = np.asarray(files.labels, object)
        gone = sorted({*classes[bad]} - {*classes[~bad], ""}) if bad.any() else []
        if gone:
            count = int((classes[bad] == gone[0]).sum())
            more = f" (one of {len(gone)} such classes)" if len(gone) > 1 else ""
            raise DataError(
                f"{self.path}: all images of class {gone[0]!r}{more}, of which there are {count}, are damaged; replace "
                "them, or remove them if the class is to be left out"
            )
        return dataclasses.replace(files, sets={name: rows[~bad[rows]] for name, rows in files.sets.items()})


class FileSource(ImageSource):
    """Image files in class folders or listed by a CSV."""

    def __init__(self, path: Path, listing: Listing) -> None:
        labels = [label for part in listing.values() for label in part.labels]
        clean = [label for part in listing.values() for label in part.clean_labels or ()]
        names = {name: part.names for name, part in listing.items()}
        super().__init__(path, root_of(path), names, labels, clean or None)

    def unchecked_files(self) -> LabelledFiles:
        """All images, whether damaged or not."""
        files = ImageFiles(str(self.root), self.names)
        return LabelledFiles(
            str(self.path), files, self.labels, self._sets(self.set_of), clean_labels=self.clean_labels
        )

    def labelled_files(self, damaged_limit: float) -> LabelledFiles:
        damage = checked_files(self.path, self.root, self.names, self.states, check_images, _IMAGES_PER_CHECK)["damage"]
        bad = pc.is_valid(damage).to_numpy(zero_copy_only=False)
        named = [f"{self.names[i]} ({damage[i]})" for i in np.flatnonzero(bad).tolist()]
        warnings = self._check_limit(named, len(named), len(bad), damaged_limit)
        return self._without(bad, dataclasses.replace(self.unchecked_files(), warnings=warnings))


class ShardSource(ImageSource):
    """Tar files as webdataset writes them. No image of a shard that is cut off is used."""

    def __init__(self, root: Path, names: dict[SetName, list[str]]) -> None:
        super().__init__(root, root, names, [""] * sum(map(len, names.values())))

    def labelled_files(self, damaged_limit: float) -> LabelledFiles:
        table = checked_files(self.path, self.root, self.names, self.states, check_shards, 1, label_members)
        members = table["members"].combine_chunks()
        counts = pc.fill_null(pc.list_value_length(members), 0).to_numpy()
        shard = np.repeat(np.arange(len(self.names)), counts)
        images = pc.list_flatten(members)
        column = {field.name: pc.struct_field(images, field.name) for field in images.type}
        names = [f"{self.names[i]}/{name}" for i, name in zip(shard, column["name"].to_pylist(), strict=True)]

        cut = pc.is_valid(table["damage"]).to_numpy(zero_copy_only=False)
        bad = pc.is_valid(column["damage"]).to_numpy(zero_copy_only=False) | cut[shard]
        named = [f"{self.names[i]} ({table['damage'][i]}; lists {counts[i]} images)" for i in np.flatnonzero(cut)]
        named += [f"{names[i]} ({column['damage'][i]})" for i in np.flatnonzero(bad & ~cut[shard])]
        # Of a shard that is not whole only the images that it lists are known; it is counted as at least the mean.
        others = 1 if cut.all() else max(1, math.ceil(counts[~cut].mean()))
        held = np.where(cut, np.maximum(counts, others), counts)
        lost = int(held[cut].sum()) + int(bad[~cut[shard]].sum())
        warnings = self._check_limit(named, lost, int(held.sum()), damaged_limit)

        ranges = ByteRanges(self.names, shard, column["offset"].to_numpy(), column["length"].to_numpy())
        files, labels = ImageFiles(str(self.root), names, ranges), column["label"].to_pylist()
        numbered = all(labels[i].isdecimal() for i in np.flatnonzero(~bad))
        sets = self._sets(self.set_of[shard])
        return self._without(bad, LabelledFiles(str(self.path), files, labels, sets, numbered, warnings))
