"""What cheaper outer phases do to the error: fewer passes, and other settings of a pass.

    python -m benchmarks.outer_schedule run RESULTS.parquet      # what the file lacks of some hundred trainings
    python -m benchmarks.outer_schedule show RESULTS.parquet [--figure FILE.png]

12,000 images of Fashion-MNIST, small-cnn, 20 epochs, one thread. Every variant is a method of the exact solver with one
thing changed (`outer_variants.py`). The error is that of all test images at the epoch of lowest val error. Costs are
this process's own time, without evaluation, over that of a plain training of the same data and seed.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from autodo.atomic import replacing
from autodo.config import DistortionConfig, RunConfig
from autodo.data import Prepared, load, prepare
from autodo.recipes import build_run
from autodo.task_model import best_model
from autodo.train import Training
from benchmarks.outer_variants import PLAIN, SCHEDULES, SETTINGS, VARIANTS

IMAGES, EPOCHS, SEEDS = 12_000, 20, 3
DISTORTIONS = ("100-0.1", "10-0.1")
FEW = 256
"""Test images that are looked at after every epoch; at the end all of them are."""


class Cell(NamedTuple):
    """One training of the study."""

    method: str
    variant: str
    distortion: str
    seed: int


def cells() -> Iterator[Cell]:
    """In the order of what is needed first."""
    both = ("autodo-exact-ws", "autodo-exact-aws")
    plan = [
        ("baseline", {PLAIN: VARIANTS[PLAIN]}),
        *((method, part) for part in (SCHEDULES, SETTINGS) for method in both),
    ]
    for method, variants in plan:
        for seed, variant, distortion in product(range(SEEDS), variants, DISTORTIONS):
            yield Cell(method, variant, distortion, seed)


def config_of(cell: Cell) -> RunConfig:
    """Without what only `alter` does."""
    variant = VARIANTS[cell.variant]
    overrides = {"dataset.subsample": IMAGES, "training.epochs": EPOCHS, **variant.settings}
    distortion = DistortionConfig.parse(cell.distortion)
    return build_run(
        "fashion-mnist", cell.method, distortion=distortion, seed=cell.seed, split=variant.split, overrides=overrides
    )


def run(path: Path, only: str | None) -> None:
    """Runs what the file lacks, and writes the file after each training."""
    rows = [] if not path.exists() else pd.read_parquet(path).to_dict("records")
    done = {Cell(row["method"], row["variant"], row["distortion"], row["seed"]) for row in rows}
    wanted = [cell for cell in cells() if cell not in done and (only is None or cell.method == only)]
    dataset = load(config_of(next(cells())).dataset)
    for number, cell in enumerate(wanted, start=1):
        row = measure(cell, prepare(dataset, config_of(cell)))
        rows.append(row)
        with replacing(path) as temporary:
            pd.DataFrame(rows).to_parquet(temporary)
        print(f"{number}/{len(wanted)} {' | '.join(map(str, cell))}: {row['error']:.2f}%", flush=True)


def measure(cell: Cell, data: Prepared) -> dict[str, Any]:
    """Trains, and gives a row of the results."""
    config = config_of(cell)
    few = data.test.take(np.arange(FEW))
    training = Training(config, Prepared(data.train, data.val, few, data.class_names))
    # Own time: other programs are at work as well.
    training._clock = time.process_time
    alter = VARIANTS[cell.variant].alter
    if alter is not None:
        alter(training)
    epochs, steps = [], [0]
    for epoch in training:
        epochs.append(epoch)
        steps.append(training.points.table.steps)
    assert training.best is not None
    model = best_model(training.best, config, data, training.device)
    tested = training._evaluate(*training._share(data.test), model=model).scores()
    wrong = tested.predictions != tested.labels
    minority = tested.labels >= len(data.class_names) // 2
    return {
        **cell._asdict(),
        "run_id": config.run_id,
        "error": 100 * float(wrong.double().mean()),
        "minority_error": 100 * float(wrong[minority].double().mean()),
        "val_error": 100 * training.best.val_error,
        "passes": sum(now > before for before, now in pairwise(steps)),
        "inner_seconds": sum(row["inner_seconds"] for row in epochs),
        "outer_seconds": sum(row["outer_seconds"] for row in epochs),
    }


def main() -> None:
    """Runs or shows the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "show"])
    parser.add_argument("results", type=Path)
    parser.add_argument("--only", metavar="METHOD", help="run this method's trainings only")
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "run":
        run(given.results, given.only)


if __name__ == "__main__":
    main()
