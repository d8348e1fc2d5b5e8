"""Launches without Ray: their runs are trained, or only acted, in this process one step after another.

`Tuner` stands in for `ray.tune.Tuner`. It calls the search, the schedule and the callbacks in the order of the
controller of Tune 2.60, and calls the trainable itself. So every decision of `orchestration.launch` and of
`RunTrial` is made by the code that makes it on Ray, and a test of retries, signals or time budgets takes milliseconds.
`ActorPool` does the same for the searches that come before the runs.
"""

import dataclasses
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ray.exceptions import RayActorError, RayError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from autodo.config.run import RunConfig
from autodo.results import records
from orchestration.execution.options import ExecutionOptions
from orchestration.grid.resources import ResourcesConfig

# First of all that touches Ray: it sets the environment that Ray reads at its import.
from orchestration.search import actor_pool
from orchestration.store.store import Store
from tests.runs import outcome

PENDING, RUNNING, TERMINATED, ERROR = TuneTrial.PENDING, TuneTrial.RUNNING, TuneTrial.TERMINATED, TuneTrial.ERROR


class ProcessDied(BaseException):
    """Raised in a step, it is the death of the process that takes it; the text is all that Ray says of it."""


@dataclasses.dataclass
class Trial:
    """What the callbacks of a launch read of Tune's trials."""

    trial_id: str
    config: dict[str, Any]
    status: str = PENDING
    error_file: str | None = None


class Tuner:
    """In the place of Tune's class of this name."""

    room = 2
    """How many trials can be at work at a time; 0 where no node has room for one."""
    processes = 0
    """How many were started, of those that would be processes on Ray."""

    def __init__(self, trainable: Callable[..., Any], *, tune_config: Any, run_config: Any) -> None:
        self._trainable = trainable
        self._search, self._schedule = tune_config.search_alg, tune_config.scheduler
        self._callbacks = run_config.callbacks
        self._folder = Path(tempfile.mkdtemp(dir=run_config.storage_path))
        self._trials: list[Trial] = []
        # The actor of each trial at work, and those that wait for the next one.
        self._actors: dict[str, Any] = {}
        self._idle: list[Any] = []
        self._numbers = itertools.count()

    def fit(self) -> None:
        """Tune's controller: one step of one trial at a time, the trials in turn."""
        finished = False
        for iteration in itertools.count(1):
            finished = finished or self._ask()
            self._schedule.choose_trial_to_run(self)
            for trial in self._with(PENDING)[: max(self.room - len(self._with(RUNNING)), 0)]:
                self._start(trial)
            if running := self._with(RUNNING):
                self._step(running[iteration % len(running)])
            else:
                time.sleep(0.001)  # as Tune waits for an event
            self._call("on_step_end", iteration=iteration)
            if finished and not self.get_live_trials():
                break
        for actor in self._idle:
            actor.stop()

    def get_live_trials(self) -> list[Trial]:
        """As Tune's controller has it, which the schedule is given."""
        return [trial for trial in self._trials if trial.status in (PENDING, RUNNING)]

    def stop_trial(self, trial: Trial) -> None:
        """As Tune's controller has it, which the schedule is given."""
        self._search.on_trial_complete(trial.trial_id)
        self._call("on_trial_complete", iteration=0, trial=trial)
        trial.status = TERMINATED
        if actor := self._actors.pop(trial.trial_id, None):
            self._idle.append(actor)

    def _ask(self) -> bool:
        """Takes new trials, as many as may wait for room; returns whether there will be no more."""
        while len(self._with(PENDING)) < int(os.environ["TUNE_MAX_PENDING_TRIALS_PG"]):
            trial_id = f"trial{next(self._numbers)}"
            config = self._search.suggest(trial_id)
            if config == Searcher.FINISHED:
                return True
            if config is None:
                return False
            self._trials.append(Trial(trial_id, config))
        return False

    def _start(self, trial: Trial) -> None:
        if self._idle:
            actor = self._idle.pop()
            assert actor.reset(trial.config)
        else:
            actor = self._trainable(config=trial.config)
            type(self).processes += 1
        self._actors[trial.trial_id] = actor
        self._call("on_trial_start", iteration=0, trial=trial)
        trial.status = RUNNING

    def _step(self, trial: Trial) -> None:
        actor = self._actors[trial.trial_id]
        try:
            result = actor.train()
        except (Exception, ProcessDied) as error:
            # A process of Tune ends with any error of its trainable.
            del self._actors[trial.trial_id]
            (file := self._folder / trial.trial_id).write_text(str(error))
            trial.error_file, trial.status = str(file), ERROR
            self._search.on_trial_complete(trial.trial_id, error=True)
            self._call("on_trial_error", iteration=0, trial=trial)
            if not isinstance(error, ProcessDied):
                actor.stop()
            return
        decision = TrialScheduler.STOP if result["done"] else self._schedule.on_trial_result(self, trial, result)
        self._call("on_trial_result", iteration=0, trial=trial, result=result)
        if decision == TrialScheduler.STOP:
            self.stop_trial(trial)

    def _with(self, status: str) -> list[Trial]:
        return [trial for trial in self._trials if trial.status == status]

    def _call(self, name: str, **arguments: Any) -> None:
        for callback in self._callbacks:
            getattr(callback, name)(trials=self._trials, **arguments)


