"""Progress of a training before and within epochs, reported every few seconds, and the remaining time of the run."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from autodo.config.run import RunConfig

T = TypeVar("T")

Phase = Literal["features", "inner", "outer", "finetune"]
EVERY_SECONDS = 2.0
"""Time between two reports. Each reads the loss, for which the host waits until a GPU has done its work."""
LONG_SECONDS = 30 * 60.0
"""For CPU runs that take longer a faster variant is named."""
FORWARD_SHARE = 1 / 3
"""Time of a forward pass as a share of a training step."""


class TrackSteps(Protocol):
    """`ProgressReporter.track` of one phase."""

    def __call__(self, items: Iterable[T], *, total: int) -> Iterator[T]:
        """The items, one for each of `total` steps."""


def untracked(items: Iterable[T], *, total: int) -> Iterator[T]:
    """The items, without reports."""
    return iter(items)


@dataclass(frozen=True)
class Progress:
    """A training within an epoch."""

    epoch: int
    """The present epoch, counted from 0."""
    epochs: int
    phase: Phase
    step: int
    """Steps of the phase that are done."""
    steps: int
    train_loss: float | None
    """Mean of the epoch so far over this process's points; None before the first step and in phases without it."""
    seconds_left: float | None
    """Seconds until the end of the run; None before the first step."""

    @property
    def epochs_done(self) -> float:
        """Epochs that are done, including the finished share of the training steps of the present one."""
        finished = {"features": 0.0, "outer": 1.0}
        return self.epoch + finished.get(self.phase, self.step / self.steps)


@dataclass(frozen=True)
class Durations:
    """Seconds of training steps, evaluation on val and test and outer pass, of an epoch each, and before the first."""

    inner: float
    evaluation: float
    outer: float
    finetune: float
    """Training steps of an epoch that trains the head alone on val."""
    features: float = 0.0
    """Before the first epoch: the features of a frozen encoder."""

    def total(self, config: RunConfig) -> float:
        """Seconds of the whole run."""
        return self.features + self.left(config)

    def left(self, config: RunConfig, epoch: int = 0) -> float:
        """Seconds of the run's epochs from this one on, counted from 0."""
        return sum(self._epoch(config, number) for number in range(epoch, config.training.epochs))

    def _epoch(self, config: RunConfig, epoch: int) -> float:
        training = self.finetune if epoch >= config.finetune_start else self.inner
        return training + self.evaluation + (self.outer if config.has_outer_pass(epoch) else 0.0)


class ProgressReporter:
    """Reports the progress of a run's steps to a listener; without one it does nothing.

    Args:
        listener: called at the first step of a phase and then at most every `EVERY_SECONDS`, between two steps.
        sizes: numbers of points of the inner problem, and of images of val and test together.
        expected: durations of the parts of the run, as far as they are known before the first epoch.
    """

    def __init__(
        self,
        config: RunConfig,
        listener: Callable[[Progress], object] | None,
        *,
        sizes: tuple[int, int],
        expected: Durations | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._listener, self._clock = config, listener, clock
        self._eval_ratio = sizes[1] / max(sizes[0], 1)
        self._seconds: dict[str, float] = {} if expected is None else vars(expected).copy()
        self._evaluations: list[float] = []
        self._reported_at = float("-inf")

    def track(
        self,
        items: Iterable[T],
        phase: Phase,
        epoch: int,
        *,
        total: int,
        done: int = 0,
        mean_loss: Callable[[float], float] | None = None,
    ) -> Iterator[T]:
        """The items, one for each remaining step of a phase; reports between two of them when it is time.

        Args:
            total: steps of the phase, of which `done` were done before.
            mean_loss: returns the mean loss, given the share of the steps that is done.
        """
        if self._listener is None:
            yield from items
            return
        started = self._clock()
        for step, item in enumerate(items, start=done):
            now = self._clock()
            if step == done or now - self._reported_at >= EVERY_SECONDS:
                # The time is read after the loss: only then has the device done all steps.
                loss = mean_loss(step / total) if mean_loss is not None and step > done else None
                elapsed = self._clock() - started
                rate = elapsed / (step - done) if step > done else None
                left = self._left(phase, epoch, rate, total, step, elapsed)
                self._listener(Progress(epoch, self._config.training.epochs, phase, step, total, loss, left))
                self._reported_at = self._clock()
            yield item

    def epoch_ended(self, row: dict[str, Any]) -> None:
        """Learns the durations of an epoch from its row of `records.SCHEMAS["epochs"]`."""
        inner = "finetune" if row["epoch"] >= self._config.finetune_start else "inner"
        self._evaluations.append(row["eval_seconds"])  # that differ, if the test images are not evaluated every time
        self._seconds |= {inner: row["inner_seconds"], "evaluation": statistics.fmean(self._evaluations)}
        if row["outer_phase"]:
            self._seconds["outer"] = row["outer_seconds"]

    def _left(
        self, phase: Phase, epoch: int, rate: float | None, total: int, step: int, elapsed: float
    ) -> float | None:
        """Seconds until the run ends: the rest of this phase and of its epoch, and the later epochs.

        Args:
            rate: seconds per step of this phase; None before the first one.
        """
        # An outer pass takes longer than its steps; an earlier pass took as long as this one.
        by_earlier = phase == "outer" and phase in self._seconds
        measured: dict[str, float] = {} if rate is None or by_earlier else {phase: rate * total}
        seconds = {**self._seconds, **measured}
        if not seconds.keys() - {"features"}:
            return None
        durations = self._completed(seconds)
        of_phase: float = getattr(durations, phase)
        rest = max(of_phase - elapsed, 0.0) if by_earlier else of_phase * (1 - step / total)
        if phase == "features":
            return rest + durations.left(self._config, epoch)
        if phase != "outer":
            rest += durations.evaluation + (durations.outer if self._config.has_outer_pass(epoch) else 0.0)
        return rest + durations.left(self._config, epoch + 1)

    def _completed(self, seconds: dict[str, float]) -> Durations:
        """Durations, with guesses for unknown ones: without learning, an image takes a third of its training step."""
        inner = seconds.get("inner", 0.0)
        learns = self._config.points.learn if self._config.points is not None else ()
        guesses = {
            "evaluation": FORWARD_SHARE * self._eval_ratio * inner,
            "outer": inner if "augment" in learns else FORWARD_SHARE * inner,
            "finetune": FORWARD_SHARE * self._eval_ratio * inner,
        }
        return Durations(**{"inner": inner, **guesses, **seconds})
