"""Errors of files that cannot be read."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from autodo.errors import DataError


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns OSErrors of the block into DataErrors that name `path`."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    """An exception's text on one line; an assertion may have none."""
    return " ".join(str(error).split()) or "not in the format of such files"
