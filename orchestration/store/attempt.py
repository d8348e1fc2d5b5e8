"""One attempt at a run: the mark that this process is at work on it, its log, and its checkpoint as a local file."""

import contextlib
import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from autodo.errors import StoreError
from autodo.io.storage import LocalLocation, Location
from orchestration.store import lease
from orchestration.store.run_state import RunBusy
from orchestration.store.scratch import scratch_directory, sweep

logger = logging.getLogger("autodo")

Patiently = Callable[[Callable[[], Any]], Any]
"""Does what may fail for a while until it succeeds."""

CHECKPOINT = "checkpoint.pt"
_LOG_LIMIT = 2**20  # characters that wait for a full disk
_TRIES = 5


class RunLog:
    """The log of a run as a stream that never fails: what cannot be written now is written with the next line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pending = b""

    def fileno(self) -> int:
        """The file descriptor."""
        return self._descriptor

    def write(self, text: str) -> int:
        """Appends text; on a full disk it waits for the next call."""
        self._pending = (self._pending + text.encode(errors="replace"))[-_LOG_LIMIT:]
        self.flush()
        return len(text)

    def flush(self) -> None:
        """Tries again to write what could not be written."""
        with contextlib.suppress(OSError):
            while self._pending:
                self._pending = self._pending[os.write(self._descriptor, self._pending) :]

    def close(self) -> None:
        """Writes what is left, if possible."""
        self.flush()
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


class Attempt:
    """An attempt in a store on a file system: log and checkpoint lie where they stay."""

    def __init__(self, log: RunLog, checkpoint: Path) -> None:
        self.log = log
        self.checkpoint = checkpoint
        """Where the training continues from, and keeps its state."""
        self.saved = False
        """Whether the results are in the store, so that the checkpoint has had its day."""

    def keep(self) -> None:
        """To be called after every epoch: brings the checkpoint, if there is a new one, to the store.

        Raises:
            RunBusy: if another process has taken the run over.
        """

    def settle(self) -> None:
        """To be called before the results are saved: nothing is on its way any more. Raises RunBusy as `keep` does."""


class _RemoteAttempt(Attempt):
    """An attempt in an object store: checkpoint and log lie in a temporary folder and are uploaded from there."""

    def __init__(self, log: RunLog, folder: Path, remote: Location, claim: lease.Lease) -> None:
        super().__init__(log, folder / CHECKPOINT)
        self._folder = folder
        self._remote = remote
        self._claim = claim
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._upload: Future[None] | None = None
        self._on_the_way: object = None
        self._kept: object = None

    def fetch(self) -> None:
        """Brings the checkpoint here, if there is one."""
        names = self._remote.names()
        for name in sorted(names):
            if is_checkpoint(name):
                with contextlib.suppress(FileNotFoundError):
                    (self._remote / name).fetch(self._folder / name)
        self._kept = self._version()

    def keep(self) -> None:
        self._claim.check()
        if self._upload is not None and self._upload.done():
            self._collect()
        version = self._version()
        # One at a time: if the last one is still on its way, this epoch's is skipped and the next one's taken.
        if self._upload is None and version not in (None, self._kept):
            self._on_the_way = version
            self._upload = self._pool.submit(self._send, self._snapshot())

    def settle(self) -> None:
        self._collect()
        self._claim.check()

    def end(self) -> None:
        """Brings what is not there yet to the store; what fails is in the log, and its earlier version in the store."""
        try:
            self._collect()
            self._claim.check()
            if not self.saved and self._version() not in (None, self._kept):
                self._send(self._snapshot())
        except RunBusy:
            return  # what is there now is the other's
        except StoreError as error:
            logger.warning("the checkpoint was not kept: %s", error)
        finally:
            self._pool.shutdown()
        self.send_log()

    def send_log(self) -> None:
        """Uploads the log, if possible."""
        self.log.flush()
        with contextlib.suppress(StoreError, OSError):
            (self._remote / "log.txt").write_bytes((self._folder / "log.txt").read_bytes())

    def _collect(self) -> None:
        """Waits for the upload on its way."""
        upload, self._upload = self._upload, None
        if upload is None:
            return
        try:
            upload.result()
            self._kept = self._on_the_way
        except RunBusy:
            pass  # told by who asks the lease next
        except (StoreError, OSError) as error:
            logger.warning("the checkpoint was not kept, the next one is tried: %s", error)

    def _files(self) -> list[Path]:
        """The files of the checkpoint, the main one last: with it the others count."""
        files = [path for path in self._folder.iterdir() if is_checkpoint(path.name)]
        return sorted(files, key=lambda path: (path.name == CHECKPOINT, path.name))

    def _version(self) -> object:
        """What changes when the checkpoint does; None if there is none."""
        if not self.checkpoint.exists():
            return None
        return [(path.name, path.stat().st_mtime_ns, path.stat().st_ino) for path in self._files()]

    def _snapshot(self) -> Path:
        """The files as they are now, by links: the training replaces them and does not write into them."""
        folder = Path(tempfile.mkdtemp(prefix="upload-", dir=self._folder))
        for path in self._files():
            os.link(path, folder / path.name)
        return folder

    def _send(self, snapshot: Path) -> None:
        sent = sorted(snapshot.iterdir(), key=lambda path: (path.name == CHECKPOINT, path.name))
        try:
            for path in sent:
                (self._remote / path.name).upload(path)
            for name in self._remote.names() - {path.name for path in sent}:
                if is_checkpoint(name):
                    (self._remote / name).delete()  # a part of an earlier checkpoint
        finally:
            for path in sent:
                path.unlink()
            snapshot.rmdir()
        self._claim.check()
        self.send_log()


def is_checkpoint(name: str) -> bool:
    """Whether a file of a run belongs to its checkpoint: `checkpoint.pt`, or a part named after it."""
    return name.startswith("checkpoint")


@contextlib.contextmanager
def local_attempt(folder: LocalLocation, run_id: str, patiently: Patiently) -> Iterator[Attempt]:
    """An attempt that the kernel's lock on the log marks; it drops the lock when the process ends, however it ends.

    Raises:
        RunBusy: if another process holds the lock. StoreError: if the log cannot be written.
    """
    place = folder / "log.txt"
    log = RunLog(patiently(place.open_append))
    with contextlib.closing(log):
        try:
            locks = _lock(log.fileno())
        except BlockingIOError:
            raise RunBusy(f"{run_id}: another process is at work on it; see {place}") from None
        if not locks:
            # Atomic writes still keep the store whole.
            log.write("this file system has no locks: nothing keeps a second process from this run\n")
        yield Attempt(log, (folder / CHECKPOINT).local)


@contextlib.contextmanager
def remote_attempt(folder: Location, patiently: Patiently) -> Iterator[Attempt]:
    """An attempt that a lease marks.

    Raises:
        RunBusy: if another process holds the lease. StoreError: if the store cannot be read or written.
    """
    claim = lease.Lease(folder / "lease.json")
    patiently(claim.acquire)
    with contextlib.ExitStack() as stack:
        stack.callback(claim.release)
        temporary = Path(tempfile.gettempdir())
        sweep(temporary)
        scratch = stack.enter_context(scratch_directory(temporary))
        with contextlib.suppress(FileNotFoundError):
            patiently(lambda: (folder / "log.txt").fetch(scratch / "log.txt"))
        log = RunLog((LocalLocation(scratch) / "log.txt").open_append())
        stack.callback(log.close)
        attempt = _RemoteAttempt(log, scratch, folder, claim)
        stack.callback(attempt.end)
        patiently(attempt.fetch)
        yield attempt


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a run's log."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # Shared and for a moment: other watchers get it too, and who takes the run tries more than once.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a file system without locks
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int) -> bool:
    """Takes the lock; False on a file system without locks. Raises BlockingIOError if another process has it."""
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            # It may be a watcher's, which lasts for microseconds.
            if not left:
                raise
            time.sleep(0.01)
        except OSError:
            return False
    return True
