"""Where streamed images come from: class folders, a CSV or tar shards, without those that are damaged."""

import contextlib
import dataclasses
import functools
import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from autodo.atomic import replacing
from autodo.data.class_sets import ClassSets
from autodo.data.files import one_line
from autodo.data.image_set import Integers
from autodo.data.listing import SET_NAMES, Listing, SetName, list_images, root_of
from autodo.data.stream.check import look_at_images, look_at_shards, with_labels
from autodo.data.stream.files import Files, Spans
from autodo.data.stream.index import index_file, indexed, states_of
from autodo.errors import DataError

logger = logging.getLogger("autodo")

_IMAGES_AT_ONCE = 64
_NAMED_FILES = 3


def list_shards(root: Path) -> dict[SetName, list[str]]:
    """ROOT/train-*.tar and optionally val-*.tar and test-*.tar; all are train if none is named so.

    Empty if there are none, or folders beside them: those of the classes then.

    Raises:
        DataError: if some are named by a set and some are not, or they are compressed.
    """
    try:
        entries = [entry for entry in os.scandir(root) if not entry.name.startswith(".")] if root.is_dir() else []
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {one_line(error)}") from None
    names = [] if any(entry.is_dir() for entry in entries) else sorted(entry.name for entry in entries)
    shards = [name for name in names if name.endswith(".tar")]
    packed = [name for name in names if name.endswith((".tar.gz", ".tgz"))]
    if packed and not shards:
        raise DataError(f"{root / packed[0]}: a compressed shard, of which no part can be read by itself; unpack it")
    of_set: dict[SetName, list[str]] = {
        name: [shard for shard in shards if shard.startswith(name)] for name in SET_NAMES
    }
    named = sum(map(len, of_set.values()))
    if named == 0 and shards:
        return of_set | {"train": shards}
    if named < len(shards):
        other = next(shard for shard in shards if not shard.startswith(SET_NAMES))
        raise DataError(f"{root / other}: not named by its set, as others are: train-*.tar, val-*.tar or test-*.tar")
    return of_set if shards else {}


_kept: dict[Path, "Sources"] | None = None


@contextlib.contextmanager
def listed_once() -> Iterator[None]:
    """In the block, files that were listed for their fingerprint are not listed again when they are loaded next.

    A listing serves one `load`, so that none outlives the start of a run.
    """
    global _kept  # noqa: PLW0603
    before, _kept = _kept, {}
    try:
        yield
    finally:
        _kept = before


def sources_of(path: Path, *, to_load: bool = False) -> "Sources":
    """The files of `dataset.path`: tar shards if the folder holds some, else the images of class folders or a CSV.

    Args:
        to_load: they are listed to be read, and not for their fingerprint alone; see `listed_once`.
    Raises:
        DataError: if it is none of these.
    """
    found = None if _kept is None else _kept.pop(path, None)
    if found is None:
        shards = list_shards(path)
        found = Shards(path, shards) if shards else ImageFiles(path, list_images(path))
    if _kept is not None and not to_load:
        _kept[path] = found
    return found


