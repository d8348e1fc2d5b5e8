"""Write a synthetic store: runs that were drawn, not trained (`synthetic_run.py`). Try `autodo report OUT` on it.

    python -m orchestration.testing.synthetic_store OUT               # the paper's small-image grids: 384 runs
    python -m orchestration.testing.synthetic_store OUT --runs 10000  # more seeds, only results and epochs
    python -m orchestration.testing.synthetic_store OUT --embeddings  # with embeddings, for t-SNE (3 to 5 s a method)

The `git_sha` and `device` of its runs are "synthetic".
"""

import argparse
import functools
import hashlib
import itertools
import os
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from autodo.config.run import RunConfig
from autodo.results import records
from orchestration.grid.grid import GridConfig, expand, load_grid
from orchestration.store.store import Store
from orchestration.testing.synthetic_run import SyntheticRun

GRIDS = tuple(f"paper-{dataset}{rest}" for dataset in ("svhn", "cifar10", "cifar100") for rest in ("", "-published"))
ALL: tuple[records.Kind, ...] = ("points", "predictions", "epochs", "results")
LIGHT: tuple[records.Kind, ...] = ("epochs", "results")
_PAPER_RUNS = 384


def main() -> None:
    """Write the store that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=int, help="number of runs; points and predictions are then left out")
    parser.add_argument("--embeddings", action="store_true", help="of seed 0 of the most distorted cells")
    given = parser.parse_args()
    started = time.perf_counter()
    grids = paper_grids(_PAPER_RUNS if given.runs is None else given.runs)
    runs = runs_of(grids)[: given.runs]
    write_store(given.out, runs, ALL if given.runs is None else LIGHT, grids=grids)
    if given.embeddings:
        for run in most_distorted(runs):
            write_run(run, given.out, ("embeddings",))
    print(f"{len(runs):,} runs in {time.perf_counter() - started:.0f} s: {given.out}")


def paper_grids(runs: int) -> list[GridConfig]:
    """The shipped grids of tables 1 to 3 of the paper, with enough seeds for `runs` runs."""
    grids = [load_grid(name) for name in GRIDS]
    cells = sum(len(expand(grid)) // len(grid.seeds) for grid in grids)
    seeds = tuple(range(-(-runs // cells)))
    return [_with_policies(grid).model_copy(update={"seeds": seeds}) for grid in grids]


def _with_policies(grid: GridConfig) -> GridConfig:
    """The grid as a launch saves it: with the content hashes of policies in place of the path of their file."""
    if "policy.path" not in grid.set:
        return grid
    pairs = [f"{dataset} {method}" for dataset, method in itertools.product(grid.datasets, grid.methods)]
    policies = {pair: hashlib.sha256(f"synthetic {pair}".encode()).hexdigest()[:16] for pair in pairs}
    return grid.model_copy(update={"set": {}, "policies": policies})


def runs_of(grids: Iterable[GridConfig]) -> list[RunConfig]:
    """The runs of several grids, ordered by seed."""
    return sorted((run for grid in grids for run in expand(grid)), key=lambda run: run.seed)


def most_distorted(runs: Sequence[RunConfig]) -> list[RunConfig]:
    """The runs of seed 0 in each dataset's cell of highest imbalance and, within it, highest noise."""

    def distortion(run: RunConfig) -> tuple[float, float]:
        return run.distortion.imbalance_ratio, run.distortion.noise_ratio

    highest = {run.dataset.name: distortion(run) for run in sorted(runs, key=distortion)}
    return [run for run in runs if run.seed == 0 and distortion(run) == highest[run.dataset.name]]


def write_store(
    root: Path, runs: Sequence[RunConfig], kinds: Collection[records.Kind] = ALL, grids: Iterable[GridConfig] = ()
) -> Store:
    """Write a store with these tables of these runs, and with `grids` as if they had been launched on it.

    Raises:
        StoreError: if `root` holds something else.
    """
    store = Store(root).create()
    for grid in grids:
        store.save_grid(grid)
    write = functools.partial(write_run, root=root, kinds=tuple(kinds))
    if len(runs) < 100:  # starting other processes would take longer
        for run in runs:
            write(run)
    else:
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(write, runs, chunksize=16):
                pass
    return store


def write_run(run: RunConfig, root: Path, kinds: Sequence[records.Kind]) -> None:
    """Write these tables of a run, the results last."""
    made = SyntheticRun(run)
    tables = {
        "points": made.points,
        "embeddings": made.embeddings,
        "predictions": made.predictions,
        "epochs": made.epochs,
        "results": made.results,
    }
    for kind in sorted(kinds, key=list(tables).index):
        records.write(kind, tables[kind](), root / kind / f"{run.run_id}.parquet")


if __name__ == "__main__":
    main()
