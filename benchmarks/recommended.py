"""Judges `autodo` against its rivals by the targets of docs/results/recommended.md.

    python -m benchmarks.recommended RESULTS... --rival METHOD --trained-rival METHOD
        [--error COLUMN] [--costs FILE.csv [--figure FILE.png]]

RESULTS are stores, or Parquet files of their results, of one regime: every method in every cell, for several seeds. A
run whose head is solved has two errors: that of the head that was trained and that of the solved one. Prints Markdown:
the errors, what each target asks and what was measured, and the differences by cell.

`--error error_unused` takes the errors that `benchmarks.unused_images` has measured; only solved heads have them.
`--costs` is the table of `python -m benchmarks.methods --split union --csv FILE.csv METHOD...`.

The oracle of a cell is the lowest mean error among all methods in the cell with the same imbalance and no wrong labels,
which has the same images with their true labels. Without such a cell the targets that name the oracle are left out.
"""

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import scipy.stats
from numpy.typing import NDArray

from autodo.config.dataset import DistortionConfig
from reports.analysis.stats import SIGNIFICANT, paired_t_tests

OURS, PLAIN = "autodo", "baseline"
OWN_PARTS = ("autodo-exact-ws+posterior-head", "ldam-drw+posterior-head")
"""Methods that have parts of `autodo`: shown, but no rivals."""
SOLVED, TRAINED = "solved", "trained"
ERROR = "error_best_val"
COLUMNS = ("method", "imbalance_ratio", "noise_ratio", "seed", "error_last", "config")

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
    """Errors in percent by cell, entry and seed.

    Args:
        runs: a row a run, with COLUMNS and `error`.
        error: column of the errors with a solved head. If it is not ERROR there are no entries of trained heads, as
            those were measured on other images.
    Raises:
        SystemExit: if a method lacks a run that another one has, or there is one seed only.
    """

    def __init__(self, runs: pd.DataFrame, error: str = ERROR) -> None:
        distortions = [DistortionConfig(**json.loads(text)["distortion"]) for text in runs["config"]]
        runs = runs.assign(cell=[str(distortion) for distortion in distortions])
        self.distortions = {str(distortion): distortion for distortion in sorted(distortions, key=_order)}
        self.cells = list(self.distortions)
        self.seeds = sorted(set(runs["seed"]))
        if len(self.seeds) < 2:
            raise SystemExit("tests need at least two seeds")
        self.methods = list(dict.fromkeys(runs["method"]))
        self._values: dict[tuple[str, Entry], Floats] = {}
        columns = {SOLVED: error, TRAINED: "error_last"} if error == ERROR else {SOLVED: error}
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
        self.rivals = [entry for entry in self.entries if entry.method not in (OURS, *OWN_PARTS)]

    def of(self, cell: str, entry: Entry) -> Floats:
        """Errors by seed. Shape: -> [seeds]."""
        return self._values[cell, entry]

    def oracle(self, cell: str) -> float:
        """Lowest mean error with the true labels; NaN without such a cell."""
        clean = str(self.distortions[cell].model_copy(update={"noise_ratio": 0.0, "noise": "uniform"}))
        if clean not in self.cells:
            return math.nan
        return min(float(self.of(clean, entry).mean()) for entry in self.entries)

    def lowest_rival(self, cell: str) -> Entry:
        """The rival with the lowest mean error in this cell, which nobody knows before."""
        return min(self.rivals, key=lambda entry: float(self.of(cell, entry).mean()))

    @property
    def noisy_cells(self) -> list[str]:
        """Cells with wrong labels."""
        return [cell for cell, distortion in self.distortions.items() if distortion.noise_ratio]


def _order(distortion: DistortionConfig) -> tuple[object, ...]:
    return distortion.noise != "uniform", distortion.noise, distortion.imbalance_ratio, distortion.noise_ratio


def result_files(paths: Iterable[Path]) -> list[Path]:
    """The files of results of stores, and Parquet files themselves.

    Raises:
        SystemExit: if there are none.
    """
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.glob("results/*.parquet")))]
    if not files:
        raise SystemExit("no results there")
    return files


def read(paths: Iterable[Path], error: str = ERROR) -> pd.DataFrame:
    """Results of stores and of Parquet files."""
    files = result_files(paths)
    columns = [*COLUMNS, error]
    for file in files:
        if error not in pq.ParquetFile(file).schema_arrow.names:
            raise SystemExit(f"{file} has no column {error}")
    return pd.concat([pq.ParquetFile(file).read(columns=columns).to_pandas() for file in files])


def read_costs(file: Path) -> dict[str, float]:
    """Time of a run over that of plain training on the same images.

    Raises:
        SystemExit: if plain training is not in the file.
    """
    costs = {"+".join(sorted(name.split("+"))): cost for name, cost in pd.read_csv(file).to_numpy()}
    if PLAIN not in costs:
        raise SystemExit(f"{file} has no {PLAIN}")
    return {name: float(cost / costs[PLAIN]) for name, cost in costs.items()}


def table(errors: Errors, costs: Mapping[str, float]) -> Iterator[str]:
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
        cost = costs.get(entry.method)
        yield f"| {entry} | {' | '.join(found)} | {mean:.2f} | {'' if cost is None else f'{cost:.2f}'} |"


def targets(errors: Errors, rival: Entry, trained: Entry, costs: Mapping[str, float]) -> Iterator[Target]:
    """The targets of docs/results/recommended.md.

    Args:
        rival, trained: the best rival with a solved head, and without one, on the tuning seed.
    """
    ours = Entry(OURS, SOLVED)
    for cell in errors.cells:
        mine, distortion, best = errors.of(cell, ours), errors.distortions[cell], errors.lowest_rival(cell)
        difference = mine - errors.of(cell, best)
        if not distortion.noise_ratio:
            error = scipy.stats.sem(difference)
            asks = f"{cell}: no worse than the lowest ({best}) by more than the standard error of the difference"
            yield Target(asks, f"{difference.mean():+.2f}, standard error {error:.2f}", difference.mean() <= error)
            continue
        if distortion.noise == "uniform" and distortion.noise_ratio >= 0.4:
            for share, other in ((0.15, trained), (0.05, rival)):
                if other in errors.entries:
                    below = 1 - float(mine.mean() / errors.of(cell, other).mean())
                    yield Target(f"{cell}: ≥ {share:.0%} below {other}", f"{100 * below:.1f}%", below >= share)
        elif not math.isnan(errors.oracle(cell)):
            yield _gap(errors, cell, best)
        (p,) = paired_t_tests([difference])
        worse = bool(difference.mean() > 0 and p is not None and p < SIGNIFICANT)
        yield Target(
            f"{cell}: not significantly worse than {best}", f"{difference.mean():+.2f}, p = {p:.3f}", not worse
        )
    noisy = errors.noisy_cells
    gaps = [float(errors.of(cell, rival).mean()) - errors.oracle(cell) for cell in noisy]
    if not any(math.isnan(gap) for gap in gaps):
        gained = [float(errors.of(cell, rival).mean() - errors.of(cell, ours).mean()) for cell in noisy]
        share = sum(gained) / sum(gaps)
        asks = f"all noisy cells: ≥ 70% of the sum of the gaps from {rival} to the oracle"
        yield Target(asks, f"{100 * share:.0f}%", share >= 0.7)
    if OURS in costs:
        yield Target("a run takes ≤ 1.5 times plain training", f"{costs[OURS]:.2f}", costs[OURS] <= 1.5)
    logs = [_log_ratios(errors, dict.fromkeys(errors.cells, other)) for other in errors.rivals]
    p_values = [p for p in paired_t_tests(logs) if p is not None]
    closest = max(range(len(logs)), key=lambda i: float(logs[i].mean()))
    asks = f"the test: lower than each of {len(logs)} rivals, geometric mean over cells, paired, p < {SIGNIFICANT}"
    largest = max(p_values)
    measured = f"closest {errors.rivals[closest]}: {_percent(logs[closest])}; largest p = {largest:.2g}"
    met = largest < SIGNIFICANT and float(logs[closest].mean()) < 0
    yield Target(asks, f"{measured}, n = {len(errors.seeds)}", met)
    ratios = _log_ratios(errors, {cell: errors.lowest_rival(cell) for cell in errors.cells})
    (p,) = paired_t_tests([ratios])
    met = bool(ratios.mean() < 0 and p is not None and p < SIGNIFICANT)
    asks = "against the lowest rival of each cell, chosen afterwards, geometric mean over all cells"
    yield Target(asks, f"{_percent(ratios)}, p = {p:.2g}", met)


def _gap(errors: Errors, cell: str, rival: Entry) -> Target:
    """Whether `autodo` closes half of the gap between a rival and the oracle; without a gap, whether it is no worse."""
    theirs, mine = (float(errors.of(cell, entry).mean()) for entry in (rival, Entry(OURS, SOLVED)))
    gap = theirs - errors.oracle(cell)
    asks = f"{cell}: ≥ half of the gap from {rival} to the oracle"
    if gap <= 0:
        return Target(asks, f"no gap; {mine - theirs:+.2f}", mine <= theirs)
    return Target(asks, f"{100 * (theirs - mine) / gap:.0f}%", (theirs - mine) / gap >= 0.5)


def _log_ratios(errors: Errors, others: Mapping[str, Entry]) -> Floats:
    """Mean over cells of log(error of `autodo` / error of the other one in this cell). Shape: -> [seeds]."""
    ours = Entry(OURS, SOLVED)
    logs = [np.log(errors.of(cell, ours) / errors.of(cell, other)) for cell, other in others.items()]
    return np.asarray(np.mean(logs, axis=0), dtype=np.float64)


def _percent(logs: Floats) -> str:
    return f"{100 * math.expm1(float(logs.mean())):+.1f}%"


def cell_differences(errors: Errors, others: Sequence[Entry]) -> Iterator[str]:
    """`autodo` minus others by cell, with 95% t-intervals that are not corrected for the number of comparisons."""
    yield f"| autodo minus | {' | '.join(errors.cells)} | all cells |"
    yield "|---|" + "---:|" * (len(errors.cells) + 1)
    ours = Entry(OURS, SOLVED)
    for other in others:
        found = []
        for cell in errors.cells:
            sample = errors.of(cell, ours) - errors.of(cell, other)
            found.append(f"{sample.mean():+.1f} ± {_half_width(sample):.1f}")
        ratios = _log_ratios(errors, dict.fromkeys(errors.cells, other))
        (p,) = paired_t_tests([ratios])
        yield f"| {other} | {' | '.join(found)} | {_percent(ratios)}, p = {p:.2g} |"


def _half_width(sample: Floats) -> float:
    """Half the width of the 95% t-interval of the mean."""
    return float(scipy.stats.t.ppf(0.975, len(sample) - 1) * scipy.stats.sem(sample))


def draw(errors: Errors, costs: Mapping[str, float], file: Path) -> None:
    """Draw the mean error over the noisy cells against the cost, for both heads of each method."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    noisy = errors.noisy_cells
    for i, method in enumerate(errors.methods):
        entries = [entry for entry in errors.entries if entry.method == method]
        means = {entry.head: np.mean([errors.of(cell, entry).mean() for cell in noisy]) for entry in entries}
        x, colour = costs[method], f"C{i}"
        axes.plot([x] * len(means), list(means.values()), color=colour, linewidth=1)
        axes.plot(x, means[SOLVED], "o", color=colour, label=method)
        if TRAINED in means:
            axes.plot(x, means[TRAINED], "o", color=colour, markerfacecolor="white")
    axes.set_xlabel("time of a run, plain training = 1")
    axes.set_ylabel("mean error over the cells with wrong labels, %")
    axes.legend(title="filled: solved head, open: trained head", fontsize=8)
    axes.grid(visible=True, linewidth=0.3)
    FigureCanvasAgg(figure).print_png(file)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS")
    parser.add_argument("--rival", required=True, help="the best method with a solved head on the tuning seed")
    parser.add_argument("--trained-rival", required=True, help="the best one without")
    parser.add_argument("--error", default=ERROR, metavar="COLUMN", help="of the errors with a solved head")
    parser.add_argument("--costs", type=Path, metavar="FILE.csv", help="times of runs, from benchmarks.methods")
    parser.add_argument("--figure", type=Path, help="error against cost, as PNG; needs --costs")
    given = parser.parse_args()
    errors = Errors(read(given.results, given.error), given.error)
    costs = {} if given.costs is None else read_costs(given.costs)
    rival, trained = Entry(given.rival, SOLVED), Entry(given.trained_rival, TRAINED)
    for entry in (rival, trained):
        if entry.method not in errors.methods:
            parser.error(f"unknown method {entry.method!r}; there are {', '.join(errors.methods)}")
    if given.figure is not None and (unknown := set(errors.methods) - set(costs)):
        parser.error(f"--figure needs the costs of {', '.join(sorted(unknown))} (--costs)")
    print("\n".join(table(errors, costs)))
    print("\n| target | measured | met |\n|---|---|---|")
    for target in targets(errors, rival, trained, costs):
        print(f"| {target.asks} | {target.measured} | {'yes' if target.met else 'no'} |")
    print("\n" + "\n".join(cell_differences(errors, [entry for entry in errors.entries if entry.method != OURS])))
    if given.figure is not None:
        draw(errors, costs, given.figure)


if __name__ == "__main__":
    main()
