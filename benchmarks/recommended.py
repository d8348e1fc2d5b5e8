"""Judges `autodo` against its rivals by the targets of docs/results/recommended.md.

    python -m benchmarks.recommended RESULTS... [--rival METHOD] [--trained-rival METHOD] [--figure FILE.png]

RESULTS are stores, or Parquet files of their results, of one regime: every method in every cell, for several seeds. A
run whose head is solved has two errors: that of the head that was trained and that of the solved one. Prints Markdown:
the errors, what each target asks and what was measured, and the differences by cell.

The oracle of a cell is the lowest mean error among all methods in the cell with the same imbalance and no wrong labels,
which has the same images with their true labels. Without such a cell the targets that name the oracle are left out.
"""

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from autodo.config.dataset import DistortionConfig
from reports.analysis.stats import bootstrap_intervals, paired_t_tests

OURS, PLAIN = "autodo", "solved-head"
SOLVED, TRAINED = "solved", "trained"
COLUMNS = ("method", "imbalance_ratio", "noise_ratio", "seed", "error_best_val", "error_last", "seconds", "config")

Floats = NDArray[np.float64]


class Entry(NamedTuple):
    """A method with one of its two heads."""

    method: str
    head: str

    def __str__(self) -> str:
        return f"{self.method}, {self.head} head"


class Target(NamedTuple):
    """A target, and what was measured."""

    asks: str
    measured: str
    met: bool


class Errors:
    """Test errors in percent by cell, entry and seed.

    Args:
        runs: a row a run, with COLUMNS.
    Raises:
        SystemExit: if a method lacks a run that another one has.
    """

    def __init__(self, runs: pd.DataFrame) -> None:
        distortions = [DistortionConfig(**json.loads(text)["distortion"]) for text in runs["config"]]
        runs = runs.assign(cell=[str(distortion) for distortion in distortions])
        self.distortions = {str(distortion): distortion for distortion in sorted(distortions, key=_order)}
        self.cells = list(self.distortions)
        self.seeds = sorted(set(runs["seed"]))
        self.methods = list(dict.fromkeys(runs["method"]))
        self._values: dict[tuple[str, Entry], Floats] = {}
        columns = {SOLVED: "error_best_val", TRAINED: "error_last"}
        for (cell, method), of_method in runs.groupby(["cell", "method"], sort=False):
            by_seed = of_method.set_index("seed")
            if sorted(by_seed.index) != self.seeds:
                raise SystemExit(f"{method} at {cell} has seeds {sorted(by_seed.index)}, others have {self.seeds}")
            for head, column in columns.items():
                self._values[str(cell), Entry(str(method), head)] = 100 * by_seed.loc[self.seeds, column].to_numpy(
                    float
                )
        self.entries = [Entry(str(method), head) for method in self.methods for head in columns]
        missing = [(cell, str(e)) for cell in self.cells for e in self.entries if (cell, e) not in self._values]
        if missing:
            raise SystemExit(f"no runs of {missing[0][1]} at {missing[0][0]}")
        seconds = runs.pivot_table("seconds", ["cell", "seed"], "method")
        self.cost = {method: float((seconds[method] / seconds[PLAIN]).median()) for method in self.methods}

    def of(self, cell: str, entry: Entry) -> Floats:
        """Errors by seed. Shape: -> [seeds]."""
        return self._values[cell, entry]

    def oracle(self, cell: str) -> float:
        """Lowest mean error with the true labels; NaN without such a cell."""
        clean = str(self.distortions[cell].model_copy(update={"noise_ratio": 0.0, "noise": "uniform"}))
        if clean not in self.cells:
            return math.nan
        return min(float(self.of(clean, entry).mean()) for entry in self.entries)

    @property
    def noisy_cells(self) -> list[str]:
        """Cells with wrong labels."""
        return [cell for cell, distortion in self.distortions.items() if distortion.noise_ratio]


def _order(distortion: DistortionConfig) -> tuple[object, ...]:
    return distortion.noise != "uniform", distortion.noise, distortion.imbalance_ratio, distortion.noise_ratio


def read(paths: Iterable[Path]) -> pd.DataFrame:
    """Results of stores and of Parquet files."""
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.glob("results/*.parquet")))]
    if not files:
        raise SystemExit("no results there")
    return pd.concat([pq.ParquetFile(file).read(columns=list(COLUMNS)).to_pandas() for file in files])


def table(errors: Errors) -> Iterator[str]:
    """Mean ± std by cell, the mean over cells, and the cost of a run against plain training."""
    yield f"| method | {' | '.join(errors.cells)} | mean | cost |"
    yield "|---|" + "---:|" * (len(errors.cells) + 2)
    best = {cell: min(float(errors.of(cell, e).mean()) for e in errors.entries) for cell in errors.cells}
    for entry in errors.entries:
        found = []
        for cell in errors.cells:
            values = errors.of(cell, entry)
            text = f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
            found.append(f"**{text}**" if float(values.mean()) == best[cell] else text)
        mean = np.mean([errors.of(cell, entry).mean() for cell in errors.cells])
        yield f"| {entry} | {' | '.join(found)} | {mean:.2f} | {errors.cost[entry.method]:.2f} |"


