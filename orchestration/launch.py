"""Runs on Ray Tune. The store is the only truth: Tune's own state is thrown away after each launch."""

import contextlib
import dataclasses
import os
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from rich.console import Console

from autodo.config.shipped import dataset_presets, dataset_recipe
from autodo.errors import StoreError
from autodo.io.storage import StrPath
from autodo.io.uri import absolute
from orchestration.display.grid_display import GridDisplay
from orchestration.display.grid_progress import GridProgress
from orchestration.display.text import label, parse_log_line, rough_duration
from orchestration.execution.options import ExecutionOptions, Launch
from orchestration.execution.trial import RunTrial, placement
from orchestration.grid.keep import Keep
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.estimate import LONG_SECONDS
from orchestration.planning.launch_times import Overhead
from orchestration.planning.required_policies import searches_left
from orchestration.planning.run_queue import RETRIES, Job, RunQueue

# First of all that touches Ray: it sets the environment that Ray reads at its import.
from orchestration.ray_cluster import cluster as clusters
from orchestration.ray_cluster.cluster import Cluster
from orchestration.store.failures import record, record_death
from orchestration.store.patience import busy_seconds
from orchestration.store.run_state import Failure
from orchestration.store.scratch import scratch_directory, sweep
from orchestration.store.store import Store

AUTOSCALING_DEMAND = 200
"""Runs that a cluster is asked for at a time, so that an autoscaler sees what is needed; Tune's own figure."""

IDLE_SECONDS = 60.0
"""After so long without a single run at work the user is told what the runs wait for."""
LOOK_SECONDS = 5.0
"""Between two looks at the logs of the runs at work."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How a launch goes about its runs; none of it changes a result.

    Args:
        max_concurrent: the most runs at a time; None for as many as the resources allow.
        retries: further attempts of a run that fails.
        seconds: after so long the launch ends, each run at the end of its epoch; None for no limit.
        data_dir: where the datasets' files are.
        keep: what is kept of every run in the store besides its tables.
    """

    max_concurrent: int | None = None
    retries: int = RETRIES
    seconds: float | None = None
    data_dir: StrPath | None = None
    keep: tuple[Keep, ...] = ()


def launch(
    jobs: Sequence[Job],
    store: Store,
    console: Console,
    *,
    cluster: Cluster,
    options: Options,
    done_before: int = 0,
    callbacks: Sequence[tune.Callback] = (),
    overhead: Overhead | None = None,
) -> GridProgress:
    """Executes every run, a failure of one leaving the others alone, and shows how far they are.

    Before the first of them the policies are searched that they need and the store lacks; the runs of a search that
    fails have failed.

    The first Ctrl-C or SIGTERM lets the runs at work end their epoch, which leaves a checkpoint.

    Args:
        done_before: runs of the grid that were done before, for the display.
        callbacks: further receivers of Tune's events.
        overhead: what a launch is expected to take besides its runs, for the display.
    Returns:
        how the runs ended.
    Raises:
        ConfigError: if no machine can hold a single run.
        KeyboardInterrupt: on a second Ctrl-C or SIGTERM, when everything has stopped; the next launch continues from
            the checkpoints.
    """
    several = any(job.resources.workers > 1 for job in jobs)
    # For callers without `session.starting_ray`; within it Ray runs, and only the scratch folder is new: for Tune.
    # Directly in /tmp: a socket's path in it must stay below about 100 characters, and TMPDIR can be long.
    sweep(Path("/tmp"))
    cluster = cluster.for_runs_of(job.resources for job in jobs)
    with scratch_directory(Path("/tmp")) as scratch, clusters.running_ray(cluster, scratch):
        local = cluster.address is None
        slots = min(clusters.slots(resources, local=local) for resources in {job.resources for job in jobs})
        slots = min(slots, options.max_concurrent or slots, len(jobs))
        _point_to_gpus(jobs, console)
        progress = GridProgress(
            jobs,
            done_before=done_before,
            slots=slots,
            first_step_seconds=overhead.first_step if overhead else 0.0,
            end_seconds=overhead.end if overhead else 0.0,
        )
        begun = time.monotonic()
        ready = _with_policies(jobs, store, console, cluster=cluster, options=options, progress=progress)
        if not ready or progress.stop_reason is not None:
            return progress
        queue = RunQueue(
            ready,
            retries=options.retries,
            # A trial of several workers holds no CPU, so that Ray would start any number of them.
            at_most=options.max_concurrent or (slots if several else None),
            seconds=None if options.seconds is None else options.seconds - (time.monotonic() - begun),
            patience_seconds=busy_seconds(store.root),
        )
        # Of those that wait for a place in a small cluster Tune starts any; so let it know of no more than it needs.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(slots + 1 if local else max(slots + 1, AUTOSCALING_DEMAND))
        events = _Events(queue, progress, store, GridDisplay(progress, console), _smaller_preset(jobs))
        tuner = tune.Tuner(
            tune.with_resources(RunTrial, placement),
            tune_config=tune.TuneConfig(
                search_alg=_Search(queue, store, options, Launch(uuid.uuid4().hex[:12], slots)),
                scheduler=_Schedule(queue),
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                callbacks=[events, _NoPrinting(), *callbacks],
            ),
        )
        with (
            clusters.deaths_are_told(),
            events.display,
            clusters.on_signal(signal.SIGINT, events.on_stop_signal),
            # Of a batch system, which gives some time; Ray's own handler would leave its processes and files behind.
            clusters.on_signal(signal.SIGTERM, events.on_stop_signal),
        ):
            tuner.fit()
    return progress


