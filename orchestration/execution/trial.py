"""Ray actor that executes one run after another, one epoch per step."""

from collections.abc import Generator
from typing import Any

from ray import tune

from autodo.config.run import RunConfig
from autodo.errors import TrainingDiverged, UserError
from autodo.results import records
from orchestration.execution.execute import execute
from orchestration.execution.mailbox import Message
from orchestration.execution.options import ExecutionOptions
from orchestration.execution.process import free_gpu_memory, load_plugins, prepare_process
from orchestration.store.failures import record_failure
from orchestration.store.run_state import RunBusy
from orchestration.store.store import Store

TRIAL_MEMORY = 800 * 10**6
"""Measured memory of the trial of a run by several workers: Ray Train imports torch there too."""


def placement(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """Resources that Tune reserves for a trial, given the trial's config."""
    options = ExecutionOptions.model_validate(config["options"])
    return tune.PlacementGroupFactory([{"memory": TRIAL_MEMORY} if options.workers > 1 else options.per_worker])


class RunTrial(tune.Trainable):
    """Tune's view of an attempt at a run.

    Its config holds `run_id`, `run` (a RunConfig as JSON), `options` (ExecutionOptions as JSON) and `store`. Each
    result holds `state`: `waiting` for room or `starting` (runs of several workers only), `running` with `epoch`,
    `val_error`, `seconds` and `metrics` (the epoch's scalars), `done`, `busy`, or `failed` with `failure`. A failure is
    a result, and the actor lives on to take the next run, unless the error may have left something behind in the
    process.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Take a run without starting it, because an exception here would end the actor."""
        self._config = config
        self._epochs: Generator[Message, None, None] | None = None
        self._unusable = False

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next run in the same process, which has torch imported and the dataset loaded."""
        self.cleanup()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch; the step after the last one ends the attempt."""
        if self._unusable:
            raise RuntimeError("this process had an unforeseen error and takes no other run")
        store = Store(self._config["store"])
        try:
            if self._epochs is None:
                self._epochs = self._start(store)
            message = next(self._epochs, None)
        except RunBusy:
            return {"state": "busy", "done": True}
        except Exception as error:  # any error ends this run and no other
            failure = record_failure(store, self._config["run_id"], error)
            # Every later run of the process would meet a CUDA error again, say: let Tune end the process.
            self._unusable = not isinstance(error, UserError | TrainingDiverged)
            return {"state": "failed", "done": not self._unusable, "failure": failure.model_dump(mode="json")}
        if message is None:
            return {"state": "done", "done": True}
        return {**({"state": message} if isinstance(message, str) else running(message)), "done": False}

    def _start(self, store: Store) -> Generator[Message, None, None]:
        options = ExecutionOptions.model_validate(self._config["options"])
        load_plugins(options.plugins)
        run = RunConfig.model_validate(self._config["run"])
        if options.workers > 1:
            from orchestration.execution.on_workers import execute_on_workers

            return execute_on_workers(run, store, options)
        prepare_process(store, options)
        return execute(run, store, options, device="cuda" if options.gpus else "cpu")

    def cleanup(self) -> None:
        """End an unfinished run, so that its log says so."""
        epochs, self._epochs = self._epochs, None
        if epochs is not None:
            epochs.close()
        free_gpu_memory()


def running(metrics: dict[str, Any]) -> dict[str, Any]:
    """Result of a trial after an epoch.

    Args:
        metrics: columns of `records.SCHEMAS["epochs"]`.
    """
    return {
        "state": "running",
        "epoch": metrics["epoch"],
        "val_error": metrics["val_error"],
        "seconds": metrics["inner_seconds"] + metrics["outer_seconds"] + metrics["eval_seconds"],
        "metrics": {name: metrics[name] for name in records.EPOCH_SCALARS if metrics[name] is not None},
    }
