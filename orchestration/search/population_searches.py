"""Population-based augmentation on Ray Tune's PopulationBasedTraining.

Tune keeps the population in step and decides who continues from whom. Its own state is thrown away; what a search that
is cut continues from are the members' files in the store, written whenever members may be perturbed. As the synchronous
scheduler waits for ever for members that are out of step, all continue from the same epoch, the last that all reached.
"""

import collections
import contextlib
import functools
import math
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining
from rich.console import Console

from autodo.augment.policy_file import PolicyFile
from autodo.config.policy import PopulationSearch
from autodo.config.run import RunConfig
from autodo.io.storage import Location, StrPath, locate
from autodo.io.uri import absolute
from autodo.search.tasks import provenance, search_config
from autodo.seeds import numpy_generator
from orchestration.display.search_display import SearchDisplay
from orchestration.execution.process import load_on_node
from orchestration.grid.resources import ResourcesConfig

# First of all that touches Ray: it sets the environment that Ray reads at its import.
from orchestration.ray_cluster import cluster as clusters
from orchestration.search.task_searches import LOOK_SECONDS, SearchesEnded
from orchestration.store.failures import Reason, reason_of, reason_of_death
from orchestration.store.run_state import Cause, RunBusy
from orchestration.store.store import Store

if TYPE_CHECKING:
    from autodo.data import DataSplits

_FORMAT = 1


class MemberFailed(RuntimeError):
    """A member of the population failed; the message is all that Ray says of it."""

    @property
    def reason(self) -> Reason:
        """Why, and whether it was an error of the member or the death of its process."""
        said = str(self)
        if "RayTaskError" not in said:
            return reason_of_death(said)
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return Reason(Cause.ERROR, "MemberFailed", f"a member of the population failed: {lines[-1]}", said)


def find_policies(
    wanted: Mapping[str, RunConfig],
    store: Store,
    console: Console,
    *,
    resources: ResourcesConfig,
    scratch: Location,
    retries: int,
    seconds: float | None = None,
    data_dir: StrPath | None = None,
) -> SearchesEnded:
    """Searches what the store lacks on the Ray that runs in this process, one population after another.

    Ctrl-C or SIGTERM ends the search after an epoch of some member, and the next call continues from the last
    perturbation.

    Args:
        wanted: by search id, a run that needs the policy.
        resources: of each member at work.
        scratch: a folder that all nodes see, for Tune's checkpoints.
        retries: how often the death of a member's process is forgiven a search; the loss of a node always is.
        seconds: after so long the searches end as by Ctrl-C; None for no limit.
    """
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    failed: dict[str, Reason] = {}
    deaths: collections.Counter[str] = collections.Counter()
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True
        board.say("stopping the search; the same command continues it")

    def over() -> bool:
        return interrupted or time.monotonic() >= deadline

    waiting = dict(wanted)
    with (
        SearchDisplay(wanted, console) as board,
        clusters.on_signal(signal.SIGINT, interrupt),
        clusters.on_signal(signal.SIGTERM, interrupt),
    ):
        while waiting and not over():
            for search_id, config in list(waiting.items()):
                options = {"data_dir": data_dir, "resources": resources, "scratch": scratch / search_id}
                try:
                    if _find(search_id, config, store, board, over, options):
                        del waiting[search_id]
                        board.update(search_id, "found", "")
                except RunBusy:
                    board.update(search_id, "in another launch", "")
                    time.sleep(LOOK_SECONDS)
                except Exception as error:  # of this search, and no other
                    reason = error.reason if isinstance(error, MemberFailed) else reason_of(error)
                    deaths[search_id] += reason.cause is not Cause.NODE_LOST
                    if reason.kind == "ProcessDied" and deaths[search_id] <= retries:
                        board.say(f"search: {reason.last_line}; the population goes on from its last perturbation")
                        continue
                    del waiting[search_id]
                    failed[search_id] = reason
                    board.update(search_id, "failed", reason.last_line)
                if over():
                    break
    return SearchesEnded(failed, None if not waiting else "interrupted" if interrupted else "out of time")


def _find(
    search_id: str,
    config: RunConfig,
    store: Store,
    board: SearchDisplay,
    over: Callable[[], bool],
    options: dict[str, Any],
) -> bool:
    """Whether the policy is in the store now; False if the search was stopped. Raises RunBusy."""
    with store.search_attempt(search_id) as attempt:
        if search_id in store.policies.names():
            return True

        def tell(line: str) -> None:
            attempt.log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {search_id}: {line}\n")
            board.update(search_id, "at work", line)
            board.refresh()

        tell("at work")
        try:
            policy = search(config, store.paths.search(search_id), tell=tell, stop=over, **options)
        except MemberFailed as error:
            attempt.log.write(f"{error}\n")
            raise
        if policy is None:
            tell("stopped; the next attempt continues")
            return False
        attempt.settle()
        store.policies.write(search_id, policy)
        attempt.saved = True
        tell("found")
        return True


