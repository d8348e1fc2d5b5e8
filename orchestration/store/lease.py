"""Lease on a run in an object store, which has no locks: an object that its owner renews.

An object store offers no conditional write through pyarrow.fs. So a claim is written, then read back after a moment:
the last writer has it. If a process is delayed between its look at the lease and its claim by more than that moment,
two may go on; the one that does not own the lease notices at its next renewal and stops. The cost is some seconds of
work done twice and nothing else: results do not depend on the process that computes them, and each is one object that
is replaced as a whole.

Whether a lease of another machine is stale depends on the clocks of both, which must agree to within half a minute.
"""

import contextlib
import datetime
import functools
import os
import socket
import threading
import time
import uuid
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from autodo.errors import StoreError
from autodo.io.storage import Location
from orchestration.store.run_state import RunBusy

RENEW_SECONDS = 15.0
STALE_SECONDS = 60.0
SETTLE_SECONDS = 0.5
"""Time between a claim and the look that confirms it."""


class Holder(BaseModel):
    """Content of runs/<run_id>/lease.json."""

    model_config = ConfigDict(frozen=True)

    owner: str
    host: str
    machine: str
    """Host, boot and process namespace: within one, a process id and its start identify a process."""
    pid: int
    process_start: str
    time: datetime.datetime

    @property
    def alive(self) -> bool:
        """Whether the owner may still be at work."""
        if self.machine == _machine():
            return _process_start(self.pid) == self.process_start
        age = (datetime.datetime.now(datetime.UTC) - self.time).total_seconds()
        return age < STALE_SECONDS


class Lease:
    """This process's claim to a run, renewed by a thread until it is released or lost."""

    def __init__(self, file: Location) -> None:
        self._file = file
        self._owner = uuid.uuid4().hex
        self._ended = threading.Event()
        self._lost_to: Holder | None = None
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def check(self) -> None:
        """Raise RunBusy if another process has taken the run over."""
        if self._lost_to is not None:
            raise RunBusy(f"{self._lost_to.host}:{self._lost_to.pid} has taken this run over ({self._file})")

    def acquire(self) -> None:
        """Claim the run. Raises RunBusy if another process executes it."""
        holder = read(self._file)
        # A lease of our own comes from an earlier try whose answer was lost.
        if holder is not None and holder.owner != self._owner and holder.alive:
            raise RunBusy(f"{holder.host}:{holder.pid} executes it; see {self._file}")
        self._write()
        time.sleep(SETTLE_SECONDS)
        holder = read(self._file)
        if holder is None or holder.owner != self._owner:
            who = f"{holder.host}:{holder.pid}" if holder else "another process"
            raise RunBusy(f"{who} began at the same moment; see {self._file}")
        self._thread.start()

    def release(self) -> None:
        """End the renewal and remove the lease, unless another process has taken it over."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(StoreError):  # it goes stale by itself
            holder = read(self._file)
            if holder is not None and holder.owner == self._owner:
                self._file.delete()

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            # While the storage does not answer, no other process can claim the run either.
            with contextlib.suppress(StoreError):
                holder = read(self._file)
                if holder is not None and holder.owner != self._owner:
                    self._lost_to = holder
                    return
                self._write()

    def _write(self) -> None:
        holder = Holder(
            owner=self._owner,
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            process_start=_process_start(os.getpid()),
            time=datetime.datetime.now(datetime.UTC),
        )
        self._file.write_text(holder.model_dump_json())


def read(file: Location) -> Holder | None:
    """Holder of a lease; None if there is none, or the file is damaged."""
    try:
        return Holder.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


@functools.cache
def _machine() -> str:
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(os.readlink("/proc/self/ns/pid")))  # noqa: PTH115 (the link is no path)
    return " ".join(parts)


def _process_start(pid: int) -> str:
    """Start of a process of this machine, in ticks since its boot; empty if it does not exist or has ended."""
    try:
        # The name is in brackets and may hold anything; after it the state is the first field and the start the 20th.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
