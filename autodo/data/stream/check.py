"""Looks at every file once: is it an image, whole and readable, and what is in a tar shard?"""

import io
import json
import math
import re
import tarfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from autodo.data.decode import decode, reason
from autodo.data.files import one_line
from autodo.data.listing import SUFFIXES
from autodo.data.stream.index import Found, Member

_BLOCK_BYTES = 512
_META = re.compile(r"__[^/]*__($|/)")
"""Names that webdataset passes over."""


def look_at_images(paths: Sequence[str]) -> list[Found]:
    """Of image files: whether they can be decoded."""
    return [Found(_damage_of_file(Path(path))) for path in paths]


def _damage_of_file(path: Path) -> str | None:
    try:
        return damage(path.read_bytes())
    except OSError as error:
        return error.strerror or str(error)


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
    """Of tar files as webdataset writes them: their images, each with its class and whether it can be decoded."""
    return [_look_at_shard(Path(path)) for path in paths]


def _look_at_shard(path: Path) -> Found:
    parts: list[dict[str, Any]] = []
    try:
        with path.open("rb") as file:
            try:
                for part in _parts_of(file):
                    parts.append({"fname": part.name, "data": part, "__url__": str(path)})
            except (tarfile.TarError, ValueError) as error:
                return Found(one_line(error), list(_images(parts, file)))
            return Found(None, list(_images(parts, file)))
    except (OSError, ValueError) as error:
        return Found(one_line(error), [])


def _parts_of(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The files in a tar file. Raises TarError if it is none, or its end is missing."""
    end = 0
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for part in tar:
            end = part.offset_data + math.ceil(part.size / _BLOCK_BYTES) * _BLOCK_BYTES
            if part.isreg() and not _META.match(part.name):
                yield part
    if file.seek(0, io.SEEK_END) <= end:
        raise tarfile.ReadError("its end is missing")


def _images(parts: Sequence[dict[str, Any]], file: BinaryIO) -> Iterator[Member]:
    """The images of samples, grouped as webdataset does it. Raises ValueError if a name is there twice."""
    from webdataset.tariterators import group_by_keys

    for sample in group_by_keys(parts):
        image = next((part for suffix, part in sample.items() if f".{suffix}" in SUFFIXES), None)
        if image is None:
            continue
        label = _label(sample, file)
        problem = damage(_content(image, file)) if label is not None else "no .cls or .json that gives its class"
        yield Member(image.name, image.offset_data, image.size, label or "", problem)


def _label(sample: Mapping[str, Any], file: BinaryIO) -> str | None:
    """The class as .cls gives it, or "label" or "cls" in .json; None without any."""
    if "cls" in sample:
        return _content(sample["cls"], file).decode(errors="replace").strip() or None
    if "json" not in sample:
        return None
    try:
        given = json.loads(_content(sample["json"], file))
    except ValueError:
        return None
    if isinstance(given, dict):
        given = given.get("label", given.get("cls"))
    return str(given) if isinstance(given, int | str) and given != "" else None


def _content(part: tarfile.TarInfo, file: BinaryIO) -> bytes:
    file.seek(part.offset_data)
    return file.read(part.size)
