"""Where streamed images come from: class folders, a CSV or tar shards, without those that are damaged."""

import dataclasses
import hashlib
import json
import logging
import os
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from autodo.atomic import replacing
from autodo.data.class_sets import ClassSets
from autodo.data.files import one_line
from autodo.data.listing import SET_NAMES, SetName, list_images, relative_to_root
from autodo.data.stream.check import look_at_images, look_at_shards, with_labels
from autodo.data.stream.files import Files, Spans
from autodo.data.stream.index import index_file, indexed, sizes_and_times
from autodo.errors import DataError

logger = logging.getLogger("autodo")

Shards = dict[SetName, list[str]]
"""Names of the tar files of each set."""
_IMAGES_AT_ONCE = 64
_NAMED_FILES = 3


def list_shards(root: Path) -> Shards:
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
    of_set: Shards = {name: [shard for shard in shards if shard.startswith(name)] for name in SET_NAMES}
    named = sum(map(len, of_set.values()))
    if named == 0 and shards:
        return of_set | {"train": shards}
    if named < len(shards):
        other = next(shard for shard in shards if not shard.startswith(SET_NAMES))
        raise DataError(f"{root / other}: not named by its set, as others are: train-*.tar, val-*.tar or test-*.tar")
    return of_set if shards else {}


def streamed_content(path: Path) -> str:
    """16 hex digits that change with the names, sizes, classes or sets of the files. No file is read.

    Raises:
        DataError: if the files cannot be listed.
    """
    shards = list_shards(path)
    if shards:
        rows = [(name, "", shard) for name, part in shards.items() for shard in part]
    else:
        listing = list_images(path)
        rows = [(name, item.label, relative_to_root(item.path, path)) for name in listing for item in listing[name]]
    root = path if path.is_dir() else path.parent
    try:
        sizes, _ = sizes_and_times(root, [row[-1] for row in rows])
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}; replace or remove it") from None
    digest = hashlib.blake2b(digest_size=8)
    for row, size in zip(rows, sizes.tolist(), strict=True):
        digest.update(json.dumps([*row, size]).encode())
    return digest.hexdigest()


def streamed_sets(path: Path, damaged_limit: float) -> ClassSets:
    """The images of `dataset.path`: in the tar shards of the folder if it holds some, else in class folders or a CSV.

    Raises:
        DataError: if it is none of these, or too many images are damaged.
    """
    shards = list_shards(path)
    if shards:
        return sets_of_shards(path, shards, damaged_limit)
    return without_damaged(ClassSets.of(list_images(path), path), damaged_limit)


def without_damaged(sets: ClassSets, limit: float) -> ClassSets:
    """The sets without image files that are damaged, which a warning names.

    Raises:
        DataError: if more than a share of `limit` of the images are damaged, or a file is not there.
    """
    root, names = Path(sets.files.root), sets.files.names
    damage = indexed(root, names, look_at_images, _IMAGES_AT_ONCE)["damage"]
    bad = pc.is_valid(damage).to_numpy(zero_copy_only=False)
    told = [f"{names[i]} ({damage[i]})" for i in np.flatnonzero(bad).tolist()]
    _tell(sets.where, index_file(root, ".damaged.txt"), told, len(names), limit)
    return _without(sets, bad)


def sets_of_shards(root: Path, shards: Shards, limit: float) -> ClassSets:
    """The images in tar shards with their classes, without those that are damaged, which a warning names.

    Of a shard that is cut off no image is used.

    Raises:
        DataError: likewise.
    """
    names = [shard for part in shards.values() for shard in part]
    table = indexed(root, names, look_at_shards, 1, with_labels)
    members = table["members"].combine_chunks()
    counts = pc.fill_null(pc.list_value_length(members), 0).to_numpy()
    shard = np.repeat(np.arange(len(names)), counts)
    images = pc.list_flatten(members)
    column = {field.name: pc.struct_field(images, field.name) for field in images.type}
    sources = [f"{names[i]}/{name}" for i, name in zip(shard, column["name"].to_pylist(), strict=True)]
    spans = Spans(names, shard, column["offset"].to_numpy(), column["length"].to_numpy())
    set_of_shard = np.repeat(np.arange(len(shards)), [len(part) for part in shards.values()])
    sets = {name: np.flatnonzero(set_of_shard[shard] == i) for i, name in enumerate(shards)}
    labels = column["label"].to_pylist()

    cut = pc.is_valid(table["damage"]).to_numpy(zero_copy_only=False)
    bad = pc.is_valid(column["damage"]).to_numpy(zero_copy_only=False) | cut[shard]
    told = [f"{names[i]} ({table['damage'][i]}; {counts[i]} images before)" for i in np.flatnonzero(cut)]
    told += [f"{sources[i]} ({column['damage'][i]})" for i in np.flatnonzero(bad & ~cut[shard])]
    lost = int(bad.sum()) + int((cut & (counts == 0)).sum())
    _tell(str(root), index_file(root, ".damaged.txt"), told, len(sources), limit, lost)
    numbered = all(label.isdecimal() for label in labels)
    return _without(ClassSets(str(root), Files(str(root), sources, spans), labels, sets, numbered), bad)


def _without(sets: ClassSets, bad: NDArray[np.bool_]) -> ClassSets:
    return dataclasses.replace(sets, sets={name: numbers[~bad[numbers]] for name, numbers in sets.sets.items()})


def _tell(where: str, file: Path, told: list[str], total: int, limit: float, lost: int | None = None) -> None:
    """Warns of damaged images, all of which `file` names; raises DataError if they are too many."""
    if not told:
        file.unlink(missing_ok=True)
        return
    with replacing(file) as temporary:
        temporary.write_text("\n".join(told) + "\n")
    lost = len(told) if lost is None else lost
    named = ", ".join(told[:_NAMED_FILES]) + (", ..." if len(told) > _NAMED_FILES else "")
    what = f"{lost} of {total} images are damaged: {named}; all are named in {file}"
    if lost > limit * total:
        raise DataError(
            f"{where}: {what}; replace or remove them, or raise dataset.damaged_limit, the share that is left out "
            f"(now {limit:g})"
        )
    logger.warning("%s: left out: %s", where, what)
