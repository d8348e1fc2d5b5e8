"""Atomic writes: a reader sees the old file, the new one, or none."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces `path` if the block succeeds, and is deleted if not.

    Creates the folder if needed. The temporary name begins with a dot.

    Raises:
        OSError: if the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_torch(content: Any, path: str | os.PathLike[str]) -> None:
    """Save `content` with torch.save, atomically.

    Raises:
        OSError: if the file cannot be written; torch itself raises a RuntimeError.
    """
    import torch  # slow to import

    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
