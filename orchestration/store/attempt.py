"""An attempt at a run: the mark that this process executes it, its log, and its checkpoint as a local file."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from autodo.io.file_lock import try_lock
from autodo.io.storage import LocalLocation
from orchestration.store.paths import CHECKPOINT, LOG
from orchestration.store.patience import Retry
from orchestration.store.run_state import RunBusy

_PENDING_LIMIT = 2**20
"""Bytes that wait for a full disk."""


class RunLog:
    """Log of a run as a stream that never fails: text that cannot be written now is written with the next line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pending = b""

    def write(self, text: str) -> int:
        """Append text; on a full disk it waits for the next call."""
        self._pending = (self._pending + text.encode(errors="replace"))[-_PENDING_LIMIT:]
        self.flush()
        return len(text)

    def flush(self) -> None:
        """Try again to write the pending text."""
        with contextlib.suppress(OSError):
            while self._pending:
                self._pending = self._pending[os.write(self._descriptor, self._pending) :]

    def close(self) -> None:
        """Write the pending text, if possible."""
        self.flush()
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


class Attempt:
    """An attempt in a store on a file system, where log and checkpoint are in their final place."""

    def __init__(self, log: RunLog, checkpoint: Path) -> None:
        self.log = log
        self.checkpoint = checkpoint
        """Local file that the training continues from and keeps its state in."""
        self.saved = False
        """Whether the results are in the store, so that the checkpoint is no longer needed."""

    def keep(self) -> None:
        """Bring a new checkpoint, if there is one, to the store; to be called after every epoch.

        Raises:
            RunBusy: if another process has taken the run over.
        """

    def settle(self) -> None:
        """Wait for uploads; to be called before the results are saved. Raises RunBusy as `keep` does."""


@contextlib.contextmanager
def local_attempt(folder: LocalLocation, run_id: str, retry: Retry) -> Iterator[Attempt]:
    """An attempt marked by a lock on the log, which the kernel drops when the process ends, however it ends.

    Raises:
        RunBusy: if another process holds the lock. StoreError: if the log cannot be written.
    """
    file = folder / LOG
    descriptor = retry(file.open_append)
    log = RunLog(descriptor)
    with contextlib.closing(log):
        try:
            locked = try_lock(descriptor)
        except BlockingIOError:
            raise RunBusy(f"{run_id}: another process executes it; see {file}") from None
        if not locked:
            # Atomic writes still keep the store whole.
            log.write("this file system has no locks: nothing keeps a second process from this run\n")
        yield Attempt(log, (folder / CHECKPOINT).local)
