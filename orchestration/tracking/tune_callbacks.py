"""Tune callbacks that pass the results of trials to trackers."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from autodo.config.run import RunConfig
from orchestration.execution.tune_adapters import error_message
from orchestration.store.failures import cause_of_death
from orchestration.tracking.delivery import Delivery, Say
from orchestration.tracking.settings import Tracking


@contextlib.contextmanager
def callbacks(tracking: Tracking, *, grid: str, directory: Path, say: Say) -> Iterator[list[tune.Callback]]:
    """Callbacks for the Tuner; at the end of the block, by Ctrl-C too, waiting reports are delivered and runs closed.

    Args:
        grid: name of the grid, which groups the runs.
        directory: folder of TensorBoard's event files on this machine: `<directory>/<run_id>`.
    Raises:
        ConfigError: if a tracker's library is not installed.
    """
    tracking.check()
    deliveries = [Delivery(name, open_, say) for name, open_ in tracking.trackers(grid, directory).items()]
    try:
        yield [_TrackerCallback(delivery) for delivery in deliveries]
    finally:
        for delivery in deliveries:
            delivery.close()


class _TrackerCallback(tune.Callback):
    """Passes the results of trials to one tracker. A trial is an attempt at a run."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._runs: dict[str, RunConfig] = {}  # by Tune's id of the attempt
        self._reported_ends: set[str] = set()  # Tune's ids of attempts

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks into a state that is never read, and a thread cannot be pickled.
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if result["state"] == "running":
            run, metrics = self._run(trial), _numbers(result["metrics"])
            self._delivery.put(lambda tracker: tracker.epoch(run, metrics))
        elif result["state"] == "failed":
            self._ended(trial, "failed", result["failure"]["last_line"])
        elif result["state"] in ("done", "busy"):
            self._ended(trial, result["state"])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if trial.trial_id in self._runs:  # stopped by the schedule after an epoch
            self._ended(trial, "interrupted")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._ended(trial, "failed", f"the process of the run died: {cause_of_death(error_message(trial))}")

    def _ended(self, trial: Trial, state: str, message: str | None = None) -> None:
        if trial.trial_id in self._reported_ends:
            return
        self._reported_ends.add(trial.trial_id)
        run = self._run(trial)
        del self._runs[trial.trial_id]
        if state != "busy":  # else the process at work on it reports it
            self._delivery.put(lambda tracker: tracker.ended(run, state, message))

    def _run(self, trial: Trial) -> RunConfig:
        if trial.trial_id not in self._runs:
            self._runs[trial.trial_id] = RunConfig.model_validate(trial.config["run"])
        return self._runs[trial.trial_id]


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics that are numbers."""
    return {
        name: value for name, value in metrics.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }
