"""Live trackers as Tune callbacks: what Tune reports goes to the sinks that the user asked for."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from autodo.config import RunConfig
from orchestration.sinks import Delivery, Sink, Tell, Tracking


@contextlib.contextmanager
def callbacks(tracking: Tracking, *, grid: str, directory: Path, tell: Tell) -> Iterator[list[tune.Callback]]:
    """Callbacks for the Tuner; when the block ends, by Ctrl-C too, what waits is delivered and open runs are closed.

    Args:
        grid: name of the grid, which groups the runs.
        directory: of TensorBoard's event files, on this machine: `<directory>/<run_id>`.
        tell: prints a line; it is called from other threads.
    Raises:
        ConfigError: if what was asked for is not installed.
    """
    tracking.check()
    deliveries = [Delivery(name, opened, tell) for name, opened in tracking.sinks(grid, directory).items()]
    try:
        yield [_Feed(delivery) for delivery in deliveries]
    finally:
        for delivery in deliveries:
            delivery.close()


class _Feed(tune.Callback):
    """Hands the results of trials to one sink. A trial is an attempt at a run."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._runs: dict[str, RunConfig] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks into a state that nobody reads, and a thread cannot be pickled.
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        run = self._run(trial)
        if result["state"] == "running":
            metrics = _numbers(result["metrics"])
            self._delivery.put(lambda sink: sink.epoch(run, metrics))
        else:
            self._ended(trial, result["state"], result.get("message"))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._ended(trial, "failed", "the process of the run died; out of memory, killed, or its node was lost")

    def _ended(self, trial: Trial, state: str, message: str | None) -> None:
        run = self._run(trial)
        del self._runs[trial.trial_id]
        if state == "busy":
            return  # whoever is at work on it reports it

        def report(sink: Sink) -> None:
            sink.ended(run, state, message)

        self._delivery.put(report)

    def _run(self, trial: Trial) -> RunConfig:
        if trial.trial_id not in self._runs:
            self._runs[trial.trial_id] = RunConfig.model_validate(trial.config["run"])
        return self._runs[trial.trial_id]


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What a curve can be drawn of."""
    return {
        name: value for name, value in metrics.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }
