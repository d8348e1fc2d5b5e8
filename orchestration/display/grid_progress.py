"""State of a launch: counts of its runs, and the remaining time. Knows nothing of Ray or the terminal."""

import collections
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from autodo.config.run import RunConfig
from autodo.progress import Progress
from autodo.text import count_of
from orchestration.display.text import label
from orchestration.planning.run_queue import Job

_Kind = tuple[str, str, str]  # recipe, method and variant
EndState = Literal["done", "failed", "again", "busy", "stopped"]
"""End of an attempt: `failed` for good, `again` if the run is tried again, `busy` if another process has the run,
`stopped` if it was asked to."""


@dataclasses.dataclass
class Running:
    """A run that has started."""

    run: RunConfig
    variant: str = ""
    epochs_done: int | None = None  # None until the first epoch ends: a resumed run starts anywhere
    val_error: float | None = None
    waits: bool = False  # its workers have no room
    within: Progress | None = None  # within the present epoch, if the run has reported it

    @property
    def epochs_left(self) -> float:
        """Epochs that are left, the present one in part."""
        done = (self.epochs_done or 0) if self.within is None else self.within.epochs_done
        return self.run.training.epochs - done


class GridProgress:
    """The runs of a launch: events in, counts and the remaining time out.

    Args:
        jobs: the runs to do.
        done_before: runs of the grid that were done before this launch.
        slots: the most runs that are at work at the same time.
        first_step_seconds: expected until the first run trains; with several workers, until each run does.
        end_seconds: expected from the end of the last run until the launch has ended.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        *,
        done_before: int = 0,
        slots: int = 1,
        first_step_seconds: float = 0.0,
        end_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jobs = {job.run_id: job for job in jobs}
        self._waiting = dict.fromkeys(self._jobs)
        self.running: dict[str, Running] = {}
        self.total = done_before + len(self._jobs)
        self.done = done_before
        self.failed: dict[str, str] = {}
        """Message of each run that has failed for good."""
        self.attempts_failed = 0
        self.busy: set[str] = set()
        """Runs that another launch is running."""
        self.stopped: set[str] = set()
        """Runs that have ended early because this launch was asked to stop."""
        self.stop_reason: Literal["interrupted", "out of time"] | None = None
        self.first_step_at: float | None = None
        """Start of the first epoch, by the clock."""
        self.last_end_at: float | None = None
        """End of the last attempt so far."""
        self._clock, self._begun = clock, False
        self._remaining = _RemainingTime(self._jobs, slots, first_step_seconds, end_seconds, clock)

    def run(self, run_id: str) -> RunConfig:
        """One of the launch's runs."""
        return self._jobs[run_id].run

    def label(self, run_id: str) -> str:
        """Readable name of one of the launch's runs."""
        return label(self.run(run_id), self._jobs[run_id].variant)

    def started(self, run_id: str) -> None:
        """A worker took the run."""
        self._begun = True
        self._waiting.pop(run_id, None)
        self.busy.discard(run_id)
        self.running[run_id] = Running(self.run(run_id), self._jobs[run_id].variant)

    def waits(self, run_id: str) -> None:
        """A run that has started finds no room for its workers; when it does, it has `started` again."""
        self.running[run_id].waits = True

    @property
    def at_work(self) -> int:
        """Number of runs that have started and have room."""
        return sum(not row.waits for row in list(self.running.values()))

    def epoch(self, run_id: str, epoch: int, val_error: float, seconds: float) -> None:
        """An epoch ended; `epoch` counts from 0."""
        if self.first_step_at is None:
            self.first_step_at = self._clock() - seconds
        row = self.running[run_id]
        row.epochs_done, row.val_error, row.within = epoch + 1, val_error, None
        self._remaining.measured(_kind(row.run, row.variant), seconds)

    def within(self, run_id: str, progress: Progress) -> None:
        """A run reports its progress within an epoch."""
        row = self.running[run_id]
        row.epochs_done, row.within = progress.epoch, progress
        if progress.seconds_left is not None and row.epochs_left and progress.phase != "features":
            self._remaining.reported(_kind(row.run, row.variant), progress.seconds_left / row.epochs_left)

    def ended(self, run_id: str, state: EndState, message: str = "") -> None:
        """An attempt is over, see EndState; a run that is tried again waits again."""
        self.last_end_at = self._clock()
        # For a worker that dies before it has begun, this is the first event.
        self._waiting.pop(run_id, None)
        self.running.pop(run_id, None)
        if state == "done":
            self.done += 1
        elif state == "failed":
            self.failed[run_id] = message
        elif state == "again":
            self._waiting[run_id] = None
        elif state == "busy":
            self.busy.add(run_id)
        else:
            self.stopped.add(run_id)
        self.attempts_failed += state in ("failed", "again")

    def remaining_seconds(self) -> float | None:
        """Expected seconds until the launch has ended; None if nothing is known about some run."""
        # Copies, because the live display asks from its own thread.
        return self._remaining.seconds(list(self._waiting), dict(self.running), trains=self.first_step_at is not None)

    def headline(self) -> str:
        """`5 of 16 runs done, 2 running, 1 failed`."""
        at_work = self.at_work
        running = f"{at_work} running" if self._begun else "starting workers"
        parts = [f"{self.done} of {self.total} runs done", running]
        waiting = len(self.running) - at_work
        parts += [f"{waiting} waiting for room"] if waiting else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        again = self.attempts_failed - len(self.failed)
        parts += [f"{count_of(again, 'attempt')} repeated"] if again else []
        parts += [f"{len(self.busy)} at work in another launch"] if self.busy else []
        parts += ["stopping after this epoch"] if self.stop_reason else []
        return ", ".join(parts)

    @property
    def ended_runs(self) -> int:
        """Number of runs that are over: done, failed, stopped, or left to another launch."""
        return self.done + len(self.failed) + len(self.busy) + len(self.stopped)