def targets(errors: Errors, rival: Entry, trained: Entry) -> Iterator[Target]:
    """The targets of docs/results/recommended.md, by the rivals that were chosen on the tuning seed.

    Args:
        rival, trained: the best rival with a solved head, and without one.
    """
    ours = Entry(OURS, SOLVED)
    for cell in errors.cells:
        mine, theirs, untuned = (errors.of(cell, entry) for entry in (ours, rival, trained))
        lower, below = 1 - mine.mean() / theirs.mean(), 1 - mine.mean() / untuned.mean()
        distortion = errors.distortions[cell]
        if not distortion.noise_ratio:
            others = [e for e in errors.entries if e.method != OURS]
            best = min(others, key=lambda e: errors.of(cell, e).mean())
            gap = mine - errors.of(cell, best)
            error = gap.std(ddof=1) / math.sqrt(len(gap))
            asks = f"{cell}: no worse than the best ({best}) by more than the standard error of the difference"
            yield Target(asks, f"{gap.mean():+.2f}, standard error {error:.2f}", bool(gap.mean() <= error))
        elif distortion.noise == "uniform" and distortion.noise_ratio >= 0.4:
            yield Target(f"{cell}: ≥ 15% below {trained}", f"{100 * below:.1f}%", bool(below >= 0.15))
            yield Target(f"{cell}: ≥ 5% below {rival}", f"{100 * lower:.1f}%", bool(lower >= 0.05))
        else:
            if not math.isnan(errors.oracle(cell)):
                closed = _closed(errors, cell, rival)
                asks = f"{cell}: ≥ half of the gap from {rival} to the oracle"
                yield Target(asks, f"{100 * closed:.0f}%", closed >= 0.5)
            (p,) = paired_t_tests([mine - theirs])
            worse = bool(mine.mean() > theirs.mean() and p is not None and p < 0.05)
            yield Target(f"{cell}: not significantly worse", f"{(mine - theirs).mean():+.2f}, p = {p:.3f}", not worse)
    noisy = errors.noisy_cells
    gaps = [float(errors.of(cell, rival).mean()) - errors.oracle(cell) for cell in noisy]
    gained = [float(errors.of(cell, rival).mean() - errors.of(cell, ours).mean()) for cell in noisy]
    if not any(math.isnan(gap) for gap in gaps):
        share = sum(gained) / sum(gaps)
        yield Target("all noisy cells: ≥ 70% of the sum of the gaps", f"{100 * share:.0f}%", share >= 0.7)
    cost = errors.cost[OURS]
    yield Target("a run takes ≤ 1.5 times plain training", f"{cost:.2f}", cost <= 1.5)
    ratios = np.mean([np.log(errors.of(cell, ours) / errors.of(cell, rival)) for cell in errors.cells], axis=0)
    (p,) = paired_t_tests([ratios])
    measured = f"{100 * (math.exp(ratios.mean()) - 1):+.1f}%, p = {p:.2g}, n = {len(ratios)}"
    met = bool(ratios.mean() < 0 and p is not None and p < 0.05)
    yield Target(f"the test: error against {rival}, geometric mean over all cells, paired by seed", measured, met)


def _closed(errors: Errors, cell: str, rival: Entry) -> float:
    """Share of the gap between a rival and the oracle that `autodo` closes; infinite if there is no gap."""
    theirs = float(errors.of(cell, rival).mean())
    gap = theirs - errors.oracle(cell)
    return (theirs - float(errors.of(cell, Entry(OURS, SOLVED)).mean())) / gap if gap > 0 else math.inf


def cell_differences(errors: Errors, others: Sequence[Entry]) -> Iterator[str]:
    """`autodo` minus others by cell, with 95% intervals that are not corrected for the number of comparisons."""
    yield f"| autodo minus | {' | '.join(errors.cells)} |"
    yield "|---|" + "---:|" * len(errors.cells)
    ours = Entry(OURS, SOLVED)
    for other in others:
        samples = [errors.of(cell, ours) - errors.of(cell, other) for cell in errors.cells]
        found = [
            f"{sample.mean():+.1f}" + (f" [{interval[0]:+.1f}, {interval[1]:+.1f}]" if interval else "")
            for sample, interval in zip(samples, bootstrap_intervals(samples), strict=True)
        ]
        yield f"| {other} | {' | '.join(found)} |"


def draw(errors: Errors, file: Path) -> None:
    """Draw the mean error over the noisy cells against the cost, for both heads of each method."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    noisy = errors.noisy_cells
    for i, method in enumerate(errors.methods):
        means = {head: np.mean([errors.of(c, Entry(method, head)).mean() for c in noisy]) for head in (TRAINED, SOLVED)}
        x, colour = errors.cost[method], f"C{i}"
        axes.plot([x, x], list(means.values()), color=colour, linewidth=1)
        axes.plot(x, means[TRAINED], "o", color=colour, markerfacecolor="white")
        axes.plot(x, means[SOLVED], "o", color=colour, label=method)
    axes.set_xlabel("time of a run, plain training = 1")
    axes.set_ylabel("mean test error over the cells with wrong labels, %")
    axes.legend(title="filled: solved head, open: trained head", fontsize=8)
    axes.grid(visible=True, linewidth=0.3)
    FigureCanvasAgg(figure).print_png(file)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS")
    parser.add_argument("--rival", required=True, help="the best method with a solved head on the tuning seed")
    parser.add_argument("--trained-rival", required=True, help="the best one without")
    parser.add_argument("--figure", type=Path, help="error against cost, as PNG")
    given = parser.parse_args()
    errors = Errors(read(given.results))
    rival, trained = Entry(given.rival, SOLVED), Entry(given.trained_rival, TRAINED)
    for entry in (rival, trained):
        if entry not in errors.entries:
            parser.error(f"unknown method {entry.method!r}; there are {', '.join(errors.methods)}")
    print("\n".join(table(errors)))
    print("\n| target | measured | met |\n|---|---|---|")
    for target in targets(errors, rival, trained):
        print(f"| {target.asks} | {target.measured} | {'yes' if target.met else 'no'} |")
    print("\n" + "\n".join(cell_differences(errors, [entry for entry in errors.entries if entry.method != OURS])))
    if given.figure is not None:
        draw(errors, given.figure)


if __name__ == "__main__":
    main()
