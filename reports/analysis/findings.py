"""Sentences of the summary, computed from the results: what was run, what is missing, what was found."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from autodo.text import count_of
from reports.analysis.classes import with_metric
from reports.analysis.comparison import baseline_among
from reports.analysis.stats import COVERAGE, Floats, bootstrap_intervals, differences, paired_t_tests, too_few_pairs

Cells = dict[tuple[str, str], dict[str, float]]
"""Mean of each method, by (group, distortion)."""

_CELL = ("group", "distortion", "name")
_LISTED = 5  # items in an enumeration; the rest are counted
_OWN_DATA = ("folder", "features")  # datasets of a user's own


def what_was_run(runs: pd.DataFrame) -> str:
    """A sentence on the number of finished runs, datasets, methods and seeds.

    Args:
        runs: from `comparison.named`.
    """
    done = runs[runs["error_best_val"].notna()]
    if done.empty:
        return "No run is done yet."
    parts = [
        count_of(done["dataset"].nunique(), "dataset"),
        count_of(done["distortion"].nunique(), "distortion"),
        count_of(done["name"].nunique(), "method"),
        count_of(done["seed"].nunique(), "seed"),
    ]
    return f"{count_of(len(done), 'run')} done: {_joined(parts)}; {_time(done['seconds'].sum())} of training."


def what_is_missing(runs: pd.DataFrame) -> str | None:
    """A sentence on the expected runs without a result and their cells; None if no runs are expected."""
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
    more = [count_of(len(cells) - _LISTED, "more cell")] if len(cells) > _LISTED else []
    lack = "has" if len(missing) == 1 else "have"
    return f"{len(missing)} of {count_of(len(expected), 'expected run')} {lack} no result: {_joined(listed + more)}."


def what_was_found(runs: pd.DataFrame, metric: str, words: str) -> tuple[str, ...]:
    """Sentences on how often which method is best, and by how much in the most distorted or only cell.

    If a method lacks seeds, methods are compared on the seeds that all methods of the cell have.

    Args:
        runs: from `comparison.named`.
        metric: a column of results, in [0, 1].
        words: name of the metric, such as `test error`.
    """
    runs = with_metric(runs, metric)
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
    return f"{so_far}{_most_often_best(cells, words)}", *_where_it_stands_out(fair, cells, metric, words)


def _seeds_of_all(done: pd.DataFrame) -> pd.DataFrame:
    """The runs of seeds that all methods of their cell have."""
    cell = ["group", "distortion"]
    methods = done.groupby(cell)["name"].transform("nunique")
    with_seed = done.groupby([*cell, "seed"])["name"].transform("nunique")
    return done[with_seed == methods]


def _most_often_best(cells: Cells, words: str) -> str:
    """A sentence on the methods that are most often the only best one; shared wins are counted apart."""
    best = [_lowest(means) for means in cells.values()]
    alone = Counter(names[0] for names in best if len(names) == 1)
    shared = [names for names in best if len(names) > 1]
    if len(cells) == 1:
        methods = count_of(len(next(iter(cells.values()))), "method")
        verb = "share" if shared else "has"
        return f"{_joined(best[0])} {verb} the lowest mean {words} of {methods}."
    of = "(dataset and distortion)"
    if not alone:
        sentence = f"In each of {len(cells)} comparisons {of} several methods share the lowest mean {words}"
        return f"{sentence}: {_shares(shared)}."
    wins = max(alone.values())
    who = [name for name, n in alone.items() if n == wins]
    verb, each = ("have", " each") if len(who) > 1 else ("has", "")
    by_itself = " alone" if shared else ""
    sentence = (
        f"{_joined(who)} {verb}{by_itself} the lowest mean {words} in {wins} of {len(cells)} comparisons{each} {of}"
    )
    if len(shared) == 1:
        return f"{sentence}; in 1 {_joined(shared[0])} share it."
    return f"{sentence}; in {len(shared)} several methods share it: {_shares(shared)}." if shared else f"{sentence}."


def _shares(shared: Sequence[Sequence[str]]) -> str:
    """How often each method shares the lowest mean."""
    counts = Counter(name for names in shared for name in names).most_common()
    return _joined([f"{name} in {n}" for name, n in counts[:_LISTED]] + ["others"] * (len(counts) > _LISTED))


def _where_it_stands_out(runs: pd.DataFrame, cells: Cells, metric: str, words: str) -> tuple[str, ...]:
    """A sentence on the most distorted cell, or on the only one; nothing if there are several undistorted ones."""
    first = runs.drop_duplicates(["group", "distortion"])
    strength = {
        (group, distortion): (imbalance, noise)
        for group, distortion, config, imbalance, noise in zip(
            *(first[name] for name in ("group", "distortion", "config", "imbalance_ratio", "noise_ratio")), strict=True
        )
        if (imbalance > 1 or noise > 0) and not _is_own_data(config)
    }
    distorted = [cell for cell in cells if cell in strength]
    if distorted:
        cell = max(distorted, key=lambda cell: (strength[cell], len(cells[cell])))
        return (_apart(runs, cell, cells[cell], metric, words, ", the most distorted data compared"),)
    ((cell, means), *others) = cells.items()
    return () if others else (_apart(runs, cell, means, metric, words, ""),)


def _is_own_data(config: str) -> bool:
    """Whether the dataset is a user's own, which is never called distorted."""
    dataset = json.loads(config).get("dataset")
    return isinstance(dataset, Mapping) and dataset.get("name") in _OWN_DATA


