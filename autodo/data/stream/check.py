"""Checks of files: whether an image can be decoded, and which images a tar shard holds."""

import functools
import io
import json
import re
import tarfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from autodo.data.files.decode import decode, reason
from autodo.data.files.listing import SUFFIXES
from autodo.data.files.read_errors import one_line
from autodo.data.stream.image_files import RetriesFailed, read_with_retries
from autodo.data.stream.index import CheckResult, TarMember

_END_BYTES = 1024
"""Zeros after the last file of a tar file."""
_RECORD_BYTES = 10240
_LARGEST_RECORD_BYTES = 2**20
"""A tar file's size is a multiple of a record: tar's own by default, or any other power of two up to this."""
_META = re.compile(r"__[^/]*__($|/)")
"""Names that webdataset ignores."""
_LABELS = (".cls", ".json")
_TWO_DOTS = "its name has two dots, and ends at the first one for its class"


def check_images(paths: Sequence[str]) -> list[CheckResult]:
    """Checks whether image files can be decoded."""
    return _check_each(_image, paths)


def check_shards(paths: Sequence[str]) -> list[CheckResult]:
    """Lists the images in tar files, whether they can be decoded, and the texts that may give their classes."""
    return _check_each(_shard, paths)


def _check_each(check: Callable[[Path], CheckResult], paths: Sequence[str]) -> list[CheckResult]:
    results: list[CheckResult] = []
    for path in paths:
        try:
            results.append(read_with_retries(functools.partial(check, Path(path)))[0])
        except RetriesFailed as error:
            return [*results, CheckResult(str(error), read=False)]
    return results


def _image(path: Path) -> CheckResult:
    return CheckResult(damage(path.read_bytes()))


def damage(content: bytes) -> str | None:
    """Reason why the bytes cannot be decoded as an image; None if they can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # The whole file, at the smallest size that its decoder offers.
            decode(io.BytesIO(content), 1)
        except Exception as error:  # PIL's decoders raise exceptions of many kinds for damaged files
            return reason(error)
    return None


def _shard(path: Path) -> CheckResult:
    members: list[TarMember] = []
    with path.open("rb") as file:
        try:
            for part in _parts_of(file):
                members.append(_member(file, part))
        except tarfile.TarError as error:
            return CheckResult(one_line(error), members)
    return CheckResult(None, members)


def _member(file: BinaryIO, part: tarfile.TarInfo) -> TarMember:
    """An image, or a text that may give an image's class."""
    if not part.isreg():
        return TarMember(part.name, part.offset_data, 0, "", "a link; put the file in its place")
    file.seek(part.offset_data)
    content = file.read(part.size)
    if _is_image(part.name):
        return TarMember(part.name, part.offset_data, part.size, "", damage(content))
    return TarMember(part.name, part.offset_data, part.size, content.decode(errors="replace"), None)


def _parts_of(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Members of a tar file named like an image or its class. Raises TarError if it is not a whole tar file."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for part in tar:
            wanted = _is_image(part.name) or PurePosixPath(part.name).suffix.lower() in _LABELS
            if wanted and not _META.match(part.name) and not part.isdir():
                yield part
        # A damaged or truncated header ends the loop as the end of the archive does.
        if not _ends_at(file, tar.offset):
            raise tarfile.ReadError("its end is missing, or a header in it is damaged")


def _ends_at(file: BinaryIO, offset: int) -> bool:
    """Whether the tar file ends at `offset`: zeros follow, no more than fill its last record."""
    size = file.seek(0, io.SEEK_END)
    record = max(_RECORD_BYTES, min(size & -size, _LARGEST_RECORD_BYTES))
    file.seek(offset)
    return _END_BYTES <= size - offset < _END_BYTES + record and not any(file.read(size - offset))


def label_members(shard: CheckResult) -> CheckResult:
    """The images of a shard with their classes, which by webdataset's rule have the same name up to the first dot.

    Further images of a sample, such as masks, are ignored; images of a sample without a plain one count as damaged.
    """
    from webdataset.tariterators import group_by_keys

    parts = [{"fname": member.name, "data": member, "__url__": ""} for member in shard.members or ()]
    images: list[TarMember] = []
    try:
        for sample in group_by_keys(parts):
            image = next((part for suffix, part in sample.items() if f".{suffix}" in SUFFIXES), None)
            if image is not None:
                label = _label(sample)
                problem = image.damage or (None if label else "no .cls or .json that gives its class")
                images.append(image._replace(label=label, damage=problem))
            else:
                others = (part for part in sample.values() if isinstance(part, TarMember) and _is_image(part.name))
                images += [part._replace(damage=part.damage or _TWO_DOTS) for part in others]
    except ValueError as error:
        twice = str(error.args[0]).partition(": duplicate")[0]
        return shard._replace(damage=f"holds {twice} twice", members=images)
    return shard._replace(members=images)


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _label(sample: Mapping[str, Any]) -> str:
    """The class given by .cls, or by "label" or "cls" in .json; empty if none gives it."""
    if "cls" in sample:
        return str(sample["cls"].label).strip()
    try:
        given = json.loads(sample["json"].label) if "json" in sample else None
    except ValueError:
        return ""
    if isinstance(given, dict):
        given = given.get("label", given.get("cls"))
    return str(given) if isinstance(given, int | str) else ""