def _with_policies(
    jobs: Sequence[Job],
    store: Store,
    console: Console,
    *,
    cluster: Cluster,
    options: Options,
    progress: GridProgress,
) -> list[Job]:
    """The runs that need no policy, or whose policy is in the store when all searches have ended."""
    wanted = searches_left((job.run for job in jobs), store)
    if not wanted:
        return list(jobs)
    from orchestration.search.find_policies import find_policies

    asking = [job.resources for job in jobs if job.run.search_id in wanted]
    # One size for all searches, so that no process waits for the room of one of another size.
    resources = ResourcesConfig(
        cpus=max(one.cpus for one in asking),
        gpus=max(one.gpus for one in asking),
        memory=max((one.memory for one in asking if one.memory is not None), default=None),
    )
    ended = find_policies(
        wanted,
        store,
        console,
        resources=resources,
        slots=min(clusters.slots(resources, local=cluster.address is None), options.max_concurrent or sys.maxsize),
        retries=options.retries,
        seconds=options.seconds,
        data_dir=options.data_dir,
    )
    progress.stop_reason = ended.stop_reason
    ready = []
    for job in jobs:
        reason = ended.failed.get(job.run.search_id or "")
        if reason is None:
            ready.append(job)
            continue
        line = f"the search of its policy failed, see {store.paths.search(str(job.run.search_id))}: {reason.last_line}"
        with contextlib.suppress(StoreError):
            store.begin(job.run)
        record(store, job.run_id, reason._replace(last_line=line))
        progress.ended(job.run_id, "failed", line)
    return ready


