"""Live trackers as Tune callbacks: what Tune reports goes to the sinks that the user asked for."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from autodo.config.run import RunConfig

# First of all that touches Ray: it sets the environment that Ray reads at its import.
from orchestration.store.failures import cause_of_death
from orchestration.tracking.sinks import Delivery, Tell, Tracking


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
        self._runs: dict[str, RunConfig] = {}  # by Tune's id of the attempt, while it is at work
        self._told: set[str] = set()  # Tune's ids of the attempts whose end was told

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks into a state that nobody reads, and a thread cannot be pickled.
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if result["state"] == "running":
            run, metrics = self._run(trial), _numbers(result["metrics"])
            self._delivery.put(lambda sink: sink.epoch(run, metrics))
        elif result["state"] == "failed":
            self._ended(trial, "failed", result["failure"]["last_line"])
        elif result["state"] in ("done", "busy"):
            self._ended(trial, result["state"])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if trial.trial_id in self._runs:  # stopped by the schedule after an epoch
            self._ended(trial, "interrupted")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        said = Path(trial.error_file).read_text() if trial.error_file else ""
        self._ended(trial, "failed", f"the process of the run died: {cause_of_death(said)}")

    def _ended(self, trial: Trial, state: str, message: str | None = None) -> None:
        if trial.trial_id in self._told:
            return
        self._told.add(trial.trial_id)
        run = self._run(trial)
        del self._runs[trial.trial_id]
        if state != "busy":  # then whoever is at work on it reports it
            self._delivery.put(lambda sink: sink.ended(run, state, message))

    def _run(self, trial: Trial) -> RunConfig:
        if trial.trial_id not in self._runs:
            self._runs[trial.trial_id] = RunConfig.model_validate(trial.config["run"])
        return self._runs[trial.trial_id]


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What a curve can be drawn of."""
    return {
        name: value for name, value in metrics.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }
