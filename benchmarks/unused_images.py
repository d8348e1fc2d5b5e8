"""Errors of kept classifiers on the train images that `dataset.subsample` has left out.

    python -m benchmarks.unused_images STORE OUT.parquet [--processes N]

No run has seen these images and nothing was chosen by them, while test images have been looked at for every choice of
a method's constants. STORE is one of `autodo launch ... --keep models`. OUT has the results of its runs and a column
`error_unused`. Runs that OUT has already are not evaluated again.
"""

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from autodo.config.dataset import DatasetConfig
from autodo.data import load
from autodo.data.images.image_set import ImageSet
from autodo.results.classifier import Classifier

BATCH = 1000
COLUMN = "error_unused"
OF_A_MACHINE = ("host", "launch_id", "host_cpus", "slots", "load_average")
"""Columns of results that say where a run was, and nothing of its result."""


@cache
def unused_images(dataset: DatasetConfig) -> ImageSet:
    """The train images that a run with this dataset does not use.

    Raises:
        ValueError: if it uses all of them.
    """
    if dataset.subsample is None:
        raise ValueError(f"runs of {dataset.name} without dataset.subsample leave no image unused")
    whole = load(dataset.model_copy(update={"subsample": None})).train
    used = load(dataset).train.index
    return whole.take(np.setdiff1d(np.arange(len(whole)), used))


def error(classifier: Classifier, images: ImageSet) -> float:
    """Share of the images that the classifier gets wrong."""
    wrong = 0
    for start in range(0, len(images), BATCH):
        rows = np.arange(start, min(start + BATCH, len(images)))
        found = classifier(torch.from_numpy(images.images.read(rows))).argmax(1).numpy()
        wrong += int((found != images.labels[rows]).sum())
    return wrong / len(images)


def evaluate(store: Path, run: tuple[str, str]) -> tuple[str, float]:
    """Run id and error of a run, given its id and its configuration as JSON."""
    torch.set_num_threads(1)
    run_id, config = run
    images = unused_images(DatasetConfig(**json.loads(config)["dataset"]))
    return run_id, error(Classifier.load(store / "runs" / run_id / "model.pt"), images)


def errors(store: Path, runs: list[tuple[str, str]], processes: int) -> Iterator[tuple[str, float]]:
    """Errors as they are ready, in the order of the runs."""
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(partial(evaluate, store), runs)


def main() -> None:
    """Writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, metavar="STORE")
    parser.add_argument("out", type=Path, metavar="OUT.parquet")
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    files = sorted(given.store.glob("results/*.parquet"))
    if not files:
        parser.error(f"{given.store} has no results")
    results = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    results = results.drop(columns=[name for name in OF_A_MACHINE if name in results])
    known: dict[str, float] = {}
    if given.out.exists():
        before = pd.read_parquet(given.out, columns=["run_id", COLUMN])
        known = dict(zip(before["run_id"], before[COLUMN], strict=True))
    new = results[~results["run_id"].isin(known)]
    try:
        for run_id, value in errors(given.store, list(zip(new["run_id"], new["config"], strict=True)), given.processes):
            known[run_id] = value
            print(f"{len(known)} of {len(results)}: {run_id} {100 * value:.2f}", flush=True)
    except ValueError as problem:
        raise SystemExit(f"{problem}") from None
    finally:
        done = results[results["run_id"].isin(known)]
        done.assign(**{COLUMN: done["run_id"].map(known)}).to_parquet(given.out, index=False)


if __name__ == "__main__":
    main()
