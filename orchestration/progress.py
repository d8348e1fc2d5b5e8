"""How far a grid is, on the terminal: a live display, or plain lines where there is no terminal."""

import collections
import dataclasses
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Literal, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autodo.config import RunConfig
from orchestration.run_queue import Work

EndState = Literal["done", "failed", "again", "busy", "stopped"]
"""How an attempt ended: `failed` for good, `again` if the run is tried again, `busy` if another process has the run,
`stopped` if it was asked to."""


def label(run: RunConfig) -> str:
    """A run for a person: `digits 10-0.1 autodo-aws seed 0`."""
    split = "" if run.split == "paper" else f" ({run.split})"
    return f"{run.dataset.label} {run.distortion} {run.method.name}{split} seed {run.seed}"


def duration(seconds: float) -> str:
    """`8 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@dataclasses.dataclass
class _Running:
    run: RunConfig
    epochs_done: int | None = None  # None until the first epoch ends: a resumed run starts anywhere
    val_error: float | None = None
    waits: bool = False  # its workers have no room


class GridProgress:
    """The state of one launch; events in, counts and the remaining time out. Knows nothing of Ray or the terminal.

    Args:
        works: what is to run.
        done_before: runs of the grid that were done before this launch.
        slots: how many runs can be at work at the same time.
        first_step_seconds: expected until the first run trains; of several workers, until each run does.
        end_seconds: expected from the end of the last run until the launch has ended.
    """

    def __init__(
        self,
        works: Iterable[Work],
        *,
        done_before: int = 0,
        slots: int = 1,
        first_step_seconds: float = 0.0,
        end_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._works = {work.run_id: work for work in works}
        self._waiting = dict.fromkeys(self._works)
        self.running: dict[str, _Running] = {}
        self.total = done_before + len(self._works)
        self.done = done_before
        self.failed: dict[str, str] = {}
        """Message of each run that has failed for good."""
        self.attempts_failed = 0
        self.busy: set[str] = set()
        """Runs that another launch is at work on."""
        self.stopped: set[str] = set()
        """Runs that have ended early because this launch was asked to stop."""
        self.stop_reason: Literal["interrupted", "out of time"] | None = None
        self.slots = slots
        self._begun = False
        self._first_step_seconds, self._end_seconds = first_step_seconds, end_seconds
        self._clock, self._made_at = clock, clock()
        self.first_step_at: float | None = None
        """When the first run began to train, by the clock."""
        self.last_end_at: float | None = None
        """When the last attempt so far ended."""
        # (recipe_id, method) -> [epochs, seconds], as measured in this launch.
        self._cost: dict[tuple[str, str], list[float]] = collections.defaultdict(lambda: [0, 0.0])

    def run(self, run_id: str) -> RunConfig:
        """One of the launch's runs."""
        return self._works[run_id].run

    def started(self, run_id: str) -> None:
        """A worker took the run."""
        self._begun = True
        self._waiting.pop(run_id, None)
        self.busy.discard(run_id)
        self.running[run_id] = _Running(self.run(run_id))

    def waits(self, run_id: str) -> None:
        """A run that has started finds no room for its workers; when it does, it has `started` again."""
        self.running[run_id].waits = True

    @property
    def at_work(self) -> int:
        """How many runs have started and have room."""
        return sum(not row.waits for row in list(self.running.values()))

    def epoch(self, run_id: str, epoch: int, val_error: float, seconds: float) -> None:
        """An epoch ended; `epoch` counts from 0."""
        if self.first_step_at is None:
            self.first_step_at = self._clock() - seconds
        row = self.running[run_id]
        row.epochs_done, row.val_error = epoch + 1, val_error
        cost = self._cost[_kind(row.run)]
        cost[0] += 1
        cost[1] += seconds

    def ended(self, run_id: str, state: EndState, message: str = "") -> None:
        """An attempt is over: see EndState. A run that fails and is tried again waits again."""
        self.last_end_at = self._clock()
        # A worker that dies before it has begun is only heard of now.
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
        """Epochs left times what an epoch of that dataset and method takes, shared among the slots; start and end too.

        As measured in this launch, else as it was in earlier ones, else as the others take on average; None if nothing
        was measured at all.
        """
        # Copies, here and below: the live display asks from its own thread.
        epochs, seconds = (sum(cost[i] for cost in list(self._cost.values())) for i in (0, 1))

        def cost(run_id: str, epochs_done: int) -> float | None:
            run, expected = self._works[run_id].run, self._works[run_id].expected_seconds
            n, spent = self._cost.get(_kind(run), (0, 0.0))
            if not n and expected is not None:
                n, spent = run.training.epochs, expected
            elif not n:
                n, spent = epochs, seconds
            if not n:
                return None
            # Several workers are started for every run, one only for the first.
            starts = self._works[run_id].resources.workers > 1 and not epochs_done
            return (run.training.epochs - epochs_done) * spent / n + (self._first_step_seconds if starts else 0.0)

        work = [cost(run_id, 0) for run_id in list(self._waiting)]
        work += [cost(run_id, row.epochs_done or 0) for run_id, row in list(self.running.items())]
        known = [one for one in work if one is not None]
        if len(known) < len(work):
            return None
        start = 0.0
        if self.first_step_at is None and any(one.resources.workers == 1 for one in self._works.values()):
            start = max(0.0, self._first_step_seconds - (self._clock() - self._made_at))
        # At the end fewer runs than slots are left, and the longest of them decides.
        return start + max(sum(known) / self.slots, max(known, default=0.0)) + self._end_seconds

    def headline(self) -> str:
        """`5 of 16 runs done, 2 running, 1 failed`."""
        at_work = self.at_work
        running = f"{at_work} running" if self._begun else "starting workers"
        parts = [f"{self.done} of {self.total} runs done", running]
        waiting = len(self.running) - at_work
        parts += [f"{waiting} waiting for room"] if waiting else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        again = self.attempts_failed - len(self.failed)
        parts += [f"{again} attempt{'s' if again > 1 else ''} repeated"] if again else []
        parts += [f"{len(self.busy)} at work in another launch"] if self.busy else []
        parts += ["stopping after this epoch"] if self.stop_reason else []
        return ", ".join(parts)

    @property
    def ended_runs(self) -> int:
        """Runs that are over: done, failed, stopped, or left to another launch."""
        return self.done + len(self.failed) + len(self.busy) + len(self.stopped)