class _Search(Searcher):
    """Tune's one axis: the runs, in the order of the queue."""

    def __init__(self, queue: RunQueue, store: Store, options: Options, launch: Launch) -> None:
        super().__init__()
        self._queue = queue
        self._store = store.uri
        self._options = ExecutionOptions(
            data_dir=absolute(options.data_dir) if options.data_dir else None, keep=options.keep, launch=launch
        )

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        if self._queue.finished:
            return Searcher.FINISHED
        job = self._queue.take()
        if job is None:
            return None
        options = self._options.with_resources(job.resources)
        return {
            "run_id": job.run_id,
            "run": job.run.model_dump(mode="json"),
            "options": options.model_dump(mode="json"),
            "store": self._store,
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: _Events hears of it and has the trial at hand."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: a launch is never restored from Tune's state."""


class _Schedule(FIFOScheduler):
    """First come, first served; and an orderly end, when the queue is to stop."""

    def __init__(self, queue: RunQueue) -> None:
        super().__init__()
        self._queue = queue

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        # A result means that the epoch's checkpoint is written. After the last epoch only the results are to be saved.
        last = result.get("epoch", -1) + 1 == trial.config["run"]["training"]["epochs"]
        stop: str = TrialScheduler.STOP if self._queue.stopping and not last else TrialScheduler.CONTINUE
        return stop

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        if self._queue.stopping:
            for trial in [one for one in tune_controller.get_live_trials() if one.status == Trial.PENDING]:
                tune_controller.stop_trial(trial)
        return None  # Tune takes the pending trials in their order


class _NoPrinting(TrialProgressCallback):
    """In the place of the one that Tune would add, and which prints a line for every trial that was stopped."""

    def on_trial_result(self, *_: Any, **__: Any) -> None: ...
    def on_trial_error(self, *_: Any, **__: Any) -> None: ...
    def on_trial_complete(self, *_: Any, **__: Any) -> None: ...


class _Events(tune.Callback):
    """Hands what Tune reports to the queue, the display and, deaths of processes, to the store."""

    def __init__(
        self, queue: RunQueue, progress: GridProgress, store: Store, shown: GridDisplay, smaller: str | None = None
    ) -> None:
        """Takes the preset to point to if the runs take long, or None."""
        self._queue, self._progress, self._store, self.display = queue, progress, store, shown
        # Ids of Tune's trials: those that have begun, and those whose end was told by a result.
        self._begun: set[str] = set()
        self._told: set[str] = set()
        self._idle_since: float | None = time.monotonic()  # None once told
        self._looked_at = time.monotonic()
        self._smaller = smaller  # None once said
        # By run, the last line of its log when its attempt began: of an earlier attempt, which may have been killed.
        self._earlier_lines: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks into a state that nobody reads, and a display cannot be pickled.
        return {}

    def on_stop_signal(self, *_: object) -> None:
        """Stops in good order; the second time, at once."""
        if self._progress.stop_reason == "interrupted":
            raise KeyboardInterrupt
        self._queue.stop()
        self._progress.stop_reason = "interrupted"
        self.display.say("stopping: each run ends its epoch and leaves a checkpoint; once more, and it stops now")

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._begun.add(trial.trial_id)
        self._idle_since = time.monotonic()
        run_id = trial.config["run_id"]
        self._earlier_lines[run_id] = self._last_log_line(run_id)
        self._progress.started(run_id)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        run_id = trial.config["run_id"]
        if result["state"] == "running":
            self._progress.epoch(run_id, result["epoch"], result["val_error"], result["seconds"])
            return
        if result["state"] == "waiting":
            self._progress.waits(run_id)
            return
        if result["state"] == "starting":
            self._progress.started(run_id)
            return
        self._told.add(trial.trial_id)
        if result["state"] == "failed":
            self._failed(run_id, Failure.model_validate(result["failure"]))
        elif result["state"] == "busy":
            self._queue.is_busy(run_id)
            self._progress.ended(run_id, "busy")
        else:
            self._queue.ended(run_id)
            self._progress.ended(run_id, "done")

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if trial.trial_id in self._told:
            return
        # Stopped by the schedule: after an epoch, or before it has begun.
        self._queue.ended(trial.config["run_id"])
        if trial.trial_id in self._begun:
            self._progress.ended(trial.config["run_id"], "stopped")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        # The trainable tells its own exceptions, so this is the death of its process or node.
        if trial.trial_id in self._told:
            return
        said = Path(trial.error_file).read_text() if trial.error_file else ""
        self._failed(trial.config["run_id"], record_death(self._store, trial.config["run_id"], said))

    def _failed(self, run_id: str, failure: Failure) -> None:
        again = self._queue.failed(run_id, failure)
        if again and self._queue.stopping:
            self._progress.ended(run_id, "stopped")
            then = "; the next launch tries it again"
        else:
            self._progress.ended(run_id, "again" if again else "failed", failure.last_line)
            then = "; it is tried again" if again else ""
        self.display.say(f"failed: {label(self._progress.run(run_id))}: {failure.last_line}{then}")

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if self._queue.out_of_time and self._progress.stop_reason is None:
            self._progress.stop_reason = "out of time"
            self.display.say("the time budget is over: each run ends its epoch and leaves a checkpoint")
        self._tell_if_nothing_fits(trials)
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._look_within_epochs()
            self._point_to_smaller_preset()
        self.display.refresh()

    def _look_within_epochs(self) -> None:
        """Shows where slow runs are in their epochs, by their logs."""
        for run_id in list(self._progress.running):
            line = self._last_log_line(run_id)
            within = parse_log_line(line)
            if within is not None and line != self._earlier_lines.get(run_id):
                self._progress.within(run_id, within)

    def _last_log_line(self, run_id: str) -> str:
        """Empty if there is none, and in an object store, where logs only come with epochs."""
        if self._store.root.local is not None:
            with contextlib.suppress(StoreError, OSError):  # of a store that is out of reach for a while
                return self._store.status.last_log_line(run_id)
        return ""

    def _point_to_smaller_preset(self) -> None:
        """Says once, if the runs take long on CPUs, which preset makes them smaller."""
        seconds = self._progress.remaining_seconds()
        if self._smaller and seconds is not None and seconds > LONG_SECONDS:
            self.display.say(
                f"about {rough_duration(seconds)} left on CPUs: `preset: {self._smaller}` in the grid makes the "
                "runs smaller, see docs/tutorial/own-images.md"
            )
            self._smaller = None

    def _tell_if_nothing_fits(self, trials: list[Trial]) -> None:
        """Says once that runs wait for a node that has room, which may never come."""
        if self._progress.at_work:
            self._idle_since = time.monotonic()
        elif self._idle_since is not None and time.monotonic() - self._idle_since > IDLE_SECONDS:
            # A trial of several workers runs while they wait.
            waiting = [trial for trial in trials if trial.status in (Trial.PENDING, Trial.RUNNING)]
            if waiting:
                self._idle_since = None
                options = ExecutionOptions.model_validate(waiting[0].config["options"])
                self.display.say(f"no node has had room for a run for {IDLE_SECONDS:.0f} s: {clusters.need(options)}")


def _smaller_preset(jobs: Sequence[Job]) -> str | None:
    """The first preset that a dataset's recipe has, for runs on CPUs that have the recipe's own network.

    Another network comes from a preset already, or was chosen and may be smaller than the preset's.
    """
    for job in (job for job in jobs if not job.resources.gpus):
        dataset = job.run.dataset.name
        if job.run.model.name == dataset_recipe(dataset)["model"]["name"]:
            for name in dataset_presets(dataset):
                return name
    return None


def _point_to_gpus(jobs: Sequence[Job], console: Console) -> None:
    gpus = clusters.gpus()
    if gpus and not any(job.resources.gpus for job in jobs):
        console.print(
            f"{gpus:g} GPU{'s' if gpus > 1 else ''} found, but these runs use none: "
            "--gpus-per-run 1, or a share such as 0.25, trains on them",
            highlight=False,
        )
