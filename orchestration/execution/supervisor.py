"""Decisions of a launch while its runs are at work: retries, stopping, failures, messages. Knows nothing of Tune."""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from autodo.errors import StoreError
from autodo.progress import LONG_SECONDS
from autodo.text import rough_duration
from orchestration.display.grid_display import GridDisplay
from orchestration.display.grid_progress import GridProgress
from orchestration.display.text import parse_log_line
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.run_queue import RunQueue
from orchestration.ray_cluster import cluster as clusters
from orchestration.store.failures import record_death
from orchestration.store.run_state import Failure
from orchestration.store.store import Store
from orchestration.tracking.delivery import Delivery

IDLE_SECONDS = 60.0
"""Time without a run at work after which the user reads what the runs wait for."""
LOOK_SECONDS = 5.0
"""Interval between two looks at the logs of the runs at work."""


class Supervisor:
    """Passes the events of attempts to the queue, the display and the trackers, and deaths of processes to the store.

    Args:
        trackers: deliveries to the user's trackers.
        smaller_preset: preset to suggest if the runs take long; None for none.
    """

    def __init__(
        self,
        queue: RunQueue,
        progress: GridProgress,
        store: Store,
        display: GridDisplay,
        trackers: Sequence[Delivery] = (),
        smaller_preset: str | None = None,
    ) -> None:
        self._queue, self._progress, self._store, self.display = queue, progress, store, display
        self._trackers = trackers
        self._tracked: set[str] = set()  # runs whose attempt has reported an epoch
        self._smaller_preset = smaller_preset  # None once suggested
        self._idle_since: float | None = time.monotonic()  # None once reported
        self._looked_at = time.monotonic()
        # Last log line of a run when its attempt began: it is of an earlier attempt, which may have been killed.
        self._earlier_lines: dict[str, str] = {}

    def on_stop_signal(self, *_: object) -> None:
        """Stop each run at the end of its epoch; at the second signal, at once."""
        if self._progress.stop_reason == "interrupted":
            raise KeyboardInterrupt
        self._queue.stop()
        self._progress.stop_reason = "interrupted"
        self.display.say("stopping: each run ends its epoch and leaves a checkpoint; once more, and it stops now")

    def started(self, run_id: str) -> None:
        """An attempt has started."""
        self._idle_since = time.monotonic()
        self._earlier_lines[run_id] = self._last_log_line(run_id)
        self._progress.started(run_id)

    def reported(self, run_id: str, result: dict[str, Any]) -> None:
        """An attempt has reported a result of `RunTrial`."""
        match result["state"]:
            case "running":
                self._progress.epoch(run_id, result["epoch"], result["val_error"], result["seconds"])
                self._tracked.add(run_id)
                for tracker in self._trackers:
                    tracker.epoch(self._progress.run(run_id), result["metrics"])
            case "waiting":
                self._progress.waits(run_id)
            case "starting":
                self._progress.started(run_id)
            case "failed":
                self._failed(run_id, Failure.model_validate(result["failure"]))
            case "busy":
                self._queue.is_busy(run_id)
                self._progress.ended(run_id, "busy")
                self._tracked.discard(run_id)  # the process that executes it reports it
            case "done":
                self._queue.ended(run_id)
                self._progress.ended(run_id, "done")
                self._track_end(run_id, "done")

    def stopped(self, run_id: str, *, started: bool) -> None:
        """An attempt was stopped by the schedule: after an epoch, or before it has started."""
        self._queue.ended(run_id)
        if started:
            self._progress.ended(run_id, "stopped")
        if run_id in self._tracked:
            self._track_end(run_id, "interrupted")

    def died(self, run_id: str, message: str) -> None:
        """The process or node of an attempt died, with Ray's message about it."""
        self._failed(run_id, record_death(self._store, run_id, message))

    def _failed(self, run_id: str, failure: Failure) -> None:
        self._track_end(run_id, "failed", failure.last_line)
        again = self._queue.failed(run_id, failure)
        if again and self._queue.stopping:
            self._progress.ended(run_id, "stopped")
            then = "; the next launch tries it again"
        else:
            self._progress.ended(run_id, "again" if again else "failed", failure.last_line)
            then = "; it is tried again" if again else ""
        self.display.say(f"failed: {self._progress.label(run_id)}: {failure.last_line}{then}")

    def _track_end(self, run_id: str, state: str, message: str | None = None) -> None:
        self._tracked.discard(run_id)
        for tracker in self._trackers:
            tracker.ended(self._progress.run(run_id), state, message)

    def look(self, waiting: Callable[[], ResourcesConfig | None]) -> None:
        """Check the time and the logs, and refresh the display; to be called often.

        Args:
            waiting: returns the resources of a run that waits for room, if there is one.
        """
        if self._queue.out_of_time and self._progress.stop_reason is None:
            self._progress.stop_reason = "out of time"
            self.display.say("the time budget is over: each run ends its epoch and leaves a checkpoint")
        self._report_if_nothing_fits(waiting)
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self.look_within_epochs()
            self._suggest_smaller_preset()
        self.display.refresh()

    def look_within_epochs(self) -> None:
        """Show the progress of slow runs within their epochs, from their logs."""
        for run_id in list(self._progress.running):
            line = self._last_log_line(run_id)
            within = parse_log_line(line)
            if within is not None and line != self._earlier_lines.get(run_id):
                self._progress.within(run_id, within)

    def _last_log_line(self, run_id: str) -> str:
        """Last log line; empty if there is none, and in an object store, where logs come with epochs only."""
        if self._store.root.local is not None:
            with contextlib.suppress(StoreError, OSError):  # the store may be out of reach for a while
                return self._store.status.last_log_line(run_id)
        return ""

    def _suggest_smaller_preset(self) -> None:
        seconds = self._progress.remaining_seconds()
        if self._smaller_preset and seconds is not None and seconds > LONG_SECONDS:
            self.display.say(
                f"about {rough_duration(seconds)} left on CPUs: `preset: {self._smaller_preset}` in the grid makes the "
                "runs smaller, see docs/tutorial/own-images.md"
            )
            self._smaller_preset = None

    def _report_if_nothing_fits(self, waiting: Callable[[], ResourcesConfig | None]) -> None:
        """Say once that runs wait for a node that has room, which may never come."""
        if self._progress.at_work:
            self._idle_since = time.monotonic()
        elif self._idle_since is not None and time.monotonic() - self._idle_since > IDLE_SECONDS:
            resources = waiting()
            if resources is not None:
                self._idle_since = None
                need = clusters.need(resources)
                self.display.say(f"no node has had room for a run for {IDLE_SECONDS:.0f} s: {need}")
