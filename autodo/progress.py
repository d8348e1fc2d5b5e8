"""Progress of a training within an epoch, reported every few seconds, and the time that the rest of the run takes."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from autodo.config.run import RunConfig

T = TypeVar("T")

Phase = Literal["inner", "outer", "finetune"]
EVERY_SECONDS = 2.0
"""Between two reports. Each reads the loss, for which the host waits until a GPU has done its work."""
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
    """The epoch at work, counted from 0."""
    epochs: int
    phase: Phase
    step: int
    """Steps of the phase that are done."""
    steps: int
    train_loss: float | None
    """Mean of the epoch so far, over this process's points; None before the first step and in other phases."""
    seconds_left: float | None
    """Until the end of the run; None before the first step."""

    @property
    def epochs_done(self) -> float:
        """Epochs that are done, with the part of the present one that its training steps are."""
        return self.epoch + (1.0 if self.phase == "outer" else self.step / self.steps)


@dataclass(frozen=True)
class Durations:
    """Seconds that each part of an epoch takes: its training steps, evaluation on val and test, an outer pass."""

    inner: float
    evaluation: float
    outer: float
    finetune: float
    """Training steps of an epoch that trains the head alone on val."""

    def left(self, config: RunConfig, epoch: int = 0) -> float:
        """Seconds of the run's epochs from this one on, counted from 0."""
        return sum(self._epoch(config, number) for number in range(epoch, config.training.epochs))

    def _epoch(self, config: RunConfig, epoch: int) -> float:
        training = self.finetune if epoch >= config.finetune_start else self.inner
        return training + self.evaluation + (self.outer if config.has_outer_pass(epoch) else 0.0)


class ProgressReporter:
    """Reports where the steps of a run are; without a listener it does nothing and costs nothing.

    Args:
        listener: called at the first step of a phase and then at most every `EVERY_SECONDS`, between two steps.
        sizes: points of the inner problem, and images of val and test together.
        expected: what the parts of an epoch take as far as it is known before the first one.
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
        self._eval_ratio = sizes[1] / sizes[0]
        self._seconds: dict[str, float] = {} if expected is None else vars(expected).copy()
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
        """The items, one for each step that is left of a phase; between two of them it may report.

        Args:
            total: steps of the phase, of which `done` were done before.
            mean_loss: the mean loss, given which share of the phase's steps is done.
        """
        if self._listener is None:
            yield from items
            return
        started = self._clock()
        for step, item in enumerate(items, start=done):
            now = self._clock()
            if step == done or now - self._reported_at >= EVERY_SECONDS:
                # After the loss is read, because only then the device has done all steps.
                loss = mean_loss(step / total) if mean_loss is not None and step > done else None
                elapsed = self._clock() - started
                rate = elapsed / (step - done) if step > done else None
                left = self._left(phase, epoch, rate, total, step, elapsed)
                self._listener(Progress(epoch, self._config.training.epochs, phase, step, total, loss, left))
                self._reported_at = self._clock()
            yield item

    def epoch_ended(self, row: dict[str, Any]) -> None:
        """Takes over what the parts of an epoch took, from its row of `records.SCHEMAS["epochs"]`."""
        inner = "finetune" if row["epoch"] >= self._config.finetune_start else "inner"
        self._seconds |= {inner: row["inner_seconds"], "evaluation": row["eval_seconds"]}
        if row["outer_phase"]:
            self._seconds["outer"] = row["outer_seconds"]

    def _left(
        self, phase: Phase, epoch: int, rate: float | None, total: int, step: int, elapsed: float
    ) -> float | None:
        """Seconds until the run ends: of this phase, the rest of its epoch, and the later epochs.

        Args:
            rate: seconds a step of this phase; None before the first one.
        """
        # The steps of an outer pass are not all of it; an earlier pass was of the same length.
        by_earlier = phase == "outer" and phase in self._seconds
        measured: dict[str, float] = {} if rate is None or by_earlier else {phase: rate * total}
        seconds = {**self._seconds, **measured}
        if not seconds:
            return None
        durations = self._completed(seconds)
        of_phase: float = getattr(durations, phase)
        rest = max(of_phase - elapsed, 0.0) if by_earlier else of_phase * (1 - step / total)
        if phase != "outer":
            rest += durations.evaluation + (durations.outer if self._config.has_outer_pass(epoch) else 0.0)
        return rest + durations.left(self._config, epoch + 1)

    def _completed(self, seconds: dict[str, float]) -> Durations:
        """Durations with a guess for what is not known yet: an image takes a third of a step where nothing learns."""
        inner = seconds.get("inner", 0.0)
        learns = self._config.points.learn if self._config.points is not None else ()
        guesses = {
            "evaluation": FORWARD_SHARE * self._eval_ratio * inner,
            "outer": inner if "augment" in learns else FORWARD_SHARE * inner,
            "finetune": FORWARD_SHARE * self._eval_ratio * inner,
        }
        return Durations(**{"inner": inner, **guesses, **seconds})