def _apart(
    runs: pd.DataFrame, cell: tuple[str, str], means: Mapping[str, float], metric: str, words: str, which: str
) -> str:
    """A sentence on the lead of a cell's best method over the baseline, or else over the second best."""
    where = f"At {cell[1]} of {cell[0]}{which}"
    best, *ties = _lowest(means)
    others = {name: mean for name, mean in means.items() if name not in (best, *ties)}
    if not others:
        return f"{where}, all methods have a {words} of {100 * means[best]:.2f}%."
    rival = baseline_among(others) or _lowest(others)[0]
    errors = f"{100 * means[best]:.2f}% against {100 * means[rival]:.2f}% of {rival}"
    if ties:
        return f"{where}, {_joined([best, *ties])} share the lowest {words}: {errors}."
    of_cell = runs[(runs["group"] == cell[0]) & (runs["distortion"] == cell[1])]
    samples = {
        name: dict(zip(of_method["seed"], 100 * of_method[metric], strict=True))
        for name, of_method in of_cell.groupby("name")
        if name in (best, rival)
    }
    paired = differences(samples[best], samples[rival])
    sentence = f"{where}, {best} has a {words} of {errors}"
    if paired.size < 2:
        return f"{sentence}; one seed does not show the spread."
    sentence += f": {_signed(float(paired.mean()))} ± {paired.std(ddof=1):.2f} points over {paired.size} common seeds"
    sentence += f", paired t-test {_p(paired)}."
    (interval,) = bootstrap_intervals([paired])
    interval_words = [] if interval is None else [_interval_words(*interval, paired.size)]
    return " ".join([sentence, *interval_words, *filter(None, [too_few_pairs([paired.size])])])


def _interval_words(low: float, high: float, seeds: int) -> str:
    between = f"between {_signed(low)} and {_signed(high)} points"
    if seeds not in COVERAGE:
        return f"The mean difference over many seeds is estimated to lie {between} (95% bootstrap interval)."
    return (
        f"The mean difference over many seeds is estimated to lie {between}; of 100 such estimates from {seeds} seeds "
        f"about {COVERAGE[seeds]} are right."
    )


def _lowest(means: Mapping[str, float]) -> list[str]:
    """Names with the lowest mean, up to rounding of sums."""
    lowest = min(round(mean, 9) for mean in means.values())
    return [name for name, mean in means.items() if round(mean, 9) == lowest]


def _p(paired: Floats) -> str:
    (value,) = paired_t_tests([paired])
    return "impossible" if value is None else "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "−")


def _time(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.1f} hours"
    return count_of(round(seconds / 60), "minute") if seconds >= 60 else count_of(round(seconds), "second")


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
