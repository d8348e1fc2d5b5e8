"""An attempt at a run in an object store: log and checkpoint are in a temporary folder and uploaded from there."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from autodo.errors import StoreError
from autodo.io.storage import LocalLocation, Location
from orchestration.store.attempt import Attempt, RunLog
from orchestration.store.lease import Lease
from orchestration.store.paths import CHECKPOINT, LEASE, LOG, is_checkpoint
from orchestration.store.patience import Retry
from orchestration.store.run_state import RunBusy
from orchestration.store.scratch import scratch_directory, sweep

logger = logging.getLogger("autodo")
Version = list[tuple[str, int, int]]
"""Name, time of change and inode of each file of a checkpoint."""


class RemoteAttempt(Attempt):
    """An attempt that uploads its checkpoints in a thread, one at a time."""

    def __init__(self, log: RunLog, folder: Path, remote: Location, lease: Lease) -> None:
        super().__init__(log, folder / CHECKPOINT)
        self._folder = folder
        self._remote = remote
        self._lease = lease
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._upload: tuple[Future[None], Version] | None = None
        self._in_store: Version = []

    def download(self) -> None:
        """Fetch the checkpoint, if there is one."""
        for name in filter(is_checkpoint, sorted(self._remote.names())):
            with contextlib.suppress(FileNotFoundError):
                (self._remote / name).fetch(self._folder / name)
        self._in_store = self._version()

    def keep(self) -> None:
        self._lease.check()
        if self._upload is not None and self._upload[0].done():
            self._wait()
        # While the last checkpoint is still uploaded, this epoch's is skipped, and a later one is sent.
        if self._upload is None and (version := self._new_version()):
            self._upload = self._thread.submit(self._send, self._snapshot()), version

    def settle(self) -> None:
        self._wait()
        self._lease.check()

    def end(self) -> None:
        """Upload the last checkpoint and the log; if that fails, the store still has an earlier version."""
        try:
            self._wait()
            self._lease.check()
            if not self.saved and self._new_version():
                self._send(self._snapshot())
        except RunBusy:
            return  # the files in the store belong to the other process now
        except StoreError as error:
            logger.warning("the checkpoint was not kept: %s", error)
        finally:
            self._thread.shutdown()
        self._send_log()

    def _wait(self) -> None:
        """Wait for the upload, if there is one."""
        if self._upload is None:
            return
        (upload, version), self._upload = self._upload, None
        try:
            upload.result()
            self._in_store = version
        except RunBusy:
            pass  # the next check of the lease raises it
        except (StoreError, OSError) as error:
            logger.warning("the checkpoint was not kept, the next one is tried: %s", error)

    def _version(self) -> Version:
        if not self.checkpoint.exists():
            return []
        return [(path.name, path.stat().st_mtime_ns, path.stat().st_ino) for path in _checkpoint_files(self._folder)]

    def _new_version(self) -> Version:
        """The version of the local checkpoint; empty if the store has it, or there is none."""
        version = self._version()
        return [] if version == self._in_store else version

    def _snapshot(self) -> Path:
        """Links to the files as they are now: the training replaces them and does not write into them."""
        folder = Path(tempfile.mkdtemp(prefix="upload-", dir=self._folder))
        for path in _checkpoint_files(self._folder):
            os.link(path, folder / path.name)
        return folder

    def _send(self, snapshot: Path) -> None:
        files = _checkpoint_files(snapshot)
        try:
            for path in files:
                (self._remote / path.name).upload(path)
            for name in self._remote.names() - {path.name for path in files}:
                if is_checkpoint(name):
                    (self._remote / name).delete()  # a part of an earlier checkpoint
        finally:
            for path in files:
                path.unlink()
            snapshot.rmdir()
        self._lease.check()
        self._send_log()

    def _send_log(self) -> None:
        self.log.flush()
        with contextlib.suppress(StoreError, OSError):
            (self._remote / LOG).write_bytes((self._folder / LOG).read_bytes())


def _checkpoint_files(folder: Path) -> list[Path]:
    """Files of the checkpoint; the main one is last, because the others are valid only with it."""
    files = [path for path in folder.iterdir() if is_checkpoint(path.name)]
    return sorted(files, key=lambda path: (path.name == CHECKPOINT, path.name))


@contextlib.contextmanager
def remote_attempt(folder: Location, retry: Retry) -> Iterator[Attempt]:
    """An attempt marked by a lease.

    Raises:
        RunBusy: if another process holds the lease. StoreError: if the store cannot be read or written.
    """
    lease = Lease(folder / LEASE)
    retry(lease.acquire)
    with contextlib.ExitStack() as stack:
        stack.callback(lease.release)
        temporary = Path(tempfile.gettempdir())
        sweep(temporary)
        scratch = stack.enter_context(scratch_directory(temporary))
        with contextlib.suppress(FileNotFoundError):
            retry(lambda: (folder / LOG).fetch(scratch / LOG))
        log = RunLog((LocalLocation(scratch) / LOG).open_append())
        stack.callback(log.close)
        attempt = RemoteAttempt(log, scratch, folder, lease)
        stack.callback(attempt.end)
        retry(attempt.download)
        yield attempt
