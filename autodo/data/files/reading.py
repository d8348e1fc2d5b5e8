"""Errors of files that cannot be read."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from autodo.errors import DataError


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """In the block, a folder or file that the system fails to read is a DataError that names `path`."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    """An exception's text on one line; torchvision's assertions have none."""
    return " ".join(str(error).split()) or "not in the format of such files"
