"""Order of the runs of a launch, repetition of failed ones, and the end of the launch. Knows nothing of Ray."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable

from autodo.config.run import RunConfig
from orchestration.grid.resources import ResourcesConfig
from orchestration.store.patience import BUSY_SECONDS
from orchestration.store.run_state import Failure

RETRIES = 2
"""Further attempts of a failed run unless the command line says otherwise."""
BUSY_PAUSE_SECONDS = 2.0
"""Pause between two looks at a run that another process is running."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A run to do, with its resources and expected time."""

    run_id: str
    run: RunConfig
    resources: ResourcesConfig
    expected_seconds: float | None = None
    """From earlier runs of its kind; None without such runs."""
    rough_cost: float = 1.0
    """Orders the runs of unknown length, the costliest first; see `estimate.rough_cost`."""
    variant: str = ""
    """Name of the settings of its method in the grid; empty if they have none."""


class RunQueue:
    """The runs of a launch: waiting, at work, or over.

    The longest run starts first, since it would keep the other slots waiting if it started last; runs of unknown length
    come before all others, the costliest method first. A run that fails goes to the end and is tried again as long as
    `Failure.given_up` allows.

    Args:
        retries: further attempts of a failed run; losses of its node are not counted.
        at_most: the most runs at work at a time; None for no limit.
        seconds: time budget, after which no run starts and those at work are asked to stop; None for no limit.
        patience_seconds: time to wait for runs of other processes when nothing else is left.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        *,
        retries: int,
        at_most: int | None = None,
        seconds: float | None = None,
        patience_seconds: float = BUSY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._waiting = sorted(jobs, key=lambda job: (-_length(job), -job.rough_cost))
        self._at_work: dict[str, Job] = {}
        self._busy: dict[str, Job] = {}
        self._failed_here: dict[str, int] = {}
        self._retries = retries
        self._patience = patience_seconds
        self._at_most = math.inf if at_most is None else at_most
        self._clock = clock
        self._deadline = math.inf if seconds is None else clock() + seconds
        self._quiet_since = self._last_look = clock()
        self._stopped = False

    @property
    def stopping(self) -> bool:
        """Whether no further run starts, by `stop` or because the time is over."""
        return self._stopped or self.out_of_time

    @property
    def out_of_time(self) -> bool:
        """Whether the time is over."""
        return self._clock() >= self._deadline

    @property
    def finished(self) -> bool:
        """Whether no run is at work and none will start."""
        if self._at_work:
            return False
        return self.stopping or (not self._waiting and (not self._busy or self._out_of_patience()))

    def stop(self) -> None:
        """Start no further run."""
        self._stopped = True

    def take(self) -> Job | None:
        """Take the next run, which counts as at work from now on; None if there is none at the moment."""
        if self.stopping or len(self._at_work) >= self._at_most:
            return None
        if not self._waiting and self._busy and self._clock() - self._last_look >= BUSY_PAUSE_SECONDS:
            self._last_look = self._clock()
            run_id = next(iter(self._busy))  # the one that has waited longest
            self._waiting.append(self._busy.pop(run_id))
        if not self._waiting:
            return None
        job = self._waiting.pop(0)
        self._at_work[job.run_id] = job
        return job

    def ended(self, run_id: str) -> None:
        """Count a run as over: done, stopped when asked to, or stopped before it began."""
        self._at_work.pop(run_id)
        self._quiet_since = self._clock()

    def is_busy(self, run_id: str) -> None:
        """Set a run aside, because another process is running it."""
        self._busy[run_id] = self._at_work.pop(run_id)

    def failed(self, run_id: str, failure: Failure) -> bool:
        """Count a failure of a run; return whether the run is tried again."""
        job = self._at_work.pop(run_id)
        self._quiet_since = self._clock()
        if failure.counts:
            # Counted here too, because a store that cannot be written keeps no count.
            self._failed_here[run_id] = self._failed_here.get(run_id, 0) + 1
        if failure.given_up(self._retries) or self._failed_here.get(run_id, 0) > self._retries:
            return False
        self._waiting.append(job)
        return True

    def _out_of_patience(self) -> bool:
        return self._clock() - self._quiet_since >= self._patience


def _length(job: Job) -> float:
    return math.inf if job.expected_seconds is None else job.expected_seconds