def _delete(folder: Location) -> None:
    """Deletes all that Tune has left; what cannot be deleted harms nobody."""
    files, path = folder.arrow
    with contextlib.suppress(OSError):
        files.delete_dir(path)


def search(
    config: RunConfig,
    folder: Location,
    *,
    data_dir: StrPath | None,
    resources: ResourcesConfig,
    scratch: Location,
    tell: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
) -> PolicyFile | None:
    """The schedule of the population's best member; None if it was stopped before the end.

    Args:
        folder: of the search in the store, for the members' files; from these a search that was cut continues.
        resources: of each member at work.
        scratch: a folder that all nodes see, for Tune's checkpoints; it is deleted in the end.
        stop: asked after every epoch of a member.
    Raises:
        MemberFailed: if a member failed, or its process died.
    """
    started = time.monotonic()
    settings: PopulationSearch = search_config(config)
    begin, members = _last_generation(folder, settings)
    if begin:
        tell(f"continues from epoch {begin} of {settings.epochs}")
    genomes = [_genome(config, number, members.get(number)) for number in range(settings.population)]
    events = PopulationCallback(tell, stop, settings.epochs)
    files, path = scratch.arrow
    tuner = tune.Tuner(
        tune.with_resources(MemberTrainable, tune.PlacementGroupFactory([resources.per_worker])),
        param_space={
            "run": config.model_dump(mode="json"),
            "data_dir": None if data_dir is None else absolute(data_dir),
            "folder": folder.uri,
            "device": "cuda" if resources.gpus else "cpu",
            "threads": resources.cpus,
            "begin": begin,
            "genome": tune.grid_search(genomes),
        },
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
            scheduler=PopulationBasedTraining(
                time_attr="epochs_here",
                perturbation_interval=settings.perturb_every,
                quantile_fraction=settings.quantile,
                custom_explore_fn=_explorer(config),
                log_config=False,
                synch=True,
            ),
        ),
        run_config=tune.RunConfig(
            name="population",
            storage_path=path,
            storage_filesystem=None if scratch.local else files,
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            callbacks=[events],
        ),
    )
    try:
        with clusters.reporting_deaths():
            results = tuner.fit()
    except Exception:
        if events.failed is not None:
            raise MemberFailed(events.failed) from None
        if events.stopped:
            return None
        raise
    finally:
        _delete(scratch)
    last = [results[number].metrics or {} for number in range(len(results))]
    ended = [metrics for metrics in last if metrics.get("epoch") == settings.epochs]
    if len(ended) < settings.population:
        return None
    best = max(ended, key=lambda metrics: metrics["accuracy"])
    from autodo.search.population_member import as_schedule

    source = f"population-based augmentation on {config.dataset.label} {config.distortion}"
    found = provenance(
        config,
        accuracy=best["accuracy"],
        accuracies=sorted((metrics["accuracy"] for metrics in ended), reverse=True),
        seconds=time.monotonic() - started,
        device=best["device"],
    )
    return as_schedule(best["history"], settings.epochs, source).model_copy(update={"provenance": found})


