"""Whether the order of the paper's Tables 1 to 3 holds: what each part of AutoDO adds, in every cell.

    python -m benchmarks.paper_order RESULTS... [--figure FILE.png]

RESULTS are stores, or Parquet files of their results, of one dataset, network and number of images, such as
docs/results/fashion-mnist-memorising.parquet. Prints Markdown: the errors, and for each step of the order the
difference of the errors, paired by seed. The error is that on test at the epoch of lowest val error.
"""

import argparse
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.recommended import read
from reports.analysis.stats import SIGNIFICANT, paired_t_tests

PRIOR = ("baseline", "randaugment", "fast-autoaugment-searched", "dada-searched")
"""Methods before AutoDO."""
FAMILIES = {"autodo": "paper's text", "autodo-published": "published code", "autodo-exact": "exact solver"}
PARTS = ("shared", "a", "aw", "aws", "ws")

Floats = NDArray[np.float64]


class Step(NamedTuple):
    """Two methods, of which the paper has the later one below the earlier one."""

    earlier: str
    later: str

    def __str__(self) -> str:
        return f"{self.earlier} → {self.later}"


def steps(methods: list[str]) -> Iterator[Step]:
    """The order of the paper among these methods: each part against the one before, and all against prior methods."""
    for family in FAMILIES:
        parts = [name for part in PARTS[:-1] if (name := f"{family}-{part}") in methods]
        if parts:
            chain = [Step(*pair) for pair in itertools.pairwise(["baseline", *parts])]
            against_prior = [Step(prior, parts[-1]) for prior in PRIOR if prior in methods]
            yield from dict.fromkeys(chain + against_prior)


class Errors:
    """Test errors in percent by cell and method, and in each a value by seed.

    Args:
        runs: a row a run.
    """

    def __init__(self, runs: pd.DataFrame) -> None:
        runs = runs.assign(error=100 * runs["error_best_val"])
        cells = runs[["imbalance_ratio", "noise_ratio"]].drop_duplicates()
        self.cells = [tuple(cell) for cell in cells.sort_values(["noise_ratio", "imbalance_ratio"]).to_numpy()]
        names = [*PRIOR, *(f"{family}-{part}" for family in FAMILIES for part in PARTS)]
        self.methods = [name for name in names if name in set(runs["method"])]
        by = runs.set_index(["imbalance_ratio", "noise_ratio", "method", "seed"])["error"].sort_index()
        self._values = {(*cell, method): by.get((*cell, method)) for cell in self.cells for method in self.methods}

    def of(self, cell: tuple[float, float], method: str) -> "pd.Series[float]":
        """Errors by seed; empty without runs."""
        found = self._values.get((*cell, method))
        return pd.Series(dtype=float) if found is None else found

    def difference(self, cell: tuple[float, float], step: Step) -> Floats:
        """Error of the later method minus that of the earlier one. Shape: -> [seeds that both have]."""
        return np.array((self.of(cell, step.later) - self.of(cell, step.earlier)).dropna(), np.float64)


def name_of(cell: tuple[float, float]) -> str:
    """`10-0.1`: imbalance and noise ratio."""
    return f"{cell[0]:g}-{cell[1]}"


def table(errors: Errors) -> Iterator[str]:
    """Mean ± std of each method in each cell."""
    yield f"| method | {' | '.join(map(name_of, errors.cells))} |"
    yield "|---|" + "---:|" * len(errors.cells)
    means = {
        cell: {m: errors.of(cell, m).mean() for m in errors.methods if len(errors.of(cell, m))} for cell in errors.cells
    }
    for method in errors.methods:
        texts = []
        for cell in errors.cells:
            values = errors.of(cell, method)
            spread = f" ± {values.std():.1f}" if len(values) > 1 else ""
            text = f"{values.mean():.1f}{spread}" if len(values) else ""
            texts.append(f"**{text}**" if text and means[cell][method] == min(means[cell].values()) else text)
        yield f"| {method} | {' | '.join(texts)} |"


def verdict(difference: Floats) -> str:
    """The mean difference with its standard error, and `holds` or `reversed` if it is not within the noise.

    A single seed has a difference alone.
    """
    if len(difference) < 2:
        return "".join(f"{value:+.1f}" for value in difference)
    mean, error = difference.mean(), difference.std(ddof=1) / math.sqrt(len(difference))
    (p,) = paired_t_tests([difference])
    word = "" if p is None or p >= SIGNIFICANT else " holds" if mean < 0 else " reversed"
    return f"{mean:+.1f} ± {error:.1f}{word}"


def order_table(errors: Errors) -> Iterator[str]:
    """Each step of the order in each cell, and in how many cells it holds."""
    yield f"| step | {' | '.join(map(name_of, errors.cells))} | holds | reversed |"
    yield "|---|" + "---:|" * (len(errors.cells) + 2)
    for step in steps(errors.methods):
        found = [verdict(errors.difference(cell, step)) for cell in errors.cells]
        counts = [sum(text.endswith(word) for text in found) for word in ("holds", "reversed")]
        yield f"| {step} | {' | '.join(found)} | {' | '.join(map(str, counts))} |"


def draw(errors: Errors, file: Path) -> None:
    """Draw the error of each part of AutoDO, with a panel for each cell and a line for each family."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(errors.cells), 3.6), layout="constrained")
    places = {"baseline": 0, **{part: i for i, part in enumerate(PARTS, 1)}}
    for panel, cell in zip(np.ravel(figure.subplots(1, len(errors.cells))), errors.cells, strict=True):
        for colour, (family, label) in enumerate(FAMILIES.items()):
            of_parts = {part: errors.of(cell, f"{family}-{part}") for part in PARTS}
            values = {"baseline": errors.of(cell, "baseline"), **of_parts}
            there = {part: found for part, found in values.items() if len(found)}
            chain = [part for part in there if part != "ws"]
            shown = label if cell == errors.cells[0] else None
            panel.plot(
                [places[part] for part in chain],
                [there[part].mean() for part in chain],
                color=f"C{colour}",
                label=shown,
            )
            for part, found in there.items():
                panel.plot([places[part]] * len(found), found, ".", color=f"C{colour}", alpha=0.5)
        for style, prior in zip(("--", ":", "-."), PRIOR[1:], strict=True):
            if prior in errors.methods and len(errors.of(cell, prior)):
                shown = prior if cell == errors.cells[0] else None
                panel.axhline(errors.of(cell, prior).mean(), color="gray", linestyle=style, label=shown)
        panel.set_title(name_of(cell))
        panel.set_xticks(list(places.values()), list(places), fontsize=8, rotation=30)
        panel.grid(visible=True, linewidth=0.3)
    figure.axes[0].set_ylabel("test error, %")
    figure.legend(loc="outside lower center", ncols=6, fontsize=8)
    FigureCanvasAgg(figure).print_png(file)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS")
    parser.add_argument("--figure", type=Path, help="errors by part, as PNG")
    given = parser.parse_args()
    errors = Errors(read(given.results))
    print("\n".join(table(errors)))
    needed = f"p < {SIGNIFICANT} in a paired t-test, uncorrected"
    print(f"\nDifferences in points ± standard error. A verdict needs {needed}.\n")
    print("\n".join(order_table(errors)))
    if given.figure is not None:
        draw(errors, given.figure)


if __name__ == "__main__":
    main()
