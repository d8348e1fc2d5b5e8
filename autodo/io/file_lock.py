"""Locks on files, which the kernel releases when their process ends, however it ends."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from autodo.io.retry import retry


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the exclusive lock on a file, which is made if need be; wait for it if another process has it.

    Raises:
        OSError: if the file cannot be written, or the file system has no locks.
    """
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def try_lock(descriptor: int, *, patience: float = 0.05) -> bool:
    """Take the exclusive lock on an open file; it lasts until the file is closed.

    Args:
        patience: seconds; `is_locked` of another process may hold the lock for microseconds.
    Returns:
        False on a file system without locks.
    Raises:
        BlockingIOError: if another process has it.
    """

    def lock() -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    try:
        retry(lock, lambda error: patience if isinstance(error, BlockingIOError) else 0.0, pause=0.01)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file; False if there is no such file, or no locks."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # Shared and for a moment, so that other processes can ask at the same time; `try_lock` has patience.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
