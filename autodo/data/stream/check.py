"""Looks at every file once: is it an image, whole and readable, and what is in a tar shard?"""

import io
import json
import re
import tarfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from autodo.data.decode import decode, reason
from autodo.data.files import one_line
from autodo.data.listing import SUFFIXES
from autodo.data.stream.index import Found, Member

_END_BYTES = 1024
"""Of zeros, behind the last file of a tar file."""
_RECORD_BYTES = 10240
_LARGEST_RECORD_BYTES = 2**20
"""A tar file's size is a multiple of a record: tar's own by default, or any other power of two up to this."""
_META = re.compile(r"__[^/]*__($|/)")
"""Names that webdataset passes over."""
_LABELS = (".cls", ".json")


def look_at_images(paths: Sequence[str]) -> list[Found]:
    """Of image files: whether they can be decoded."""
    return [_look_at_image(Path(path)) for path in paths]


def _look_at_image(path: Path) -> Found:
    try:
        return Found(damage(path.read_bytes()))
    except OSError as error:
        return Found(reason(error), read=False)


def damage(content: bytes) -> str | None:
    """Why the bytes are not those of an image; None if they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # All of the file is decoded, at the smallest size that its decoder offers.
            decode(io.BytesIO(content), 1)
        except Exception as error:  # PIL's decoders raise exceptions of many kinds for damaged files
            return reason(error)
    return None


def look_at_shards(paths: Sequence[str]) -> list[Found]:
    """Of tar files: the images in them and whether they can be decoded, and the texts that may say of which class."""
    return [_look_at_shard(Path(path)) for path in paths]


def _look_at_shard(path: Path) -> Found:
    members: list[Member] = []
    try:
        with path.open("rb") as file:
            for part in _parts_of(file):
                suffix = PurePosixPath(part.name).suffix.lower()
                if suffix in SUFFIXES or suffix in _LABELS:
                    file.seek(part.offset_data)
                    content = file.read(part.size)
                    text = content.decode(errors="replace") if suffix in _LABELS else ""
                    problem = damage(content) if suffix in SUFFIXES else None
                    members.append(Member(part.name, part.offset_data, part.size, text, problem))
    except tarfile.TarError as error:
        return Found(one_line(error), members)
    except OSError as error:
        return Found(one_line(error), members, read=False)
    return Found(None, members)


def _parts_of(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The files in a tar file. Raises TarError if it is none, or not whole."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for part in tar:
            if part.isreg() and not _META.match(part.name):
                yield part
        # A header that is damaged or cut off ends the loop like the end of the archive does.
        if not _ends_at(file, tar.offset):
            raise tarfile.ReadError("its end is missing, or a header in it is damaged")


def _ends_at(file: BinaryIO, offset: int) -> bool:
    """Whether the end of a tar file stands there: zeros, and no more of them than fill its last record."""
    size = file.seek(0, io.SEEK_END)
    record = max(_RECORD_BYTES, min(size & -size, _LARGEST_RECORD_BYTES))
    file.seek(offset)
    return _END_BYTES <= size - offset < _END_BYTES + record and not any(file.read(size - offset))


def with_labels(shard: Found) -> Found:
    """The images of a shard with their classes, found by webdataset's rule: the same name up to the first dot."""
    from webdataset.tariterators import group_by_keys

    parts = [{"fname": member.name, "data": member, "__url__": ""} for member in shard.members or ()]
    images: list[Member] = []
    try:
        for sample in group_by_keys(parts):
            image = next((part for suffix, part in sample.items() if f".{suffix}" in SUFFIXES), None)
            if image is not None:
                label = _label(sample)
                problem = image.damage if label else "no .cls or .json that gives its class"
                images.append(image._replace(label=label, damage=problem))
    except ValueError as error:
        return shard._replace(damage=one_line(error), members=images)
    return shard._replace(members=images)


def _label(sample: Mapping[str, Any]) -> str:
    """The class as .cls gives it, or "label" or "cls" in .json; empty without any."""
    if "cls" in sample:
        return str(sample["cls"].label).strip()
    try:
        given = json.loads(sample["json"].label) if "json" in sample else None
    except ValueError:
        return ""
    if isinstance(given, dict):
        given = given.get("label", given.get("cls"))
    return str(given) if isinstance(given, int | str) else ""