class _RemainingTime:
    """Epochs left times the seconds of an epoch, shared among the slots, plus start and end of the launch.

    The seconds of an epoch, by recipe, method and variant: as measured in this launch, else as a run reports within its
    first epoch, else as in earlier launches, else the mean of all epochs of this launch.
    """

    def __init__(
        self,
        jobs: Mapping[str, Job],
        slots: int,
        first_step_seconds: float,
        end_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._jobs, self._slots = jobs, slots
        self._first_step_seconds, self._end_seconds = first_step_seconds, end_seconds
        self._clock, self._begun = clock, clock()
        # By kind: [epochs, seconds].
        self._measured: dict[_Kind, list[float]] = collections.defaultdict(lambda: [0, 0.0])
        self._reported: dict[_Kind, float] = {}

    def measured(self, kind: _Kind, seconds: float) -> None:
        """An epoch of a run of this kind took so long."""
        of_kind = self._measured[kind]
        of_kind[0] += 1
        of_kind[1] += seconds

    def reported(self, kind: _Kind, epoch_seconds: float) -> None:
        """A run of this kind expects its epochs to take so long."""
        self._reported[kind] = epoch_seconds

    def seconds(self, waiting: Iterable[str], running: Mapping[str, Running], *, trains: bool) -> float | None:
        """Seconds until the launch has ended; None if nothing is known about some run.

        Args:
            trains: whether an epoch has ended.
        """
        left = [self._run_seconds(self._jobs[run_id]) for run_id in waiting]
        left += [self._run_seconds(self._jobs[run_id], row.epochs_left) for run_id, row in running.items()]
        known = [seconds for seconds in left if seconds is not None]
        if len(known) < len(left):
            return None
        start = 0.0
        trains = trains or any(row.within is not None for row in running.values())
        if not trains and any(job.resources.workers == 1 for job in self._jobs.values()):
            start = max(0.0, self._first_step_seconds - (self._clock() - self._begun))
        # At the end fewer runs than slots are left, and the longest of them decides.
        return start + max(sum(known) / self._slots, max(known, default=0.0)) + self._end_seconds

    def _run_seconds(self, job: Job, epochs_left: float | None = None) -> float | None:
        epochs = job.run.training.epochs
        epochs_left = epochs if epochs_left is None else epochs_left
        kind = _kind(job.run, job.variant)
        n, spent = self._measured.get(kind, (0, 0.0))
        if not n and kind in self._reported:
            n, spent = 1, self._reported[kind]
        elif not n and job.expected_seconds is not None:
            n, spent = epochs, job.expected_seconds
        elif not n:
            n, spent = (sum(one[i] for one in list(self._measured.values())) for i in (0, 1))
        if not n:
            return None
        # Several workers are started for every run; a single one only for the first run.
        starts = job.resources.workers > 1 and epochs_left == epochs
        return epochs_left * spent / n + (self._first_step_seconds if starts else 0.0)


def _kind(run: RunConfig, variant: str) -> _Kind:
    return run.recipe_id, run.method.name, variant
