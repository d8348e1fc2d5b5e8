"""What cheaper outer phases do to the error: fewer passes, and other settings of a pass.

    python -m benchmarks.outer_schedule run RESULTS.parquet      # what the file lacks of some hundred trainings
    python -m benchmarks.outer_schedule show RESULTS.parquet [--figure FILE.png]

12,000 images of Fashion-MNIST, small-cnn, 20 epochs, one thread; with `--study`, others (`STUDIES`), of which
`restart-12000` and `restart-5000` compare the schedules of the outer optimizer. Every variant is a method of the exact
solver with one thing changed (`outer_variants.py`). The error is that of all test images at the
epoch of lowest val error. Costs are this process's own time, without evaluation, over that of a plain training.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.stats import ttest_1samp

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data import DataSplits, load, prepare
from autodo.io.atomic import atomic_path
from autodo.training.context import RunContext
from autodo.training.task_model import best_model
from autodo.training.trainer import Trainer
from benchmarks.outer_variants import (
    BEFORE,
    BY_VAL,
    COMBINED,
    DEFAULT,
    PLAIN,
    PRESENT,
    RESTARTED,
    SCHEDULES,
    SETTINGS,
    SHARED,
    SMALL,
    VARIANTS,
    Variant,
)
from reports.figures.palette import COLOURS

METHODS = ("autodo-exact-ws", "autodo-exact-aws")
FEW = 256
"""Test images that are looked at after every epoch; at the end all of them are."""


class Study(NamedTuple):
    """What is trained on, and which variants; the parts in the order of what is needed first."""

    dataset: str
    settings: Mapping[str, Any]
    distortions: tuple[str, ...]
    seeds: int
    parts: tuple[Mapping[str, Variant], ...]
    base: str = DEFAULT
    """The variant that the others are compared with."""


STUDIES = {
    "fashion-mnist": Study(
        "fashion-mnist",
        {**BEFORE, "dataset.subsample": 12_000, "training.epochs": 20},
        ("100-0.1", "10-0.1"),
        3,
        (SCHEDULES, COMBINED, SETTINGS, RESTARTED),
    ),
    "digits": Study("digits", {**BEFORE, "training.epochs": 40}, ("10-0.1", "1-0.0", "1-0.3"), 20, (SMALL | BY_VAL,)),
    # As few images as digits has, and a large test set.
    "fashion-mnist-1500": Study(
        "fashion-mnist",
        {**BEFORE, "dataset.subsample": 1500, "training.epochs": 40, "training.batch_size": 64, "training.lr": 0.05},
        ("10-0.1", "1-0.0", "1-0.3"),
        5,
        (SMALL | BY_VAL,),
    ),
    # Which schedule the presets of the exact solver should have: many images and few epochs, and the reverse.
    "restart-12000": Study(
        "fashion-mnist", {"dataset.subsample": 12_000, "training.epochs": 20}, ("100-0.1",), 5, (PRESENT,), SHARED
    ),
    "restart-5000": Study(
        "fashion-mnist", {"dataset.subsample": 5000, "training.epochs": 100}, ("100-0.1",), 5, (PRESENT,), SHARED
    ),
}


class Cell(NamedTuple):
    """One training of a study."""

    method: str
    variant: str
    distortion: str
    seed: int


def cells(study: Study) -> Iterator[Cell]:
    """In the order of what is needed first."""
    for seed, distortion in product(range(study.seeds), study.distortions):
        yield Cell("baseline", PLAIN, distortion, seed)
    for part in study.parts:
        for seed, method, variant, distortion in product(range(study.seeds), METHODS, part, study.distortions):
            yield Cell(method, variant, distortion, seed)


def config_of(study: Study, cell: Cell) -> RunConfig:
    """Without what only `alter` does."""
    variant = VARIANTS[cell.variant]
    overrides = {**study.settings, **variant.settings}
    distortion = DistortionConfig.parse(cell.distortion)
    return build_run(
        study.dataset, cell.method, distortion=distortion, seed=cell.seed, split=variant.split, overrides=overrides
    )


def run(study: Study, path: Path, only: str | None, variants: Sequence[str] | None) -> None:
    """Runs what the file lacks, and writes the file after each training."""
    rows = [] if not path.exists() else pd.read_parquet(path).to_dict("records")
    done = {Cell(row["method"], row["variant"], row["distortion"], row["seed"]) for row in rows}
    wanted = [
        cell
        for cell in cells(study)
        if cell not in done and (only is None or cell.method == only) and cell.variant in (variants or VARIANTS)
    ]
    dataset = load(config_of(study, next(cells(study))).dataset)
    for number, cell in enumerate(wanted, start=1):
        config = config_of(study, cell)
        row = measure(cell, config, prepare(dataset, config))
        rows.append(row)
        with atomic_path(path) as temporary:
            pd.DataFrame(rows).to_parquet(temporary)
        print(f"{number}/{len(wanted)} {' | '.join(map(str, cell))}: {row['error']:.2f}%", flush=True)


def measure(cell: Cell, config: RunConfig, data: DataSplits) -> dict[str, Any]:
    """Trains, and gives a row of the results."""
    few = data.test.take(np.arange(FEW))
    training = Trainer(config, DataSplits(data.train, data.val, few, data.class_names))
    alter = VARIANTS[cell.variant].alter
    if alter is not None:
        alter(training)
    epochs, steps = [], [0]
    # The process's own time: other programs are at work as well.
    with mock.patch.object(RunContext, "clock", side_effect=time.process_time):
        for epoch in training:
            epochs.append(epoch)
            steps.append(training.points.table.steps)
    assert training.state.best is not None
    model = best_model(training.state.best, training.context, training.context.device)
    test = training.loaders.load_shard(data.test)
    last, tested = (training.evaluator.evaluate(test, which).scores() for which in (None, model))
    wrong = tested.predictions != tested.labels
    minority = tested.labels >= len(data.class_names) // 2
    return {
        **cell._asdict(),
        "run_id": config.run_id,
        "error": 100 * float(wrong.double().mean()),
        "last_error": 100 * last.error,
        "minority_error": 100 * float(wrong[minority].double().mean()),
        "val_error": 100 * training.state.best.val_error,
        "passes": sum(now > before for before, now in pairwise(steps)),
        "inner_seconds": sum(row["inner_seconds"] for row in epochs),
        "outer_seconds": sum(row["outer_seconds"] for row in epochs),
    }


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """A row for each method, variant and distortion: error, its deviation over seeds, and what it costs.

    Costs are of all epochs: `outer_cost` that of the outer phase, `run_cost` that of the inner and the outer phase. A
    method without outer passes is not slower for its variant, so the outer seconds are set beside the mean inner
    seconds of plain trainings.
    """
    plain = results[results.variant == PLAIN].groupby("distortion").inner_seconds.mean()
    results = results.assign(outer_cost=results.outer_seconds / results.distortion.map(plain))
    rows = []
    for (method, variant, distortion), of_cell in results.groupby(["method", "variant", "distortion"], sort=False):
        rows.append(
            {
                **{"method": method, "variant": variant, "distortion": distortion, "n": len(of_cell)},
                **{"error": of_cell.error.mean(), "std": of_cell.error.std(), "passes": of_cell.passes.mean()},
                **{"outer_cost": of_cell.outer_cost.mean(), "run_cost": 1 + of_cell.outer_cost.mean()},
            }
        )
    return pd.DataFrame(rows)


def pooled_change(results: pd.DataFrame, variant: str, base: str = DEFAULT) -> str:
    """Change of the error from that of `base`, over the pairs of both that share method, distortion and seed.

    Mean, its standard error and the p of a paired t-test; without them if there are fewer than three pairs.
    """
    errors = results.pivot(index=["method", "distortion", "seed"], columns="variant", values="error")
    if variant == base or base not in errors:
        return ""
    changes = (errors[variant] - errors[base]).dropna()
    if len(changes) < 3:
        return f"{changes.mean():+.2f}" if len(changes) else ""
    return f"{changes.mean():+.2f} ± {changes.sem():.2f}, p = {ttest_1samp(changes, 0).pvalue:.2g}"


def show(study: Study, results: pd.DataFrame, figure: Path | None) -> None:
    """Prints a table for each method, in Markdown, and draws errors against costs."""
    rows = summary(results)
    for method in rows.method.unique():
        errors = " | ".join(f"error {distortion}" for distortion in study.distortions)
        print(f"\n{method}\n\n| variant | passes | outer / plain | {errors} | change | n |")
        print("|---|" + "---:|" * (len(study.distortions) + 4))
        of_method, all_of_method = rows[rows.method == method], results[results.method == method]
        for variant in [name for name in VARIANTS if (of_method.variant == name).any()]:
            cells_of = of_method[of_method.variant == variant].set_index("distortion").reindex(study.distortions)
            errors = " | ".join(spread(row.error, row["std"]) for _, row in cells_of.iterrows())
            counts = "+".join(f"{count:.0f}" for count in cells_of.n.fillna(0))
            cost = cells_of.outer_cost.mean()
            costs = f"{cells_of.passes.mean():.0f} | {'–' if np.isnan(cost) else f'{cost:.2f}'}"
            change = pooled_change(all_of_method, variant, study.base)
            print(f"| {variant} | {costs} | {errors} | {change} | {counts} |")
    print("\nall methods\n\n| variant | change |\n|---|---:|")
    for variant in [name for name in VARIANTS if name not in (PLAIN, study.base) and (rows.variant == name).any()]:
        print(f"| {variant} | {pooled_change(results, variant, study.base)} |")
    wanted = list(cells(study))
    print(f"\n{len(results)} of {len(wanted)} trainings are done; n: seeds at {', '.join(study.distortions)}")
    if figure is not None:
        draw(study, rows, figure)


def spread(mean: float, deviation: float) -> str:
    """`25.00 ± 1.00`; without a deviation if it is that of one seed, and `–` for none."""
    if np.isnan(mean):
        return "–"
    return f"{mean:.2f}" if np.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"


def draw(study: Study, rows: pd.DataFrame, path: Path) -> None:
    """Error against the cost of a run, a panel for each method and distortion; other settings are gray."""
    methods = [method for method in rows.method.unique() if method != "baseline"]
    shape = (len(methods), len(study.distortions))
    figure, axes = plt.subplots(*shape, figsize=(2 + 4.5 * shape[1], 4 * shape[0]), squeeze=False, layout="constrained")
    looks = {
        variant: {"color": COLOURS[number % len(COLOURS)], "marker": "osD^v<>PX*phd8H"[number % 15]}
        for number, variant in enumerate(SCHEDULES)
    }
    looks |= {variant: {"color": "black", "marker": marker} for variant, marker in zip(COMBINED, "+*x", strict=True)}
    for (line, method), (column, distortion) in product(enumerate(methods), enumerate(study.distortions)):
        axis = axes[line, column]
        here = rows[(rows.method == method) & (rows.distortion == distortion)].set_index("variant")
        for variant, row in here.iterrows():
            if VARIANTS[str(variant)].split == "paper":
                look = looks.get(str(variant), {"color": "#b0b0b0", "marker": "."})
                axis.errorbar(row.run_cost, row.error, row["std"], label=variant, linestyle="", capsize=2, **look)
        if DEFAULT in here.index:
            axis.axhline(here.loc[DEFAULT, "error"], color="#b0b0b0", linewidth=0.8, zorder=0)
        axis.set(title=f"{method}, {distortion}", xlabel="cost of a run / plain run", ylabel="test error, %")
    marks = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels()), strict=True))
    shown = [variant for variant in looks if variant in marks]
    figure.legend([marks[variant] for variant in shown], shown, loc="outside right upper")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def main() -> None:
    """Runs or shows the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "show"])
    parser.add_argument("results", type=Path)
    parser.add_argument("--study", choices=STUDIES, default="fashion-mnist")
    parser.add_argument("--only", metavar="METHOD", help="run this method's trainings only")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, metavar="VARIANT", help="run these only")
    parser.add_argument("--last", action="store_true", help="show errors after the last epoch, where they were kept")
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "run":
        run(STUDIES[given.study], given.results, given.only, given.variants)
    else:
        results = pd.read_parquet(given.results)
        if given.last:
            kept = results.last_error.notna() | (results.variant == PLAIN)  # whose time is what costs are told by
            results = results[kept].assign(error=results.last_error)
        show(STUDIES[given.study], results, given.figure)


if __name__ == "__main__":
    main()