class ActorPool:
    """In the place of `actor_pool.ActorPool`: an actor that would be a process on Ray is an object here.

    One task is performed at each look for outcomes.
    """

    room = True
    """Whether there is any for an actor."""
    dies: ClassVar[dict[str, list[str]]] = {}
    """Of a task by its name, what Ray says of the death of the process that does it, once each."""
    done: ClassVar[list[str]] = []
    """Names of the tasks that were done."""
    before_each: Callable[[], object] = staticmethod(lambda: None)
    """Called before a task is performed."""

    def __init__(self, store: str, data_dir: str | None, resources: ResourcesConfig, slots: int) -> None:
        self._arguments, self._slots = (store, data_dir, resources), slots
        self._actor: actor_pool.SearchActor | None = None
        self.busy: list[actor_pool.SearchTask] = []

    def has_begun(self) -> bool:
        return self.room and bool(self.busy)

    def need(self) -> str:
        return "a search needs more"

    def start(self, tasks: Sequence[actor_pool.SearchTask]) -> list[actor_pool.SearchTask]:
        free = self._slots - len(self.busy)
        self.busy += tasks[:free]
        return list(tasks[free:])

    def outcomes(self, seconds: float) -> list[tuple[actor_pool.SearchTask, actor_pool.TaskOutcome | RayError]]:
        if not self.busy or not self.room:
            time.sleep(0.001)
            return []
        self.before_each()
        search_task = self.busy.pop(0)
        if deaths := self.dies.get(search_task.task.name):
            return [(search_task, RayActorError(error_msg=deaths.pop(0)))]
        self._actor = self._actor or actor_pool.SearchActor(*self._arguments)
        outcome = self._actor.perform(search_task.config, search_task.task)
        if outcome[0] == "failed":
            self._actor = None
        else:
            self.done.append(search_task.task.name)
        return [(search_task, outcome)]

    def end(self) -> None:
        self.busy = []


# ----- runs that are acted


Step = int | BaseException | Callable[[], object]
"""Of an attempt: the epoch that ends, what is raised, or what is done before the next step."""


class Actor:
    """In the place of `execute`: attempts at runs go as their scripts say, and leave in the store what they would.

    Args:
        scripts: by run id, the steps of each attempt; an attempt that reaches the end of its steps is done.
    """

    def __init__(self, scripts: dict[str, list[list[Step]]] | None = None) -> None:
        self.scripts = scripts or {}
        self.began: list[str] = []
        """Run ids, an attempt each."""
        self.stopped: list[str] = []
        """Of those, the attempts that were closed before their end."""
        self.options: list[ExecutionOptions] = []

    def __call__(
        self, run: RunConfig, store: Store, options: ExecutionOptions, *, device: str
    ) -> Iterator[dict[str, Any]]:
        self.options.append(options)
        attempt = self.began.count(run.run_id)
        self.began.append(run.run_id)
        attempts = self.scripts.get(run.run_id, [])
        steps = attempts[attempt] if attempt < len(attempts) else range(run.training.epochs)
        store.begin(run)
        try:
            for step in steps:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, int):
                    yield epoch_row(step)
                else:
                    step()
        except GeneratorExit:
            self.stopped.append(run.run_id)
            raise
        store.save(outcome(run, error_best_val=0.1, error_last=0.1, seconds=1.0, versions=[]), run.run_id)


def epoch_row(epoch: int) -> dict[str, Any]:
    """What `execute` yields after an epoch, of one that took a second."""
    row: dict[str, Any] = dict.fromkeys(records.EPOCH_SCALARS, 0.5)
    return row | {"epoch": epoch, "val_error": 0.25, "inner_seconds": 1.0, "outer_seconds": 0.0, "eval_seconds": 0.0}
