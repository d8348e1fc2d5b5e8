"""What was run, what is missing, and what was found: sentences that are computed from the results."""

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from reports.stats import CONFIDENCE, Floats, bootstrap_intervals, differences, paired_t_test, too_few_pairs
from reports.tables.differences import COVERAGE

Cells = dict[tuple[str, str], dict[str, float]]
"""Mean of each method in each (group, distortion)."""

_CELL = ("group", "distortion", "name")
_LISTED = 5  # of what is missing, before it is only counted


def what_was_run(runs: pd.DataFrame) -> str:
    """How many runs are done, of what.

    Args:
        runs: from `comparison.named`, with the metric `error_best_val`.
    """
    done = runs[runs["error_best_val"].notna()]
    if done.empty:
        return "No run is done yet."
    parts = [
        _count(done["dataset"].nunique(), "dataset"),
        _count(done["distortion"].nunique(), "distortion"),
        _count(done["name"].nunique(), "method"),
        _count(done["seed"].nunique(), "seed"),
    ]
    return f"{_count(len(done), 'run')} done: {_joined(parts)}; {_time(done['seconds'].sum())} of training."


def what_is_missing(runs: pd.DataFrame) -> str | None:
    """How many of the expected runs have no result, and which cells lack them; None if nobody knows what to expect."""
    expected = runs[runs["is_expected"]]
    if expected.empty:
        return None
    missing = expected[expected["error_best_val"].isna()]
    if missing.empty:
        return "Every run that the launched grids ask for is done."
    cells = Counter(zip(*(missing[key] for key in _CELL), strict=True))
    asked = Counter(zip(*(expected[key] for key in _CELL), strict=True))
    one_group = expected["group"].nunique() == 1
    listed = [
        f"{cell[2]} at {cell[1] if one_group else f'{cell[0]} {cell[1]}'} ({n} of {asked[cell]})"
        for cell, n in list(cells.items())[:_LISTED]
    ]
    more = [f"{len(cells) - _LISTED} more cells"] if len(cells) > _LISTED else []
    return f"{len(missing)} of {len(expected)} expected runs have no result: {_joined(listed + more)}."


def what_was_found(runs: pd.DataFrame, metric: str, words: str) -> tuple[str, ...]:
    """Two sentences: which method is best how often, and by how much on the most distorted data.

    Where a method lacks seeds, those are compared that all methods of the cell have: a mean over others is not fair.

    Args:
        runs: from `comparison.named`.
        metric: a column of results, in [0, 1].
        words: what the metric is, such as `test error`.
    """
    done = runs[runs[metric].notna()]
    fair = _seeds_of_all(done)
    cells: Cells = {}
    means = fair.groupby(list(_CELL), sort=False)[metric].mean()
    for (group, distortion, name), mean in zip(means.index, means, strict=True):
        cells.setdefault((group, distortion), {})[name] = mean
    cells = {cell: of_cell for cell, of_cell in cells.items() if len(of_cell) > 1}
    if not cells:
        return ("No two methods can be compared yet.",) if len(done) else ()
    so_far = ""
    if len(fair) < len(done) or done["run_id"].nunique() < runs.loc[runs["is_expected"], "run_id"].nunique():
        so_far = "So far, over the seeds that all methods of a cell have: "
    return f"{so_far}{_most_often_best(cells, words)}", _on_most_distorted(fair, cells, metric, words)


def _seeds_of_all(done: pd.DataFrame) -> pd.DataFrame:
    """The runs of seeds that every method of their cell has."""
    cell = ["group", "distortion"]
    methods = done.groupby(cell)["name"].transform("nunique")
    with_seed = done.groupby([*cell, "seed"])["name"].transform("nunique")
    return done[with_seed == methods]


def _most_often_best(cells: Cells, words: str) -> str:
    best = Counter(_lowest(means) for means in cells.values())
    ((name, wins),) = best.most_common(1)
    shared = [other for other, n in best.items() if n == wins and other != name]
    who = _joined([name, *shared])
    verb = "have" if shared else "has"
    if len(cells) == 1:
        return f"{who} {verb} the lowest mean {words} of {len(next(iter(cells.values())))} methods."
    each = " each" if shared else ""
    return f"{who} {verb} the lowest mean {words} in {wins} of {len(cells)} comparisons{each} (dataset and distortion)."


def _on_most_distorted(runs: pd.DataFrame, cells: Cells, metric: str, words: str) -> str:
    ratios = zip(runs["imbalance_ratio"], runs["noise_ratio"], strict=True)
    strength = dict(zip(zip(runs["group"], runs["distortion"], strict=True), ratios, strict=True))
    cell = max(cells, key=lambda cell: (strength[cell], len(cells[cell])))
    means = cells[cell]
    best = _lowest(means)
    others = {name: mean for name, mean in means.items() if name != best}
    rival = "baseline" if "baseline" in others else _lowest(others)
    of_cell = runs[(runs["group"] == cell[0]) & (runs["distortion"] == cell[1])]
    samples = {
        name: dict(zip(of_method["seed"], 100 * of_method[metric], strict=True))
        for name, of_method in of_cell.groupby("name")
        if name in (best, rival)
    }
    paired = differences(samples[best], samples[rival])
    errors = f"{100 * means[best]:.2f}% against {100 * means[rival]:.2f}% of {rival}"
    where = f"At {cell[1]} of {cell[0]}, the most distorted data compared, {best} has a {words} of {errors}"
    if paired.size < 2:
        return f"{where}; one seed says nothing of the spread."
    told = f"{where}: {_signed(float(paired.mean()))} ± {paired.std(ddof=1):.2f} points over {paired.size} common seeds"
    (interval,) = bootstrap_intervals([paired])
    if interval is not None:
        low, high = interval
        true = f", of so few seeds rather {COVERAGE[paired.size]}%" if paired.size in COVERAGE else ""
        told += f" ({CONFIDENCE:.0%} bootstrap interval{true}: {_signed(low)} to {_signed(high)})"
    told += f", paired t-test {_p(paired)}"
    return " ".join([f"{told}.", *filter(None, [too_few_pairs([paired.size])])])


def _lowest(means: Mapping[str, float]) -> str:
    return min(means, key=lambda name: means[name])


def _p(paired: Floats) -> str:
    value = paired_t_test(paired)
    return "impossible" if value is None else "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "−")


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 7200 else f"{seconds / 60:.0f} minutes"


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
