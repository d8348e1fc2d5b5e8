"""The runs of a launch on the terminal."""

import time

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestration.display.grid_progress import GridProgress
from orchestration.display.live import INTERVAL_SECONDS, Clock, Interval, LiveDisplay
from orchestration.display.text import duration, label, time_left, within_epoch


class GridDisplay(LiveDisplay):
    """Counts, remaining time and one row per running run; elsewhere a line when a run ends and at intervals."""

    def __init__(self, progress: GridProgress, console: Console, *, clock: Clock = time.monotonic) -> None:
        super().__init__(console, clock)
        self._progress = progress
        self._begun = clock()
        self._interval = Interval(INTERVAL_SECONDS, clock)
        self._last_ended = progress.ended_runs

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.refresh()

    def refresh(self) -> None:
        """Print a line if a run has ended or the interval is over, and no terminal shows it; call it after changes."""
        progress = self._progress
        if self._is_live or not (self._interval.is_over() or progress.ended_runs != self._last_ended):
            return
        self._interval.restart()
        self._last_ended = progress.ended_runs
        remaining = progress.remaining_seconds()
        self.say(progress.headline() + (f"; {time_left(remaining)}" if remaining else ""))

    def render(self) -> Group:
        """Draw a bar with counts and times, and a row for each running run as far as there is room."""
        progress = self._progress
        remaining = progress.remaining_seconds()
        left = "" if remaining is None else f", {time_left(remaining)}"
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=progress.total, completed=progress.ended_runs, width=24)
        head.add_row(bar, progress.headline(), f"{duration(self._clock() - self._begun)} so far{left}")
        rows = Table.grid(padding=(0, 2))
        running = list(progress.running.values())
        shown = running[: max(1, self._console.height - 4)]
        for row in shown:
            epochs = row.run.training.epochs
            rows.add_row(
                Text("  " + label(row.run, row.variant), style="cyan", no_wrap=True, overflow="ellipsis"),
                ProgressBar(total=epochs, completed=epochs - row.epochs_left, width=16),
                Text("waiting for room" if row.waits else "starting", style="dim")
                if row.epochs_done is None
                else (f"epoch {row.epochs_done}/{epochs}" if row.within is None else within_epoch(row.within)),
                "" if row.val_error is None else f"val error {100 * row.val_error:.1f}%",
            )
        more = len(running) - len(shown)
        return Group(head, rows, *([Text(f"  and {more} more", style="dim")] if more else []))
