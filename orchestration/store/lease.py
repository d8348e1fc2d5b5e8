"""Who is at work on a run, where the storage has no locks: an object that its owner renews.

An object store offers no conditional write through pyarrow.fs. So a claim is written, then read back after a moment:
the last writer has it. If a process is delayed between its look at the lease and its claim by more than that moment,
two may go on; the one that does not own the lease learns it at its next renewal and stops. What that costs is work
done twice for some seconds. Nothing else: results do not depend on who computes them, and each is one object that is
replaced as a whole.

Whether a lease of another machine is stale is told by the clocks of both, which must agree to within half a minute.
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
"""How long a claim must stand before it is believed."""


class Holder(BaseModel):
    """Content of runs/<run_id>/lease.json."""

    model_config = ConfigDict(frozen=True)

    owner: str
    host: str
    machine: str
    """Host, boot and process namespace: within one, process ids tell who is alive."""
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

    def __init__(self, place: Location) -> None:
        self._place = place
        self._owner = uuid.uuid4().hex
        self._ended = threading.Event()
        self._lost_to: Holder | None = None
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def check(self) -> None:
        """Raises RunBusy if another process has taken the run over."""
        if self._lost_to is not None:
            raise RunBusy(f"{self._lost_to.host}:{self._lost_to.pid} has taken this run over ({self._place})")

    def acquire(self) -> None:
        """Claims the run. Raises RunBusy if another process is at work on it."""
        holder = read(self._place)
        # Its own is that of an earlier try, which the storage did not answer to the end.
        if holder is not None and holder.owner != self._owner and holder.alive:
            raise RunBusy(f"{holder.host}:{holder.pid} is at work on it; see {self._place}")
        self._write()
        time.sleep(SETTLE_SECONDS)
        holder = read(self._place)
        if holder is None or holder.owner != self._owner:
            who = f"{holder.host}:{holder.pid}" if holder else "another process"
            raise RunBusy(f"{who} began at the same moment; see {self._place}")
        self._thread.start()

    def release(self) -> None:
        """Ends the renewal and gives the run free, unless it is another's by now."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(StoreError):  # it goes stale by itself
            holder = read(self._place)
            if holder is not None and holder.owner == self._owner:
                self._place.delete()

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            # While the storage does not answer nobody else can claim the run either.
            with contextlib.suppress(StoreError):
                holder = read(self._place)
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
        self._place.write_text(holder.model_dump_json())


def read(place: Location) -> Holder | None:
    """Who holds a lease; None if nobody does, or it is damaged."""
    try:
        return Holder.model_validate_json(place.read_bytes())
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
    """When a process of this machine began, in ticks since its boot; empty if there is none, or it has ended."""
    try:
        # After the name, which stands in brackets and may hold anything: state is the first field, start the 20th.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
