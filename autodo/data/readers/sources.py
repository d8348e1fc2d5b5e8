"""Where streamed images come from: class folders, a CSV or tar shards, without those that are damaged."""

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
from autodo.data.files.reading import reading
from autodo.data.image_set import Integers
from autodo.data.readers.labelled_files import LabelledFiles
from autodo.data.stream.check import check_images, check_shards, label_members
from autodo.data.stream.image_files import ByteRanges, ImageFiles
from autodo.data.stream.index import index_file, indexed, states_of
from autodo.errors import DataError
from autodo.io.atomic import atomic_path

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_SET = re.compile(r"(train|val|test)(ing|idation)?(?![A-Za-z])")
"""How the name of a set's shard begins."""
_IMAGES_AT_ONCE = 64
_NAMED_FILES = 3


def list_shards(root: Path, *, among_others: bool = False) -> dict[SetName, list[str]]:
    """ROOT/train-*.tar and optionally val-*.tar and test-*.tar; all are train if none is named so.

    Empty if there are none, or folders beside some that are not named by a set: those of the classes then.

    Args:
        among_others: only files and folders that are named by a set count; else there must be no others.
    Raises:
        DataError: if there are folders beside those of sets, only some are named by a set, or they are compressed.
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
        raise DataError(f"{root / packed}: a compressed shard, of which no part can be read by itself; unpack it")
    if not named:
        return {name: shards if name == "train" else [] for name in SET_NAMES}
    if len(named) < len(shards):
        other = next(shard for shard in shards if not set_of[shard])
        raise DataError(f"{root / other}: not named by its set, as others are: train-*.tar, val-*.tar or test-*.tar")
    return {name: [shard for shard in shards if shard.startswith(name)] for name in SET_NAMES}


_kept: dict[Path, "ImageSource"] | None = None


@contextlib.contextmanager
def shared_listing() -> Iterator[None]:
    """In the block, files that were listed for their fingerprint are not listed again when they are loaded next.

    A listing serves one `load`, so that none outlives the start of a run.
    """
    global _kept  # noqa: PLW0603
    before, _kept = _kept, {}
    try:
        yield
    finally:
        _kept = before


def image_source(path: Path, *, to_load: bool = False) -> "ImageSource":
    """The files of `dataset.path`: tar shards if the folder holds some, else the images of class folders or a CSV.

    Args:
        to_load: they are listed to be read, and not for their fingerprint alone; see `shared_listing`.
    Raises:
        DataError: if it is none of these.
    """
    found = None if _kept is None else _kept.pop(path, None)
    if found is None:
        shards = list_shards(path)
        found = ShardSource(path, shards) if shards else FileSource(path, list_images(path))
    if _kept is not None and not to_load:
        _kept[path] = found
    return found


class ImageSource(ABC):
    """Files that hold images.

    Args:
        path: named in errors.
        names: of the files of each set, relative to `root`.
    """

    def __init__(self, path: Path, root: Path, names: dict[SetName, list[str]]) -> None:
        self.path, self.root = path, root
        self.names = [name for part in names.values() for name in part]
        self.sets = tuple(names)
        self.set_of = np.repeat(np.arange(len(names)), [len(part) for part in names.values()])

    @functools.cached_property
    def states(self) -> Integers:
        """Size in bytes and time of change in ns of each file. Shape: [files, 2]."""
        try:
            return states_of(self.root, self.names)
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read: {error.strerror}; replace or remove it") from None

    @property
    @abstractmethod
    def labels(self) -> Sequence[str]:
        """The class that the name of each file says; empty for shards."""

    @abstractmethod
    def labelled_files(self, damaged_limit: float) -> LabelledFiles:
        """The images without those that are damaged, which one of its warnings names.

        Raises:
            DataError: if more than a share of `damaged_limit` of the images are damaged, or all of a class.
        """

    @functools.cached_property
    def content(self) -> str:
        """16 hex digits that change with the names, sizes, classes or sets of the files. No file is read."""
        digest = hashlib.blake2b(digest_size=8)
        rows = zip(self.set_of.tolist(), self.labels, self.names, self.states[:, 0].tolist(), strict=True)
        for part, label, name, size in rows:
            digest.update(f"{self.sets[part]}\0{label}\0{name}\0{size}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _without(self, bad: NDArray[np.bool_], sets: LabelledFiles, told: tuple[str, ...]) -> LabelledFiles:
        classes = np.asarray(sets.labels, object)
        gone = sorted({*classes[bad]} - {*classes[~bad], ""}) if bad.any() else []
        if gone:
            count = int((classes[bad] == gone[0]).sum())
            more = f" (one of {len(gone)} such classes)" if len(gone) > 1 else ""
            raise DataError(
                f"{self.path}: all images of class {gone[0]!r}{more}, of which there are {count}, are damaged; replace "
                "them, or remove them if the class is to be left out"
            )
        left = {name: numbers[~bad[numbers]] for name, numbers in sets.sets.items()}
        return dataclasses.replace(sets, sets=left, warnings=told)


class FileSource(ImageSource):
    """Class folders, or what a CSV lists."""

    def __init__(self, path: Path, listing: Listing) -> None:
        super().__init__(path, root_of(path), {name: part.names for name, part in listing.items()})
        self._labels = [label for part in listing.values() for label in part.labels]

    @property
    def labels(self) -> Sequence[str]:
        return self._labels

    def labelled_files(self, damaged_limit: float) -> LabelledFiles:
        damage = indexed(self.path, self.root, self.names, self.states, check_images, _IMAGES_AT_ONCE)["damage"]
        bad = pc.is_valid(damage).to_numpy(zero_copy_only=False)
        named = [f"{self.names[i]} ({damage[i]})" for i in np.flatnonzero(bad).tolist()]
        told = _told(self, named, len(named), len(bad), damaged_limit)
        sets = {name: np.flatnonzero(self.set_of == i) for i, name in enumerate(self.sets)}
        files = ImageFiles(str(self.root), self.names)
        return self._without(bad, LabelledFiles(str(self.path), files, self.labels, sets), told)


class ShardSource(ImageSource):
    """Tar files as webdataset writes them. Of one that is cut off no image is used."""

    def __init__(self, root: Path, names: dict[SetName, list[str]]) -> None:
        super().__init__(root, root, names)

    @property
    def labels(self) -> Sequence[str]:
        return [""] * len(self.names)

    def labelled_files(self, damaged_limit: float) -> LabelledFiles:
        table = indexed(self.path, self.root, self.names, self.states, check_shards, 1, label_members)
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
        # What a shard that is not whole held is not known: at least what it lists, and as much as the others.
        others = 1 if cut.all() else max(1, math.ceil(counts[~cut].mean()))
        held = np.where(cut, np.maximum(counts, others), counts)
        lost = int(held[cut].sum()) + int(bad[~cut[shard]].sum())
        told = _told(self, named, lost, int(held.sum()), damaged_limit)

        ranges = ByteRanges(self.names, shard, column["offset"].to_numpy(), column["length"].to_numpy())
        labels = column["label"].to_pylist()
        sets = {name: np.flatnonzero(self.set_of[shard] == i) for i, name in enumerate(self.sets)}
        numbered = all(labels[i].isdecimal() for i in np.flatnonzero(~bad))
        files = ImageFiles(str(self.root), names, ranges)
        return self._without(bad, LabelledFiles(str(self.path), files, labels, sets, numbered), told)


def _told(sources: ImageSource, damaged: Sequence[str], lost: int, total: int, limit: float) -> tuple[str, ...]:
    """A line on the damaged images, if there are any. Writes a file that names all; raises DataError if too many are.

    Args:
        damaged: what is damaged, and why; `lost` of `total` images.
    """
    file = index_file(sources.path, ".damaged.txt")
    if not damaged:
        file.unlink(missing_ok=True)
        return ()
    with atomic_path(file) as temporary:
        temporary.write_text("\n".join(damaged) + "\n")
    named = ", ".join(damaged[:_NAMED_FILES]) + (", ..." if len(damaged) > _NAMED_FILES else "")
    what = f"{lost} of {total} images are damaged: {named}; all are named in {file}"
    if lost > limit * total:
        raise DataError(
            f"{sources.path}: {what}; replace or remove them, or raise dataset.damaged_limit, the share that is left "
            f"out (now {limit:g})"
        )
    return (f"{sources.path}: left out: {what}",)
