"""One population-based search by Ray Tune's PopulationBasedTraining.

Tune keeps the members in step and decides which of them continue from others. Its own state is thrown away: a search
that was cut continues from the members' files in the store (`member_files`).
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

from autodo.augment.policy_file import PolicyFile
from autodo.config.policy import PopulationSearch
from autodo.config.run import RunConfig
from autodo.io.storage import Location
from autodo.search.genome import as_schedule, explore, random_genome
from autodo.search.tasks import Report, provenance, search_config
from autodo.seeds import numpy_generator
from orchestration.grid.resources import ResourcesConfig

# First of all that touches Ray: it sets the environment that Ray reads at its import.
from orchestration.ray_cluster import cluster as clusters
from orchestration.search.member_files import MemberFiles
from orchestration.search.member_trainable import MemberTrainable
from orchestration.store.failures import Reason, reason_of_death
from orchestration.store.run_state import Cause


class MemberFailed(RuntimeError):
    """A member of the population failed; the message is Ray's text about it."""

    @property
    def reason(self) -> Reason:
        """The reason: an error of the member, or the death of its process."""
        text = str(self)
        if "RayTaskError" not in text:
            return reason_of_death(text)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return Reason(Cause.ERROR, "MemberFailed", f"a member of the population failed: {lines[-1]}", text)


def tune_population(
    config: RunConfig,
    folder: Location,
    *,
    data_dir: str | None,
    resources: ResourcesConfig,
    scratch: Location,
    report: Report,
    stop: Callable[[], bool] = lambda: False,
) -> PolicyFile | None:
    """Trains a population. Returns the schedule of its best member; None if it was stopped before the end.

    Args:
        folder: folder of the search in the store, for the members' files.
        resources: resources of each member at work.
        scratch: a folder that all nodes see, for Tune's checkpoints; it is deleted in the end.
        stop: asked after every epoch of a member.
    Raises:
        MemberFailed: if a member failed, or its process died.
    """
    started = time.monotonic()
    settings: PopulationSearch = search_config(config)
    begin, members = MemberFiles(folder, settings).last_generation()
    if begin:
        report(f"continues from epoch {begin} of {settings.epochs}")
    callback = PopulationCallback(report, stop, settings.epochs)
    param_space = {
        "run": config.model_dump(mode="json"),
        "data_dir": data_dir,
        "folder": folder.uri,
        "device": "cuda" if resources.gpus else "cpu",
        "threads": resources.cpus,
        "begin": begin,
        "genome": tune.grid_search([member["genome"] for member in members] or _first_genomes(config)),
    }
    try:
        with clusters.reporting_deaths():
            results = _tuner(config, param_space, resources, scratch, callback).fit()
    except Exception:
        if callback.failed is not None:
            raise MemberFailed(callback.failed) from None
        if callback.stopped:
            return None
        raise
    finally:
        _delete(scratch)
    last = [results[number].metrics or {} for number in range(len(results))]
    ended = [metrics for metrics in last if metrics.get("epoch") == settings.epochs]
    if len(ended) < settings.population:
        return None
    best = max(ended, key=lambda metrics: metrics["accuracy"])
    source = f"population-based augmentation on {config.dataset.label} {config.distortion}"
    found = provenance(
        config,
        accuracy=best["accuracy"],
        accuracies=sorted((metrics["accuracy"] for metrics in ended), reverse=True),
        seconds=time.monotonic() - started,
        device=best["device"],
    )
    return as_schedule(best["history"], settings.epochs, source).model_copy(update={"provenance": found})


def _first_genomes(config: RunConfig) -> list[list[int]]:
    numbers = range(search_config(config).population)
    return [random_genome(numpy_generator(config.seed, "search", "genome", number)) for number in numbers]


def _tuner(
    config: RunConfig,
    param_space: dict[str, Any],
    resources: ResourcesConfig,
    scratch: Location,
    callback: "PopulationCallback",
) -> tune.Tuner:
    settings: PopulationSearch = search_config(config)
    files, path = scratch.arrow
    return tune.Tuner(
        tune.with_resources(MemberTrainable, tune.PlacementGroupFactory([resources.per_worker])),
        param_space=param_space,
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
            callbacks=[callback],
        ),
    )


def _explorer(config: RunConfig) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The function by which Tune changes the genome of a member that continues from another."""
    resample, count = search_config(config).resample, 0

    def explored(trial_config: dict[str, Any]) -> dict[str, Any]:
        nonlocal count
        count += 1
        genome = trial_config["genome"]
        generator = numpy_generator(config.seed, "search", "explore", count, *genome)
        return {**trial_config, "genome": explore(genome, resample, generator)}

    return explored


def _delete(folder: Location) -> None:
    """Deletes Tune's files; a file that cannot be deleted harms nobody."""
    files, path = folder.arrow
    with contextlib.suppress(OSError):
        files.delete_dir(path)


class PopulationCallback(tune.Callback):
    """Reports each epoch that the whole population has ended, and ends the tuning after a failure or on request.

    Tune's own ways to stop end one member after another, and paused members wait for them forever; so this callback
    raises an exception.
    """

    def __init__(self, report: Report, stop: Callable[[], bool], epochs: int) -> None:
        self._report, self._stop, self._epochs = report, stop, epochs
        self.stopped = False
        self.failed: str | None = None
        """Ray's text about a member that failed."""
        self._epoch = 0
        self._last: dict[str, dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks into a state that nobody reads

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        self._last[trial.trial_id] = result
        epoch = min(last["epoch"] for last in self._last.values())
        if len(self._last) == len(trials) and epoch > self._epoch:
            self._epoch = epoch
            best = max(last["accuracy"] for last in self._last.values())
            self._report(f"epoch {epoch} of {self._epochs}, best accuracy {best:.3f}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self.failed = Path(trial.error_file).read_text() if trial.error_file else "no reason is known"

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        if self.failed is not None:
            raise RuntimeError("a member failed")
        if self._stop():
            self.stopped = True
            raise RuntimeError("stopped")
