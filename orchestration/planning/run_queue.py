"""Which run starts next, which starts again after a failure, and when nothing starts any more. Knows nothing of Ray."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable

from autodo.config.run import RunConfig
from orchestration.grid.resources import ResourcesConfig
from orchestration.store.patience import BUSY_SECONDS
from orchestration.store.run_state import Failure

BUSY_PAUSE_SECONDS = 2.0
"""Between two looks at a run that another process is at work on."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A run and what it occupies."""

    run_id: str
    run: RunConfig
    resources: ResourcesConfig
    expected_seconds: float | None = None
    """From earlier runs of its kind; None if there are none."""
    rough_cost: float = 1.0
    """Tells which of the runs of unknown length are probably the longest; see `estimate.rough_cost`."""


class RunQueue:
    """The runs of a launch: waiting, at work, or over.

    The longest starts first, since a long run that starts last would keep every other machine waiting; a run of unknown
    length may be long, the more so the more its method costs. A run that fails goes to the end and is tried again as
    long as `Failure.given_up` allows.

    Args:
        retries: how many further attempts a failed run has; losses of its node are not counted.
        at_most: so many runs are at work at a time; None for no limit.
        patience_seconds: time for which runs of other processes are waited for when nothing else is left.
        seconds: after so long no run starts and those at work are asked to stop; None for no limit.
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
        """Whether no run starts any more, by `stop` or because the time is over."""
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

    @property
    def busy(self) -> tuple[str, ...]:
        """Ids of the runs that another process is at work on, as far as is known."""
        return tuple(self._busy)

    def stop(self) -> None:
        """From now on no run starts."""
        self._stopped = True

    def take(self) -> Job | None:
        """The next run, which is at work from now on; None if there is none at the moment."""
        if self.stopping or len(self._at_work) >= self._at_most:
            return None
        if not self._waiting and self._busy and self._clock() - self._last_look >= BUSY_PAUSE_SECONDS:
            self._last_look = self._clock()
            # One of them, the one that has waited longest.
            run_id = next(iter(self._busy))
            self._waiting.append(self._busy.pop(run_id))
        if not self._waiting:
            return None
        job = self._waiting.pop(0)
        self._at_work[job.run_id] = job
        return job

    def ended(self, run_id: str) -> None:
        """The run is done, has stopped when asked to, or was stopped before it began."""
        self._at_work.pop(run_id)
        self._quiet_since = self._clock()

    def is_busy(self, run_id: str) -> None:
        """Another process is at work on the run."""
        self._busy[run_id] = self._at_work.pop(run_id)

    def failed(self, run_id: str, failure: Failure) -> bool:
        """Whether the run, which has failed, is tried again."""
        job = self._at_work.pop(run_id)
        self._quiet_since = self._clock()
        if failure.counts:
            # A store that cannot be written does not count for us.
            self._failed_here[run_id] = self._failed_here.get(run_id, 0) + 1
        if failure.given_up(self._retries) or self._failed_here.get(run_id, 0) > self._retries:
            return False
        self._waiting.append(job)
        return True

    def _out_of_patience(self) -> bool:
        return self._clock() - self._quiet_since >= self._patience


def _length(job: Job) -> float:
    return math.inf if job.expected_seconds is None else job.expected_seconds
