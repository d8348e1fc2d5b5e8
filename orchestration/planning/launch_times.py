"""Overhead of launches, as they measured it, and an estimate for the next one.

The last ones are kept in `launches.json` of the store and, for new stores, of this machine's cache folder.
"""

import contextlib
import datetime
import socket
import statistics
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, TypeAdapter, ValidationError

from autodo.data.files.remote import cache_dir
from autodo.errors import StoreError
from autodo.io.storage import LocalLocation, Location
from orchestration.store.store import Store

KEPT = 20
_USED = 3


class LaunchKind(NamedTuple):
    """Launches whose overheads compare."""

    several_workers: bool
    """Whether a run has several workers."""
    joined: bool
    """Whether the launch joins a running Ray cluster."""


class LaunchTimes(BaseModel):
    """Wall seconds of the parts of one launch that trained something."""

    model_config = ConfigDict(frozen=True)

    time: datetime.datetime
    host: str
    several_workers: bool
    joined: bool
    start: NonNegativeFloat
    """From the end of the data check until Ray runs and Tune is imported."""
    first_step: NonNegativeFloat
    """From then until the first run trains."""
    runs: NonNegativeFloat
    """From the first step until the last run has ended."""
    shutdown: NonNegativeFloat
    """Shutdown of Ray."""
    report: NonNegativeFloat
    """Tables and report, which are made while Ray shuts down."""
    end: NonNegativeFloat
    """From the end of the last run until the end of the launch."""


class Overhead(NamedTuple):
    """Expected wall seconds of a launch besides its runs."""

    start: float
    """Until Ray runs."""
    first_step: float
    """From then until the first run trains."""
    end: float
    """After the last run: shutdown of Ray, and the report."""

    @property
    def seconds(self) -> float:
        """Sum of the parts."""
        return sum(self)

    @classmethod
    def of(cls, launches: list[LaunchTimes]) -> Self:
        """Medians over some launches."""
        return cls(*(statistics.median(getattr(one, name) for one in launches) for name in cls._fields))


# On 2 quiet cores; see docs/results/performance.md.
_GUESS = {False: Overhead(4.0, 6.0, 3.0), True: Overhead(6.0, 30.0, 4.0)}

_LAUNCHES = TypeAdapter(list[LaunchTimes])


def expected_overhead(store: Store, kind: LaunchKind) -> Overhead:
    """Estimated overhead of the next launch on this store.

    Medians over the last launches of this kind on this store and machine, else on this store, else on this machine,
    else a guess.
    """
    of_store, of_machine = _read(store.paths.launches), _read(_machine_file())
    here = [one for one in of_store if one.host == socket.gethostname()]
    for launches in (here, of_store, of_machine):
        alike = [one for one in launches if (one.several_workers, one.joined) == kind]
        if alike:
            return Overhead.of(alike[-_USED:])
    return _GUESS[kind.several_workers]


def record(store: Store, times: LaunchTimes) -> None:
    """Keep the times of a launch in the store and on this machine, as far as they can be written."""
    for file in (store.paths.launches, _machine_file()):
        with contextlib.suppress(OSError, StoreError):
            file.write_text(_LAUNCHES.dump_json([*_read(file), times][-KEPT:], indent=1).decode())


def _read(file: Location) -> list[LaunchTimes]:
    try:
        return _LAUNCHES.validate_json(file.read_bytes())
    except (OSError, StoreError, ValidationError):
        return []


def _machine_file() -> Location:
    return LocalLocation(cache_dir()) / "launches.json"
