"""The temporary directory of a launch, for Ray's sessions, and what killed launches left behind.

A launch that ends by itself removes its directory. After `kill -9` or a power cut it stays, with Ray's logs and spilled
objects; the processes do not: Ray's own end seconds after the driver, its two agents within about a minute.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "autodo-"
_LOCK = "launch.lock"


@contextlib.contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """A new directory that is removed at the end; `sweep` removes it if this process is killed before.

    The mark of a living owner is a lock, which the kernel drops however the process ends: a process id could have been
    given to another process since.
    """
    path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with (path / "new.lock").open("w") as lock:
            with contextlib.suppress(OSError):  # a file system without locks: nothing will be swept from it
                fcntl.flock(lock, fcntl.LOCK_EX)
                # Under its name it is locked from the first moment on.
                (path / "new.lock").rename(path / _LOCK)
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sweep(parent: Path) -> list[Path]:
    """Removes the directories in `parent` whose launch is dead, and returns them.

    It touches only what `scratch_directory` of the same user made and nobody holds.
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
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()
    finally:
        os.close(descriptor)
