"""Delivery of reports to a tracker from a thread of its own. Imports no Ray."""

import logging
import queue
import threading
from collections.abc import Callable

from orchestration.tracking.trackers import Tracker

Say = Callable[[str], None]
"""Prints a line; it is called from other threads."""


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
