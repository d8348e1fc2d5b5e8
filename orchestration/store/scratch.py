"""Temporary directory of a launch, for Ray's sessions, and the removal of those that killed launches left behind.

A launch that ends by itself removes its directory. After `kill -9` or a power cut it stays, with Ray's logs and spilled
objects; the processes do not: Ray's own end seconds after the driver, its two agents within about a minute.
"""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from autodo.io.file_lock import try_lock

_PREFIX = "autodo-"
_LOCK = "launch.lock"


@contextlib.contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """A new directory that is removed at the end; if this process is killed before, `sweep` removes it.

    A lock marks a living owner: the kernel drops it however the process ends, while a process id could have been given
    to another process since.
    """
    path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with (path / "new.lock").open("w") as lock:
            # Locked before it has its name. Without locks it keeps the other name, and nothing is swept.
            if try_lock(lock.fileno()):
                (path / "new.lock").rename(path / _LOCK)
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sweep(parent: Path) -> list[Path]:
    """Remove the directories in `parent` whose launch is dead, and return them.

    Only directories that `scratch_directory` made for the same user and that no process holds are touched.
    """
    return [path for path in sorted(parent.glob(f"{_PREFIX}*")) if _is_ours(path) and _remove_if_dead(path)]


def _is_ours(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _remove_if_dead(path: Path) -> bool:
    try:
        descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        dead = try_lock(descriptor, patience=0)
        if dead:
            shutil.rmtree(path, ignore_errors=True)
        return dead and not path.exists()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