def _kind(run: RunConfig) -> tuple[str, str]:
    return run.recipe_id, run.method.name


class Display(Protocol):
    """Shows a GridProgress; `refresh` is called after every change and costs nothing if nothing is due."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def refresh(self) -> None:
        """Shows the present state."""

    def say(self, text: str) -> None:
        """Prints a line that stays."""


def display(progress: GridProgress, console: Console) -> Display:
    """A live display on a terminal, plain lines elsewhere."""
    return LiveDisplay(progress, console) if console.is_terminal else PlainDisplay(progress, console)


class LiveDisplay:
    """Counts, remaining time and one line per running run, redrawn in place."""

    def __init__(self, progress: GridProgress, console: Console) -> None:
        self._progress, self._console = progress, console
        self._begun = time.monotonic()
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def refresh(self) -> None:
        """Nothing to do: the display redraws itself four times a second."""

    def say(self, text: str) -> None:
        """Prints a line above the display."""
        self._console.print(Text(text), soft_wrap=True)

    def _render(self) -> Group:
        progress = self._progress
        elapsed = f"{duration(time.monotonic() - self._begun)} so far"
        remaining = progress.remaining_seconds()
        left = "" if remaining is None else f", about {duration(remaining)} left"
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=progress.total, completed=progress.ended_runs, width=24)
        head.add_row(bar, progress.headline(), elapsed + left)
        rows = Table.grid(padding=(0, 2))
        running = list(progress.running.values())
        shown = running[: max(1, self._console.height - 4)]
        for row in shown:
            epochs = row.run.training.epochs
            rows.add_row(
                Text("  " + label(row.run), style="cyan", no_wrap=True, overflow="ellipsis"),
                ProgressBar(total=epochs, completed=row.epochs_done or 0, width=16),
                Text("waiting for room" if row.waits else "starting", style="dim")
                if row.epochs_done is None
                else f"epoch {row.epochs_done}/{epochs}",
                "" if row.val_error is None else f"val error {100 * row.val_error:.1f}%",
            )
        more = len(running) - len(shown)
        return Group(head, rows, *([Text(f"  and {more} more", style="dim")] if more else []))


class PlainDisplay:
    """A line when a run ends and at least every `interval_seconds`: for logs and pipes."""

    def __init__(
        self,
        progress: GridProgress,
        console: Console,
        *,
        interval_seconds: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress, self._console = progress, console
        self._interval, self._clock = interval_seconds, clock
        self._last_seconds = clock()
        self._last_ended = progress.ended_runs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Prints a line if a run has ended since the last one, or the interval is over."""
        due = self._clock() - self._last_seconds >= self._interval
        if not due and self._progress.ended_runs == self._last_ended:
            return
        self._last_seconds, self._last_ended = self._clock(), self._progress.ended_runs
        remaining = self._progress.remaining_seconds()
        left = f"; about {duration(remaining)} left" if remaining else ""
        self.say(f"{self._progress.headline()}{left}")

    def say(self, text: str) -> None:
        """Prints a line."""
        self._console.print(Text(text), soft_wrap=True)


class RunBar:
    """The progress bar of a single run."""

    def __init__(self, run: RunConfig, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("epochs {task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._console, self._total = console, run.training.epochs
        self._task = self._progress.add_task(label(run), total=self._total, note="")
        self._last_seconds = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def epoch(self, epoch: int, val_error: float) -> None:
        """An epoch ended; `epoch` counts from 0. Where there is no terminal, a line every 15 seconds."""
        note = f"val error {100 * val_error:.1f}%"
        self._progress.update(self._task, completed=epoch + 1, note=note)
        if not self._console.is_terminal and time.monotonic() - self._last_seconds >= 15:
            self._last_seconds = time.monotonic()
            self._console.print(f"epoch {epoch + 1}/{self._total}, {note}", highlight=False)
