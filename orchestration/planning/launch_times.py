"""Overhead of launches, as measured by themselves, and an estimate for the next one.

The last ones are kept in the store, `launches.json`, and for a new store in this machine's cache folder.
"""

import contextlib
import datetime
import socket
import statistics
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, TypeAdapter, ValidationError

from autodo.data.readers.remote import cache_dir
from autodo.errors import StoreError
from autodo.io.storage import LocalLocation, Location
from orchestration.store.store import Store

KEPT = 20
_ASKED = 3


class LaunchTimes(BaseModel):
    """Wall seconds of the parts of one launch that trained something."""

    model_config = ConfigDict(frozen=True)

    time: datetime.datetime
    host: str
    several_workers: bool
    """Whether a run was trained by several processes."""
    joined: bool
    """Whether Ray ran before."""
    start: NonNegativeFloat
    """From when the data is there until Ray runs and Tune is imported."""
    first_step: NonNegativeFloat
    """From then until the first run trains."""
    runs: NonNegativeFloat
    """From the first step until the last run has ended."""
    shutdown: NonNegativeFloat
    """Ray's end."""
    report: NonNegativeFloat
    """The tables and the report, which are made while Ray ends."""
    end: NonNegativeFloat
    """From the end of the last run until all is done."""


class Overhead(NamedTuple):
    """Expected wall seconds of a launch besides its runs."""

    start: float
    """Until Ray runs."""
    first_step: float
    """From then until the first run trains."""
    end: float
    """After the last run: Ray's end and the report."""

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(self)

    @classmethod
    def of(cls, launches: list[LaunchTimes]) -> Self:
        """Medians over some launches."""
        return cls(*(statistics.median(getattr(one, name) for one in launches) for name in cls._fields))


# On 2 quiet cores; see docs/results/performance.md.
_UNKNOWN = {False: Overhead(4.0, 6.0, 3.0), True: Overhead(6.0, 30.0, 4.0)}

_LAUNCHES = TypeAdapter(list[LaunchTimes])


def expected(store: Store, *, several_workers: bool, joined: bool) -> Overhead:
    """Estimated overhead of the next launch on this store.

    As the last launches of this kind took on this store and machine, else on this store, else on this machine, else a
    guess.

    Args:
        several_workers: whether a run has several workers.
        joined: whether Ray runs already.
    """
    of_store, of_machine = _read(store.paths.launches), _read(_machine_file())
    here = [one for one in of_store if one.host == socket.gethostname()]
    for launches in (here, of_store, of_machine):
        alike = [one for one in launches if (one.several_workers, one.joined) == (several_workers, joined)]
        if alike:
            return Overhead.of(alike[-_ASKED:])
    return _UNKNOWN[several_workers]


def record(store: Store, times: LaunchTimes) -> None:
    """Keeps what a launch took; what cannot be written is not kept."""
    for place in (store.paths.launches, _machine_file()):
        with contextlib.suppress(OSError, StoreError):
            place.write_text(_LAUNCHES.dump_json([*_read(place), times][-KEPT:], indent=1).decode())


def _read(place: Location) -> list[LaunchTimes]:
    try:
        return _LAUNCHES.validate_json(place.read_bytes())
    except (OSError, StoreError, ValidationError):
        return []


def _machine_file() -> Location:
    return LocalLocation(cache_dir()) / "launches.json"
