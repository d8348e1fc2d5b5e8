"""How far a grid is, on the terminal: a live display, or plain lines where there is no terminal."""

import collections
import dataclasses
import logging
import re
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Literal, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autodo.config.run import RunConfig
from autodo.training.progress import Phase, Progress
from orchestration.planning.run_queue import Job

LONG_SECONDS = 30 * 60.0
"""For longer CPU runs a smaller variant is offered."""

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


def roughly(seconds: float) -> str:
    """`40 s`, `4 min`, `3 h`, `2 days`: an estimate, in the largest unit of which there are at least 1.5."""
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit - unit / 2:
            return f"{max(2, round(seconds / unit))} {name}"
    return f"{max(1, round(seconds))} s"


@dataclasses.dataclass
class _Running:
    run: RunConfig
    epochs_done: int | None = None  # None until the first epoch ends: a resumed run starts anywhere
    val_error: float | None = None
    waits: bool = False  # its workers have no room
    within: Progress | None = None  # where it is in its present epoch, if it has said so

    @property
    def epochs_left(self) -> float:
        """Epochs that are left, the present one in part."""
        done = (self.epochs_done or 0) if self.within is None else self.within.epochs_done
        return self.run.training.epochs - done


class GridProgress:
    """The state of one launch; events in, counts and the remaining time out. Knows nothing of Ray or the terminal.

    Args:
        jobs: what is to run.
        done_before: runs of the grid that were done before this launch.
        slots: how many runs can be at work at the same time.
        first_step_seconds: expected until the first run trains; of several workers, until each run does.
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
        self.running: dict[str, _Running] = {}
        self.total = done_before + len(self._jobs)
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
        # (recipe_id, method) -> seconds an epoch, as a run says before its first one has ended.
        self._expected_epoch: dict[tuple[str, str], float] = {}

    def run(self, run_id: str) -> RunConfig:
        """One of the launch's runs."""
        return self._jobs[run_id].run

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
        row.epochs_done, row.val_error, row.within = epoch + 1, val_error, None
        cost = self._cost[_kind(row.run)]
        cost[0] += 1
        cost[1] += seconds

    def within(self, run_id: str, progress: Progress) -> None:
        """A run says where it is within an epoch."""
        row = self.running[run_id]
        row.epochs_done, row.within = progress.epoch, progress
        if progress.seconds_left is not None and row.epochs_left:
            self._expected_epoch[_kind(row.run)] = progress.seconds_left / row.epochs_left

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

        As measured in this launch, else as a run says within its first epoch, else as it was in earlier launches, else
        as the others take on average; None if nothing was measured at all.
        """
        # Copies, here and below: the live display asks from its own thread.
        epochs, seconds = (sum(cost[i] for cost in list(self._cost.values())) for i in (0, 1))

        def cost(run_id: str, epochs_left: float) -> float | None:
            run, expected = self._jobs[run_id].run, self._jobs[run_id].expected_seconds
            n, spent = self._cost.get(_kind(run), (0, 0.0))
            if not n and _kind(run) in self._expected_epoch:
                n, spent = 1, self._expected_epoch[_kind(run)]
            elif not n and expected is not None:
                n, spent = run.training.epochs, expected
            elif not n:
                n, spent = epochs, seconds
            if not n:
                return None
            # Several workers are started for every run, one only for the first.
            starts = self._jobs[run_id].resources.workers > 1 and epochs_left == run.training.epochs
            return epochs_left * spent / n + (self._first_step_seconds if starts else 0.0)

        seconds_left = [cost(run_id, self._jobs[run_id].run.training.epochs) for run_id in list(self._waiting)]
        seconds_left += [cost(run_id, row.epochs_left) for run_id, row in list(self.running.items())]
        known = [one for one in seconds_left if one is not None]
        if len(known) < len(seconds_left):
            return None
        start = 0.0
        trains = self.first_step_at is not None or any(row.within is not None for row in list(self.running.values()))
        if not trains and any(one.resources.workers == 1 for one in self._jobs.values()):
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
                ProgressBar(total=epochs, completed=epochs - row.epochs_left, width=16),
                Text("waiting for room" if row.waits else "starting", style="dim")
                if row.epochs_done is None
                else (f"epoch {row.epochs_done}/{epochs}" if row.within is None else within_epoch(row.within)),
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


class RunDisplay:
    """One run on the terminal: a live line, redrawn in place; elsewhere a line per epoch, and some within long ones."""

    def __init__(self, run: RunConfig, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._console, self._clock = run, console, clock
        self._doing = "starting"
        self._progress: Progress | None = None
        self._epochs_done = 0.0
        self._val_error: float | None = None
        self._ends_at: float | None = None
        self._pause = Pause(clock)
        self._live = (
            Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self._console.print(Text(text), soft_wrap=True)

    def doing(self, text: str) -> None:
        """Shows what goes on before the first epoch."""
        self._doing = text

    def within(self, progress: Progress) -> None:
        """Shows where the training is within an epoch."""
        self._progress, self._epochs_done = progress, progress.epochs_done
        if progress.seconds_left is not None:
            self._ends_at = self._clock() + progress.seconds_left
        if self._live is None and self._pause.over():
            self.say(self._line(within_epoch(progress)))

    def epoch(self, epoch: int, train_loss: float, val_error: float) -> None:
        """An epoch ended; `epoch` counts from 0."""
        self._progress, self._epochs_done, self._val_error = None, epoch + 1.0, val_error
        if self._live is None:
            self._pause.restart()
            self.say(self._line(f"{self._epoch_of(epoch)}, train loss {train_loss:.4f}"))

    def _epoch_of(self, epoch: int) -> str:
        return f"epoch {epoch + 1}/{self._run.training.epochs}"

    def _line(self, begin: str) -> str:
        error = "" if self._val_error is None else f", val error {100 * self._val_error:.1f}%"
        left = "" if self._ends_at is None else f", {time_left(max(self._ends_at - self._clock(), 0.0))}"
        return begin + error + (left if self._epochs_done < self._run.training.epochs else "")

    def _render(self) -> Group:
        epochs, progress = self._run.training.epochs, self._progress
        done = int(self._epochs_done)
        between = f"epoch {done}/{epochs}" if done else self._doing
        begin = between if progress is None else within_epoch(progress)
        bar = ProgressBar(total=epochs, completed=self._epochs_done, width=max(1, min(24, self._console.width // 4)))
        line = Table.grid(padding=(0, 1))
        line.add_row(bar, Text(self._line(begin), no_wrap=True, overflow="ellipsis"))
        return Group(Text(label(self._run), style="cyan", no_wrap=True, overflow="ellipsis"), line)


LINE_SECONDS = 30.0
"""Between two lines within an epoch, in a log and where there is no terminal."""


class Pause:
    """Keeps lines within an epoch apart by `LINE_SECONDS`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()

    def restart(self) -> None:
        """Starts the pause again."""
        self._begun = self._clock()

    def over(self) -> bool:
        """Whether the pause is over; if so, the next one starts."""
        if self._clock() - self._begun < LINE_SECONDS:
            return False
        self.restart()
        return True