class Sources(ABC):
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
    def class_sets(self, damaged_limit: float) -> ClassSets:
        """The images without those that are damaged, which a warning names.

        Raises:
            DataError: if more than a share of `damaged_limit` of the images are damaged.
        """

    @functools.cached_property
    def content(self) -> str:
        """16 hex digits that change with the names, sizes, classes or sets of the files. No file is read."""
        digest = hashlib.blake2b(digest_size=8)
        rows = zip(self.set_of.tolist(), self.labels, self.names, self.states[:, 0].tolist(), strict=True)
        for part, label, name, size in rows:
            digest.update(f"{self.sets[part]}\0{label}\0{name}\0{size}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _without(self, bad: NDArray[np.bool_], sets: ClassSets) -> ClassSets:
        left = {name: numbers[~bad[numbers]] for name, numbers in sets.sets.items()}
        return dataclasses.replace(sets, sets=left)


class ImageFiles(Sources):
    """Class folders, or what a CSV lists."""

    def __init__(self, path: Path, listing: Listing) -> None:
        super().__init__(path, root_of(path), {name: part.names for name, part in listing.items()})
        self._labels = [label for part in listing.values() for label in part.labels]

    @property
    def labels(self) -> Sequence[str]:
        return self._labels

    def class_sets(self, damaged_limit: float) -> ClassSets:
        damage = indexed(self.path, self.root, self.names, self.states, look_at_images, _IMAGES_AT_ONCE)["damage"]
        bad = pc.is_valid(damage).to_numpy(zero_copy_only=False)
        told = [f"{self.names[i]} ({damage[i]})" for i in np.flatnonzero(bad).tolist()]
        _tell(self, told, len(told), len(bad), damaged_limit)
        sets = {name: np.flatnonzero(self.set_of == i) for i, name in enumerate(self.sets)}
        return self._without(bad, ClassSets(str(self.path), Files(str(self.root), self.names), self.labels, sets))


class Shards(Sources):
    """Tar files as webdataset writes them. Of one that is cut off no image is used."""

    def __init__(self, root: Path, names: dict[SetName, list[str]]) -> None:
        super().__init__(root, root, names)

    @property
    def labels(self) -> Sequence[str]:
        return [""] * len(self.names)

    def class_sets(self, damaged_limit: float) -> ClassSets:
        table = indexed(self.path, self.root, self.names, self.states, look_at_shards, 1, with_labels)
        members = table["members"].combine_chunks()
        counts = pc.fill_null(pc.list_value_length(members), 0).to_numpy()
        shard = np.repeat(np.arange(len(self.names)), counts)
        images = pc.list_flatten(members)
        column = {field.name: pc.struct_field(images, field.name) for field in images.type}
        names = [f"{self.names[i]}/{name}" for i, name in zip(shard, column["name"].to_pylist(), strict=True)]

        cut = pc.is_valid(table["damage"]).to_numpy(zero_copy_only=False)
        bad = pc.is_valid(column["damage"]).to_numpy(zero_copy_only=False) | cut[shard]
        told = [f"{self.names[i]} ({table['damage'][i]}; lists {counts[i]} images)" for i in np.flatnonzero(cut)]
        told += [f"{names[i]} ({column['damage'][i]})" for i in np.flatnonzero(bad & ~cut[shard])]
        lost = int(bad.sum()) + int((cut & (counts == 0)).sum())
        _tell(self, told, lost, len(names), damaged_limit)

        spans = Spans(self.names, shard, column["offset"].to_numpy(), column["length"].to_numpy())
        labels = column["label"].to_pylist()
        sets = {name: np.flatnonzero(self.set_of[shard] == i) for i, name in enumerate(self.sets)}
        numbered = all(labels[i].isdecimal() for i in np.flatnonzero(~bad))
        files = Files(str(self.root), names, spans)
        return self._without(bad, ClassSets(str(self.path), files, labels, sets, numbered))


def _tell(sources: Sources, told: Sequence[str], lost: int, total: int, limit: float) -> None:
    """Warns of damaged images and writes a file that names all; raises DataError if they are too many.

    Args:
        told: what is damaged, and why; `lost` of `total` images.
    """
    file = index_file(sources.path, ".damaged.txt")
    if not told:
        file.unlink(missing_ok=True)
        return
    with replacing(file) as temporary:
        temporary.write_text("\n".join(told) + "\n")
    named = ", ".join(told[:_NAMED_FILES]) + (", ..." if len(told) > _NAMED_FILES else "")
    what = f"{lost} of {total} images are damaged: {named}; all are named in {file}"
    if lost > limit * total:
        raise DataError(
            f"{sources.path}: {what}; replace or remove them, or raise dataset.damaged_limit, the share that is left "
            f"out (now {limit:g})"
        )
    logger.warning("%s: left out: %s", sources.path, what)