class MemberTrainable(tune.Trainable):
    """Tune's view of a member: an epoch a step.

    Its config holds `run` (a RunConfig as JSON), `data_dir`, `folder`, `device`, `threads`, `begin` (the epoch that the
    population continues from) and `genome`.
    """

    def setup(self, config: dict[str, Any]) -> None:
        import torch

        from autodo.search.population_member import PopulationMember

        torch.set_num_threads(config["threads"])
        run = RunConfig.model_validate(config["run"])
        self._folder = locate(config["folder"])
        self._settings: PopulationSearch = search_config(run)
        self._member = PopulationMember(run, _prepared(run, config["data_dir"]), config["device"])
        self._genome: list[int] = list(config["genome"])
        self._begin: int = config["begin"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        member, epochs = self._member, self._settings.epochs
        if member.epoch < self._begin:
            # Its first step. Later, Tune has brought it to where it was, and what it began from may be deleted.
            kept = _read(self._folder, self._number, self._begin)
            assert kept is not None
            member.load_state_dict(kept["member"])
        if member.epoch < epochs:
            member.train_epoch(self._genome)
            if member.epoch % self._settings.perturb_every == 0 or member.epoch == epochs:
                self._keep()
        return {
            "accuracy": member.accuracy,
            "epoch": member.epoch,
            "epochs_here": member.epoch - self._begin,
            "history": member.history,
            "device": member.device_name,
            "done": member.epoch >= epochs,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        from autodo.io.atomic import save_torch

        save_torch(self._member.state_dict(), Path(checkpoint_dir) / "member.pt")
        # Tune 2.60 may ask for a checkpoint twice and count it once; then the next one would lie in its place, and an
        # heir that has yet to read it would go on from a later epoch.
        assert self._storage is not None
        self._storage.current_checkpoint_index = self._member.epoch

    def load_checkpoint(self, checkpoint: Any) -> None:
        import torch

        state = torch.load(Path(checkpoint) / "member.pt", map_location="cpu", weights_only=True)
        self._member.load_state_dict(state)
        if self._member.history and self._member.history[-1][1] != self._genome:
            # It has just become another one's heir, which a search that is cut should know.
            self._keep()

    @property
    def _number(self) -> int:
        # Tune counts the trials of a grid search at the end of their ids; the config may be another member's.
        return int(self.trial_id.rpartition("_")[2])

    def _keep(self) -> None:
        from autodo.io.atomic import save_torch

        epoch = self._member.epoch
        state = {"format": _FORMAT, "genome": self._genome, "member": self._member.state_dict()}
        (self._folder / _name(self._number, epoch)).write_atomic(functools.partial(save_torch, state))
        # When a member gets here, all others have been where it was one perturbation before.
        (self._folder / _name(self._number, epoch - 2 * self._settings.perturb_every)).delete()


class PopulationCallback(tune.Callback):
    """A line whenever the whole population has ended another epoch; and the end, when there is to be one.

    Tune's own ways to stop end one member after another, and those that are paused wait for them for ever: what ends
    here ends by an exception.
    """

    def __init__(self, tell: Callable[[str], None], stop: Callable[[], bool], epochs: int) -> None:
        self._tell, self._stop, self._epochs = tell, stop, epochs
        self.stopped = False
        self.failed: str | None = None
        """What Ray says of a member that failed."""
        self._told = 0
        self._last: dict[str, dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks into a state that nobody reads

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        self._last[trial.trial_id] = result
        epoch = min(last["epoch"] for last in self._last.values())
        if len(self._last) == len(trials) and epoch > self._told:
            self._told = epoch
            best = max(last["accuracy"] for last in self._last.values())
            self._tell(f"epoch {epoch} of {self._epochs}, best accuracy {best:.3f}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self.failed = Path(trial.error_file).read_text() if trial.error_file else "no reason is known"

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        if self.failed is not None:
            raise RuntimeError("a member failed")
        if self._stop():
            self.stopped = True
            raise RuntimeError("stopped")


def _explorer(config: RunConfig) -> Callable[[dict[str, Any]], dict[str, Any]]:
    from autodo.search.population_member import explore

    resample, count = search_config(config).resample, 0

    def explored(trial_config: dict[str, Any]) -> dict[str, Any]:
        nonlocal count
        count += 1
        genome = trial_config["genome"]
        generator = numpy_generator(config.seed, "search", "explore", count, *genome)
        return {**trial_config, "genome": explore(genome, resample, generator)}

    return explored


def _genome(config: RunConfig, number: int, member: Mapping[str, Any] | None) -> Sequence[int]:
    from autodo.search.population_member import random_genome

    if member is not None:
        return [int(one) for one in member["genome"]]
    return random_genome(numpy_generator(config.seed, "search", "genome", number))


def _name(number: int, epoch: int) -> str:
    return f"member-{number}-epoch-{epoch}.pt"


def _last_generation(folder: Location, settings: PopulationSearch) -> tuple[int, dict[int, dict[str, Any]]]:
    """The last epoch of which all members are kept, and they; 0 and none if there is no such epoch."""
    names = folder.names()
    epochs = {*range(settings.perturb_every, settings.epochs, settings.perturb_every), settings.epochs}
    for epoch in sorted(epochs, reverse=True):
        if all(_name(number, epoch) in names for number in range(settings.population)):
            members = {number: _read(folder, number, epoch) for number in range(settings.population)}
            usable = {number: member for number, member in members.items() if member is not None}
            if len(usable) == settings.population:
                return epoch, usable
    return 0, {}


def _read(folder: Location, number: int, epoch: int) -> dict[str, Any] | None:
    """What is kept of a member; None if it cannot be used."""
    import torch

    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "member.pt")
        try:
            (folder / _name(number, epoch)).fetch(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
            if state["format"] == _FORMAT and {"genome", "member"} <= state.keys():
                return dict(state)
        except Exception:  # torch.load raises many kinds of error on damaged files
            return None
    return None


@functools.lru_cache(maxsize=1)
def _prepared(run: RunConfig, data_dir: str | None) -> "DataSplits":
    """The run's points, kept for the next member of this process."""
    from autodo import data

    return data.prepare(load_on_node(run.dataset, data_dir, download=False), run)