class ProgressLog:
    """Keeps the log of a run: a line within an epoch now and then.

    Args:
        also: called with each report.
    """

    def __init__(self, log: logging.Logger, also: Callable[[Progress], object] | None = None) -> None:
        self._log, self._also = log, also
        self._pause = Pause()

    def within(self, progress: Progress) -> None:
        """Takes a report of the training."""
        if self._pause.over():
            self._log.info("%s", log_line(progress))
        if self._also is not None:
            self._also(progress)

    def epoch_ended(self) -> None:
        """An epoch ended, of which the log has a line anyway."""
        self._pause.restart()


def within_epoch(progress: Progress) -> str:
    """`epoch 3/100, step 4/11, train loss 1.2345`, as a display says it: the first epoch is 1/100."""
    return f"epoch {progress.epoch + 1}/{progress.epochs}, {_phase(progress)}step {progress.step}/{progress.steps}" + (
        "" if progress.train_loss is None else f", train loss {progress.train_loss:.4f}"
    )


def _phase(progress: Progress) -> str:
    phase = _PHASES[progress.phase]
    return f"{phase}, " if phase else ""


def time_left(seconds: float) -> str:
    """`about 2 h 05 min left`."""
    return f"about {duration(seconds)} left"


def log_line(progress: Progress) -> str:
    """`in epoch 2 of 100: step 4 of 11, train loss 1.2345, about 2 h 05 min left`, as the log of a run says it.

    As elsewhere in the log, the first epoch is 0. `parse_log_line` reads the line.
    """
    loss = "" if progress.train_loss is None else f", train loss {progress.train_loss:.4f}"
    left = "" if progress.seconds_left is None else f", {time_left(progress.seconds_left)}"
    steps = f"{_phase(progress)}step {progress.step} of {progress.steps}"
    return f"in epoch {progress.epoch} of {progress.epochs}: {steps}{loss}{left}"


_PHASES: dict[Phase, str] = {"inner": "", "outer": "outer pass", "finetune": "head alone"}
_LOG_LINE = re.compile(
    r"in epoch (?P<epoch>\d+) of (?P<epochs>\d+): (?:(?P<phase>outer pass|head alone), )?"
    r"step (?P<step>\d+) of (?P<steps>\d+)(?:, train loss (?P<loss>[^ ,]+))?"
    r"(?:, about (?:(?P<h>\d+) h ?)?(?:(?P<min>\d+) min ?)?(?:(?P<s>\d+) s ?)?left)?$"
)


def parse_log_line(line: str) -> Progress | None:
    """Reads the progress of a run from the last line of its log; None if that line says something else."""
    found = _LOG_LINE.search(line)
    if found is None:
        return None
    phases = {words: phase for phase, words in _PHASES.items()}
    parts = [found[unit] for unit in ("h", "min", "s")]
    seconds = sum(int(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))
    return Progress(
        epoch=int(found["epoch"]),
        epochs=int(found["epochs"]),
        phase=phases[found["phase"] or ""],
        step=int(found["step"]),
        steps=int(found["steps"]),
        train_loss=None if found["loss"] is None else float(found["loss"]),
        seconds_left=None if parts == [None] * 3 else float(seconds),
    )
