"""One run on the terminal and in its log: a line per epoch, and some within long epochs."""

import logging
import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autodo.config.run import RunConfig
from autodo.progress import Progress
from orchestration.display.live import Clock, Interval, LiveDisplay
from orchestration.display.text import label, log_line, time_left, within_epoch

LINE_SECONDS = 30.0
"""Between two lines within an epoch, in the log and where there is no terminal."""


class RunDisplay(LiveDisplay):
    """One run: a line redrawn in place; elsewhere a line per epoch, and some within long ones."""

    def __init__(self, run: RunConfig, console: Console, *, clock: Clock = time.monotonic) -> None:
        super().__init__(console, clock)
        self._run = run
        self._doing = "starting"
        self._progress: Progress | None = None
        self._epochs_done = 0.0
        self._val_error: float | None = None
        self._ends_at: float | None = None
        self._interval = Interval(LINE_SECONDS, clock)

    def doing(self, text: str) -> None:
        """Set the words shown before the first epoch."""
        self._doing = text

    def within(self, progress: Progress) -> None:
        """Show the progress within an epoch."""
        self._progress, self._epochs_done = progress, progress.epochs_done
        if progress.seconds_left is not None:
            self._ends_at = self._clock() + progress.seconds_left
        if not self._is_live and self._interval.is_over():
            self.say(self._line(within_epoch(progress)))

    def epoch(self, epoch: int, train_loss: float, val_error: float) -> None:
        """Show an epoch that has ended; `epoch` counts from 0."""
        self._progress, self._epochs_done, self._val_error = None, epoch + 1.0, val_error
        if not self._is_live:
            self._interval.restart()
            self.say(self._line(f"epoch {epoch + 1}/{self._run.training.epochs}, train loss {train_loss:.4f}"))

    def _line(self, begin: str) -> str:
        error = "" if self._val_error is None else f", val error {100 * self._val_error:.1f}%"
        left = "" if self._ends_at is None else f", {time_left(max(self._ends_at - self._clock(), 0.0))}"
        return begin + error + (left if self._epochs_done < self._run.training.epochs else "")

    def render(self) -> Group:
        """Draw the run's name, and below it a bar with epoch, error and remaining time."""
        epochs, progress, done = self._run.training.epochs, self._progress, int(self._epochs_done)
        between = f"epoch {done}/{epochs}" if done else self._doing
        begin = between if progress is None else within_epoch(progress)
        bar = ProgressBar(total=epochs, completed=self._epochs_done, width=max(1, min(24, self._console.width // 4)))
        line = Table.grid(padding=(0, 1))
        line.add_row(bar, Text(self._line(begin), no_wrap=True, overflow="ellipsis"))
        return Group(Text(label(self._run), style="cyan", no_wrap=True, overflow="ellipsis"), line)


class ProgressLog:
    """Writes a line within an epoch to the log of a run now and then.

    Args:
        also: called with each report.
    """

    def __init__(self, log: logging.Logger, also: Callable[[Progress], object] | None = None) -> None:
        self._log, self._also = log, also
        self._interval = Interval(LINE_SECONDS)

    def within(self, progress: Progress) -> None:
        """Take a report of the training."""
        if self._interval.is_over():
            self._log.info("%s", log_line(progress))
        if self._also is not None:
            self._also(progress)

    def epoch_ended(self) -> None:
        """Wait a full interval again, since the log has a line about the epoch."""
        self._interval.restart()
