"""Statistics over seeds. A sample holds a method's values by seed, so that methods are compared seed by seed."""

import dataclasses
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from autodo.text import count_of

Floats = NDArray[np.float64]
Sample = Mapping[int, float]
"""Values by seed, NaN where there is no result."""

SIGNIFICANT = 0.05
CONFIDENCE = 0.95
FEWEST = 3
"""Fewest values with a confidence interval."""
COVERAGE = {3: 72, 4: 80, 5: 84, 6: 87, 7: 87, 8: 88}
"""How often `bootstrap_intervals` contains the mean of n normal differences, in percent, by n.

Measured on 3,000 samples each (tests/reports/analysis/test_stats.py); few values show too little of their spread.
"""
_RESAMPLES = 2000
_BATCH = 100  # resamples computed at once, to bound memory
SAME = 1e-9  # smaller differences of percentages are rounding errors


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (ddof = 1) over the values that are not NaN.

    Returns:
        (None, None) for no value; the standard deviation is None under two values.
    Shape:
        values [n].
    """
    known = np.asarray([value for value in values if value is not None and not np.isnan(value)], dtype=float)
    if known.size == 0:
        return None, None
    return float(known.mean()), float(known.std(ddof=1)) if known.size > 1 else None


def differences(ours: Sample, theirs: Sample) -> Floats:
    """Ours minus theirs for each seed that both have, in order of the seeds.

    Shape:
        -> [n] float64, n from 0.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    values = np.array([ours[seed] - theirs[seed] for seed in seeds], dtype=float)
    return values[np.isfinite(values)]


def _by_size(samples: Sequence[Floats], fewest: int) -> Iterator[tuple[list[int], Floats]]:
    """Positions and values [S, n] of samples of one size n, for each n from `fewest`; without constant samples."""
    sizes: dict[int, list[int]] = {}
    for i, sample in enumerate(samples):
        if sample.size >= fewest and np.ptp(sample) > SAME:
            sizes.setdefault(sample.size, []).append(i)
    for positions in sizes.values():
        yield positions, np.stack([samples[i] for i in positions])


def paired_t_tests(samples: Sequence[Floats]) -> list[float | None]:
    """Two-sided p of paired t-tests on differences by seed (scipy.stats.ttest_1samp, which ttest_rel is).

    Returns:
        None under two pairs. If all differences of a sample are equal it has no variance: 1 if they are 0, else 0.
    Shape:
        each sample [n], n its own.
    """
    import scipy.stats  # slow to import, and not needed by most tables

    found = [None if sample.size < 2 else 1.0 if abs(float(sample.mean())) <= SAME else 0.0 for sample in samples]
    for positions, stacked in _by_size(samples, 2):  # one call for many tests is faster
        for i, p in zip(positions, scipy.stats.ttest_1samp(stacked, 0.0, axis=1).pvalue.tolist(), strict=True):
            found[i] = p
    return found


def bootstrap_intervals(samples: Sequence[Floats]) -> list[tuple[float, float] | None]:
    """95% confidence intervals of the means, by the BCa bootstrap, or the percentile bootstrap if BCa is undefined.

    The interval of a sample does not depend on the other samples.

    Returns:
        None for a sample of under three values, because the interval of two is just these two, and for one whose
        values are all equal.
    Shape:
        each sample [n], n its own.
    Reference: Efron, Better bootstrap confidence intervals, 1987; scipy.stats.bootstrap.
    """
    intervals: list[tuple[float, float] | None] = [None] * len(samples)
    for positions, stacked in _by_size(samples, FEWEST):
        low, high = _bootstrap(stacked, "BCa")
        undefined = ~(np.isfinite(low) & np.isfinite(high))
        if undefined.any():
            low[undefined], high[undefined] = _bootstrap(stacked[undefined], "percentile")
        for i, bounds in zip(positions, zip(low.tolist(), high.tolist(), strict=True), strict=True):
            intervals[i] = bounds
    return intervals


def _bootstrap(stacked: Floats, method: str) -> tuple[Floats, Floats]:
    import scipy.stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)  # gives NaN, which the caller handles
        found = scipy.stats.bootstrap(
            (stacked,),
            np.mean,
            axis=-1,
            vectorized=True,
            confidence_level=CONFIDENCE,
            n_resamples=_RESAMPLES,
            batch=_BATCH,
            method=method,
            rng=np.random.default_rng(0),
        )
    low, high = found.confidence_interval
    return np.atleast_1d(low).astype(float), np.atleast_1d(high).astype(float)


def too_few_pairs(counts: Collection[int]) -> str | None:
    """A sentence if some numbers of common seeds are too few for a signed-rank test, else None.

    The lowest possible two-sided p of the Wilcoxon signed-rank test of n pairs is 2^(1 - n).
    """
    few = [count for count in counts if 2.0 ** (1 - count) >= SIGNIFICANT]
    if not few:
        return None
    most, fewer = max(few), " or fewer" if min(few) < max(few) else ""
    return (
        f"With {count_of(most, 'common seed')}{fewer} a two-sided Wilcoxon signed-rank test cannot go "
        f"under p = {min(1.0, 2.0 ** (1 - most)):g}: too few to find a difference between two methods."
    )


@dataclasses.dataclass(frozen=True)
class Ranks:
    """How methods rank across cells; 1 is the lowest value.

    Args:
        names: methods, the best first.
        friedman_p: of the Friedman test of the hypothesis that all methods are equal.
        blocks: the (group, distortion) cells that are complete for all methods.
        left_out: methods with too few complete cells.
    Shape:
        average_rank [M]; p_values [M, M], Nemenyi, symmetric, 1 on the diagonal.
    """

    names: tuple[str, ...]
    average_rank: Floats
    p_values: Floats
    friedman_p: float
    blocks: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...] = ()

    @property
    def different(self) -> bool:
        """Whether the Friedman test finds a difference; otherwise Nemenyi's test means nothing."""
        return self.friedman_p < SIGNIFICANT


def rank(values: pd.DataFrame, left_out: tuple[str, ...] = ()) -> Ranks | None:
    """Average ranks of methods over blocks (1 is the lowest value), Friedman's test and Nemenyi's post-hoc test.

    Args:
        values: blocks, (group, distortion), down and methods across, without holes.
    Returns:
        None for under three methods, for which there is no Friedman test, or under two blocks.
    Reference: Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 2006.
    """
    if values.shape[1] < 3 or values.shape[0] < 2:
        return None
    import scikit_posthocs  # imports pyplot, which takes seconds
    import scipy.stats

    values = values.round(9)  # sums in another order differ in the last digits
    average = values.rank(axis=1).mean(axis=0)
    order = sorted(range(values.shape[1]), key=lambda i: (average.iloc[i], str(values.columns[i])))
    values, average = values.iloc[:, order], average.iloc[order]
    same = bool((values.nunique(axis=1) == 1).all())  # then the statistic is 0 / 0
    columns = [values.iloc[:, i].to_numpy() for i in range(values.shape[1])]
    return Ranks(
        names=tuple(str(name) for name in values.columns),
        average_rank=average.to_numpy(dtype=float),
        p_values=scikit_posthocs.posthoc_nemenyi_friedman(values.to_numpy()).to_numpy(dtype=float),
        friedman_p=1.0 if same else float(scipy.stats.friedmanchisquare(*columns).pvalue),
        blocks=tuple((str(group), str(distortion)) for group, distortion in values.index),
        left_out=left_out,
    )
