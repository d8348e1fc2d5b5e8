"""Expected times of runs, from those that a store holds."""

import collections
import dataclasses
import functools
import heapq
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

from autodo.config.run import RunConfig
from autodo.config.shipped import method_parts, method_text
from autodo.errors import ConfigError
from orchestration.planning.run_queue import Job
from orchestration.store.store import Store

SAMPLES = 2  # results read for one (dataset, distortion, method, variant); more would make planning slow
_RUN_ID = re.compile(
    r"(?P<dataset>.+)_ir(?P<ir>(exp)?[0-9.]+)_nr(?P<nr>[a-z]*[0-9.]+)_(?P<method>.+)_s[0-9]+_[0-9a-f]{8}"
)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A run that is done, and its training time."""

    run: RunConfig
    seconds: float


# Keys by which runs count as alike, the strictest first; the first with a measured run decides.
_ALIKE: tuple[Callable[[RunConfig], Hashable], ...] = (
    lambda run: (_settings(run), run.split, run.distortion),
    lambda run: (_settings(run), run.split),
    lambda run: (run.dataset, run.model, run.method.name),
    lambda run: (run.dataset, run.model),
)


def _settings(run: RunConfig) -> Hashable:
    """The settings that recipe_id and variant_id hash; comparing them is faster."""
    return run.dataset, run.model, run.augmentation, run.training, run.method, run.points, run.outer


class Estimates:
    """Expected seconds of runs: the mean seconds per epoch of the measured runs that are most alike.

    In this order: same recipe, method, split and distortion; same but for the distortion; same dataset, model and
    method; same dataset and model.
    """

    def __init__(self, measured: Iterable[Measured]) -> None:
        samples: list[dict[Hashable, list[float]]] = [collections.defaultdict(list) for _ in _ALIKE]
        for one in measured:
            for kinds, key in zip(samples, _ALIKE, strict=True):
                kinds[key(one.run)].append(one.seconds / one.run.training.epochs)
        self._per_epoch = [{key: sum(seconds) / len(seconds) for key, seconds in kinds.items()} for kinds in samples]
        self._known: dict[Hashable, float | None] = {}
        self._kept: list[RunConfig] = []  # ids are unique only among living objects

    def seconds(self, run: RunConfig) -> float | None:
        """Training seconds of a run; None if nothing alike was measured."""
        # The runs of a grid share their parts; hashing these for each of thousands of runs would take seconds.
        parts = (run.dataset, run.model, run.augmentation, run.training, run.method, run.points, run.outer)
        key = (*map(id, parts), id(run.distortion), run.split)
        if key not in self._known:
            self._known[key] = self._seconds(run)
            self._kept.append(run)
        return self._known[key]

    def _seconds(self, run: RunConfig) -> float | None:
        for kinds, alike in zip(self._per_epoch, _ALIKE, strict=True):
            if (per_epoch := kinds.get(alike(run))) is not None:
                return per_epoch * run.training.epochs
        return None


def rough_cost(run: RunConfig) -> float:
    """Epochs times the relative cost that the files of the run's methods state; for runs without a measured time."""
    return run.training.epochs * _cost(run.method.name)


@functools.cache
def _cost(method: str) -> float:
    try:
        return math.prod(float(method_text(part).cost) for part in method_parts(method))
    except (ConfigError, ValueError):
        return 1.0  # a method of the user's own, or one whose file states no cost


def measure(store: Store, runs: Iterable[RunConfig], variants: Mapping[str, str] = MappingProxyType({})) -> Estimates:
    """Estimates from a few results of each distortion, method and variant of the datasets that `runs` have.

    Args:
        variants: name of the variant of some runs, also of those that are done, by run id.
    """
    datasets = {run.dataset.label for run in runs}
    chosen: dict[Hashable, list[str]] = collections.defaultdict(list)
    for run_id in sorted(store.status.done()) if datasets else ():
        match = _RUN_ID.fullmatch(run_id)
        if match is not None and match["dataset"] in datasets:
            cell = match["dataset"], match["ir"], match["nr"], match["method"], variants.get(run_id, "")
            chosen[cell].append(run_id)
    ids = [run_id for group in chosen.values() for run_id in group[-SAMPLES:]]
    with ThreadPoolExecutor(16) as pool:
        return Estimates(one for one in pool.map(lambda run_id: _read(store, run_id), ids) if one is not None)


def wall_seconds(seconds: Iterable[float], slots: int) -> float:
    """Seconds until all runs have ended, if each one, in order, takes the first free slot."""
    free_at = [0.0] * slots
    for run_seconds in seconds:
        heapq.heapreplace(free_at, free_at[0] + run_seconds)
    return max(free_at)


@dataclasses.dataclass(frozen=True)
class CostEstimate:
    """Expected total time and resources of runs; runs of unknown length are only counted."""

    runs: int
    unknown: int
    seconds: float
    core_hours: float
    gpu_hours: float

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> "CostEstimate":
        """Sum over some runs."""
        known = [(job.expected_seconds, job.resources) for job in jobs if job.expected_seconds is not None]
        return cls(
            runs=len(jobs),
            unknown=len(jobs) - len(known),
            seconds=sum(seconds for seconds, _ in known),
            core_hours=sum(seconds * r.cpus * r.workers for seconds, r in known) / 3600,
            gpu_hours=sum(seconds * r.gpus * r.workers for seconds, r in known) / 3600,
        )


def _read(store: Store, run_id: str) -> Measured | None:
    import pyarrow as pa

    try:
        table = store.paths.table("results", run_id).read_parquet(["seconds", "config"])
        row = table.to_pylist()[0]
        return Measured(RunConfig.from_stored(row["config"]), float(row["seconds"]))
    except (OSError, pa.ArrowException, LookupError, TypeError, ValueError):
        return None  # a damaged file; the report names it
