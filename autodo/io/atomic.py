"""Files that are replaced as a whole: a reader sees the old one, the new one, or none."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it becomes `path` if the block ends well, else nothing is left of it.

    Makes the folder if need be. The temporary name begins with a dot.

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
    """Writes `content` with torch.save: the whole file or nothing.

    Raises:
        OSError: if the file cannot be written; torch itself hides that in a RuntimeError.
    """
    import torch  # here, because it takes seconds

    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
