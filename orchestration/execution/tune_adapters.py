"""Ray Tune's interfaces over a launch's queue and supervisor: search algorithm, scheduler, callbacks."""

from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestration.execution.options import ExecutionOptions
from orchestration.execution.supervisor import Supervisor
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.run_queue import RunQueue


class QueueSearch(Searcher):
    """Search algorithm that suggests the runs in the order of the queue."""

    def __init__(self, queue: RunQueue, store_uri: str, options: ExecutionOptions) -> None:
        super().__init__()
        self._queue, self._store_uri, self._options = queue, store_uri, options

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        if self._queue.finished:
            return Searcher.FINISHED
        job = self._queue.take()
        if job is None:
            return None
        return {
            "run_id": job.run_id,
            "run": job.run.model_dump(mode="json"),
            "options": self._options.with_resources(job.resources).model_dump(mode="json"),
            "store": self._store_uri,
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: `AttemptEvents` has the trial too."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Do nothing: a launch is never restored from Tune's state."""


class StoppingScheduler(FIFOScheduler):
    """First come, first served; when the queue stops, each run is stopped at the end of its epoch."""

    def __init__(self, queue: RunQueue) -> None:
        super().__init__()
        self._queue = queue

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        # A result means that the epoch's checkpoint is written. After the last epoch only the results are left to save.
        last = result.get("epoch", -1) + 1 == trial.config["run"]["training"]["epochs"]
        stop: str = TrialScheduler.STOP if self._queue.stopping and not last else TrialScheduler.CONTINUE
        return stop

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        if self._queue.stopping:
            for trial in [one for one in tune_controller.get_live_trials() if one.status == Trial.PENDING]:
                tune_controller.stop_trial(trial)
        return None  # Tune takes the pending trials in their order


class NoPrinting(TrialProgressCallback):
    """Replaces Tune's default callback, which prints a line for every trial that was stopped."""

    def on_trial_result(self, *_: Any, **__: Any) -> None: ...
    def on_trial_error(self, *_: Any, **__: Any) -> None: ...
    def on_trial_complete(self, *_: Any, **__: Any) -> None: ...


class AttemptEvents(tune.Callback):
    """Passes Tune's events to the supervisor, and each end of a trial once. A trial is an attempt at a run."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        # Trial ids.
        self._started: set[str] = set()
        self._ended: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks into a state that is never read, and a display cannot be pickled.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._started.add(trial.trial_id)
        self._supervisor.started(trial.config["run_id"])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if result["state"] in ("done", "failed", "busy"):
            self._ended.add(trial.trial_id)
        self._supervisor.reported(trial.config["run_id"], result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if trial.trial_id not in self._ended:
            self._supervisor.stopped(trial.config["run_id"], started=trial.trial_id in self._started)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        # RunTrial reports its exceptions as results, so this is the death of its process or node.
        if trial.trial_id not in self._ended:
            message = Path(trial.error_file).read_text() if trial.error_file else ""
            self._supervisor.died(trial.config["run_id"], message)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        def waiting() -> ResourcesConfig | None:
            # A trial of several workers runs while they wait.
            for trial in trials:
                if trial.status in (Trial.PENDING, Trial.RUNNING):
                    return ExecutionOptions.model_validate(trial.config["options"])
            return None

        self._supervisor.look(waiting)
