"""Delivery of reports to a tracker from a thread of its own. Imports no Ray."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autodo.config.run import RunConfig
from orchestration.tracking.settings import Tracking
from orchestration.tracking.trackers import Tracker, Variants

Say = Callable[[str], None]
"""Prints a line; it is called from other threads."""


@contextlib.contextmanager
def delivering(
    tracking: Tracking, *, grid: str, directory: Path, say: Say, variants: Variants = MappingProxyType({})
) -> "Iterator[list[Delivery]]":
    """A Delivery to each tracker; at the end, by Ctrl-C too, waiting reports are delivered and open runs closed.

    Args:
        grid: name of the grid, which groups the runs.
        directory: folder of TensorBoard's event files on this machine: `<directory>/<run_id>`.
        variants: names that become labels of their runs.
    Raises:
        ConfigError: if a tracker's library is not installed.
    """
    tracking.check()
    deliveries = [Delivery(name, open_, say) for name, open_ in tracking.trackers(grid, directory, variants).items()]
    try:
        yield deliveries
    finally:
        for delivery in deliveries:
            delivery.close()


class Delivery:
    """Feeds one tracker from a thread, so that a slow or absent server costs the grid nothing.

    A report that fails is retried; one that fails each time is dropped. The user reads about the first failure, and at
    the end how many reports were dropped.
    """

    RETRY_AFTER_SECONDS = (1.0, 5.0, 25.0)
    MOST_WAITING = 50_000
    """Reports that may wait, of about 1 KB each."""

    def __init__(self, name: str, open_tracker: Callable[[], Tracker], say: Say) -> None:
        self._name, self._open_tracker, self._say = name, open_tracker, say
        self._waiting: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._lost = 0
        self._reported_failure = False
        self._thread = threading.Thread(target=self._deliver, name=f"autodo-{name}", daemon=True)
        self._thread.start()

    def epoch(self, run: RunConfig, metrics: Mapping[str, Any]) -> None:
        """Report an epoch, with those of the metrics that are numbers."""
        numbers = {
            name: value
            for name, value in metrics.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        self.put(lambda tracker: tracker.epoch(run, numbers))

    def ended(self, run: RunConfig, state: str, message: str | None = None) -> None:
        """Report the end of an attempt."""
        self.put(lambda tracker: tracker.ended(run, state, message))

    def put(self, report: Callable[[Tracker], None]) -> None:
        """Take a report and return at once."""
        if self._waiting.qsize() < self.MOST_WAITING:
            self._waiting.put(report)
        else:
            self._lost += 1

    def close(self, patience_seconds: float = 20.0) -> None:
        """Deliver the waiting reports, until patience is over, and end open runs as interrupted."""
        self._closing.set()
        self._waiting.put(lambda tracker: tracker.close())
        self._waiting.put(None)
        self._thread.join(patience_seconds)
        left = self._lost + max(self._waiting.qsize() - 2, 0) + self._thread.is_alive()
        self._reported_failure = True  # an abandoned thread is not to print any more
        if left:
            self._say(f"{self._name}: {left} reports were not delivered; the store has every value")

    def _deliver(self) -> None:
        tracker = None
        while (report := self._waiting.get()) is not None:
            for pause in (*self.RETRY_AFTER_SECONDS, None):
                try:
                    tracker = tracker or self._open_tracker()
                    report(tracker)
                    break
                except Exception as error:  # no error of a tracker stops the grid
                    self._failed(error)
                    if pause is None or self._closing.is_set():
                        self._lost += 1
                        break
                    self._closing.wait(pause)

    def _failed(self, error: Exception) -> None:
        logging.getLogger("autodo").debug("%s", self._name, exc_info=error)
        if not self._reported_failure:
            self._reported_failure = True
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._say(f"{self._name} does not take reports, the runs go on: {reason[:300]}")
