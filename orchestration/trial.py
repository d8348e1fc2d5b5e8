"""What a Ray actor does: one run after another, one epoch per step."""

from collections.abc import Generator
from typing import Any

from ray import tune

from autodo.config import RunConfig
from autodo.errors import StoreError
from orchestration.execute import execute, record_failure
from orchestration.run_state import RunBusy
from orchestration.store import Store


class RunTrial(tune.Trainable):
    """Tune's view of a run. A run that fails is a trial that ends well and says so: the actor lives on.

    Its config holds `run` (a RunConfig as JSON), `store`, `data_dir`, `cpus`, `device` and `keep_model`. Each result
    holds `state` (`running`, `done`, `failed` or `busy`), with `epoch`, `val_error` and `seconds` while running and
    `message` after a failure.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Takes the run without starting it, because an exception here would end the actor."""
        self._given = config
        self._epochs: Generator[dict[str, Any], None, None] | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next run in the same process, which has torch imported and the dataset loaded."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Trains one epoch; the step after the last one ends the trial."""
        store = Store(self._given["store"])
        run = RunConfig.model_validate(self._given["run"])
        try:
            if self._epochs is None:
                self._epochs = self._start(run, store)
            metrics = next(self._epochs, None)
        except RunBusy:
            return {"state": "busy", "done": True}
        except Exception as error:  # any error ends this run and no other
            failure = record_failure(store, run.run_id, error)
            return {"state": "failed", "done": True, "message": failure.last_line if failure else str(error)}
        if metrics is None:
            return {"state": "done", "done": True}
        seconds = metrics["inner_seconds"] + metrics["outer_seconds"] + metrics["eval_seconds"]
        return {
            "state": "running",
            "epoch": metrics["epoch"],
            "val_error": metrics["val_error"],
            "seconds": seconds,
            "done": False,
        }

    def _start(self, run: RunConfig, store: Store) -> Generator[dict[str, Any], None, None]:
        import torch

        if not store.exists:
            raise StoreError(f"{store}: not there on this node; a cluster needs a store that all nodes share")
        torch.set_num_threads(self._given["cpus"])
        return execute(
            run,
            store,
            data_dir=self._given["data_dir"],
            device=self._given["device"],
            keep_model=self._given["keep_model"],
        )

    def cleanup(self) -> None:
        """Ends an unfinished run, so that its log says so."""
        epochs, self._epochs = self._epochs, None
        if epochs is not None:
            epochs.close()
