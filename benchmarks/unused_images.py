"""Errors of kept classifiers on the train images that `dataset.subsample` has left out.

    python -m benchmarks.unused_images STORE OUT.parquet

No run of the store has seen these images or their errors, while test images have been looked at for every choice of a
method's constants. STORE is one of `autodo launch ... --keep models`. OUT has the results of its runs and a column
`error_unused`. Runs that OUT has already are not evaluated again, also after Ctrl-C.
"""

import argparse
import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from autodo.config.dataset import DatasetConfig
from autodo.data import load
from autodo.data.images.image_set import ImageSet
from autodo.io.atomic import atomic_path
from autodo.results.classifier import Classifier
from benchmarks.recommended import result_files

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


def main() -> None:
    """Writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, metavar="STORE")
    parser.add_argument("out", type=Path, metavar="OUT.parquet")
    given = parser.parse_args()
    results = pd.concat([pd.read_parquet(file) for file in result_files([given.store])], ignore_index=True)
    results = results.drop(columns=[name for name in OF_A_MACHINE if name in results])
    known: dict[str, float] = {}
    if given.out.exists():
        before = pd.read_parquet(given.out, columns=["run_id", COLUMN])
        known = dict(zip(before["run_id"], before[COLUMN], strict=True))
    new = results[~results["run_id"].isin(known)]
    try:
        for run_id, config in zip(new["run_id"], new["config"], strict=True):
            images = unused_images(DatasetConfig(**json.loads(config)["dataset"]))
            known[run_id] = error(Classifier.load(given.store / "runs" / run_id / "model.pt"), images)
            print(f"{len(known)} of {len(results)}: {run_id} {100 * known[run_id]:.2f}", flush=True)
    except ValueError as problem:
        raise SystemExit(f"{problem}") from None
    finally:
        if known:
            done = results[results["run_id"].isin(known)]
            with atomic_path(given.out) as temporary:
                done.assign(**{COLUMN: done["run_id"].map(known)}).to_parquet(temporary, index=False)


if __name__ == "__main__":
    main()
