"""Statistics over seeds. A sample is a method's values on a distortion by seed: methods are compared seed by seed."""

import dataclasses
import warnings
from collections.abc import Collection, Mapping, Sequence

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
"""Values that have a confidence interval."""
COVERAGE = {3: 72, 4: 80, 5: 84, 6: 87, 7: 87, 8: 88}
"""How often `bootstrap_intervals` contains the mean of n normal differences, in percent, by n.

Measured on 3,000 samples each (tests/reports/analysis/test_stats.py); few values show too little of their spread.
"""
_RESAMPLES = 2000
_AT_ONCE = 256  # samples that are resampled together: 16 MB at four seeds
SAME = 1e-9  # differences of percentages below this are rounding: means of sums in another order


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
    """Ours minus theirs for every seed that both have, in order of the seeds.

    Shape:
        -> [n] float64, n from 0.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    values = np.array([ours[seed] - theirs[seed] for seed in seeds], dtype=float)
    return values[np.isfinite(values)]


def paired_t_test(paired: Floats) -> float | None:
    """Two-sided p of the paired t-test on differences by seed, as `paired_t_tests`."""
    return paired_t_tests([paired])[0]


def paired_t_tests(samples: Sequence[Floats]) -> list[float | None]:
    """Two-sided p of paired t-tests on differences by seed (scipy.stats.ttest_1samp, which ttest_rel is).

    Returns:
        None under two pairs. Where all differences are the same there is no variance to test against: 1 if they are 0,
        else 0.
    Shape:
        each sample [n], n its own.
    """
    import scipy.stats  # takes a second, and most tables are made without it

    found: list[float | None] = [None] * len(samples)
    by_size: dict[int, list[int]] = {}
    for i, paired in enumerate(samples):
        if paired.size < 2:
            continue
        if np.ptp(paired) <= SAME:
            found[i] = 1.0 if abs(float(paired.mean())) <= SAME else 0.0
        else:
            by_size.setdefault(paired.size, []).append(i)
    for places in by_size.values():  # a call takes longer than a test
        p_values = scipy.stats.ttest_1samp(np.stack([samples[i] for i in places]), 0.0, axis=1).pvalue
        for i, p in zip(places, p_values.tolist(), strict=True):
            found[i] = p
    return found


def bootstrap_intervals(samples: Sequence[Floats]) -> list[tuple[float, float] | None]:
    """95% confidence intervals of the means, by the BCa bootstrap; the percentile bootstrap where BCa has no answer.

    The same sample has the same interval whatever stands beside it.

    Returns:
        None for a sample of under three values, because the interval of two is just these two, or whose values are all
        the same: these say nothing of their spread.
    Shape:
        each sample [n], n its own.
    Reference: Efron, Better bootstrap confidence intervals, 1987; scipy.stats.bootstrap.
    """
    intervals: list[tuple[float, float] | None] = [None] * len(samples)
    by_size: dict[int, list[int]] = {}
    for i, sample in enumerate(samples):
        if sample.size >= FEWEST and np.ptp(sample) > SAME:
            by_size.setdefault(sample.size, []).append(i)
    for places in by_size.values():
        for start in range(0, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            stacked = np.stack([samples[i] for i in some])
            low, high = _bootstrap(stacked, "BCa")
            undefined = ~(np.isfinite(low) & np.isfinite(high))
            if undefined.any():
                low[undefined], high[undefined] = _bootstrap(stacked[undefined], "percentile")
            for i, bounds in zip(some, zip(low.tolist(), high.tolist(), strict=True), strict=True):
                intervals[i] = bounds
    return intervals


def _bootstrap(stacked: Floats, method: str) -> tuple[Floats, Floats]:
    import scipy.stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)  # NaN then, which the caller sees
        found = scipy.stats.bootstrap(
            (stacked,),
            np.mean,
            axis=-1,
            vectorized=True,
            confidence_level=CONFIDENCE,
            n_resamples=_RESAMPLES,
            method=method,
            rng=np.random.default_rng(0),
        )
    low, high = found.confidence_interval
    return np.atleast_1d(low).astype(float), np.atleast_1d(high).astype(float)


def smallest_wilcoxon_p(pairs: int) -> float:
    """The lowest two-sided p that a Wilcoxon signed-rank test of so many pairs can have: 2^(1 - n)."""
    return min(1.0, 2.0 ** (1 - pairs))


def too_few_pairs(counts: Collection[int]) -> str | None:
    """A sentence on what so many common seeds cannot show; None if all are enough for a signed-rank test."""
    few = [count for count in counts if smallest_wilcoxon_p(count) >= SIGNIFICANT]
    if not few:
        return None
    most, fewer = max(few), " or fewer" if min(few) < max(few) else ""
    return (
        f"With {count_of(most, 'common seed')}{fewer} a two-sided Wilcoxon signed-rank test cannot go "
        f"under p = {smallest_wilcoxon_p(most):g}: too few for it to tell two methods apart."
    )


@dataclasses.dataclass(frozen=True)
class Ranks:
    """How methods rank across cells; 1 is the lowest value.

    Args:
        names: of the methods, the best first.
        friedman_p: of the Friedman test that all methods are equal.
        blocks: the (group, distortion) cells that are complete for all of them.
        left_out: methods that have too few complete cells to be compared.
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
        """Whether the Friedman test finds a difference, without which Nemenyi's says nothing."""
        return self.friedman_p < SIGNIFICANT


def rank(values: pd.DataFrame, left_out: tuple[str, ...] = ()) -> Ranks | None:
    """Average ranks of methods over blocks, with Friedman's test and Nemenyi's after it; the lowest value ranks first.

    Args:
        values: blocks, (group, distortion), down and methods across, without holes.
    Returns:
        None for under three methods, for which there is no Friedman test, or under two blocks.
    Reference: Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 2006.
    """
    if values.shape[1] < 3 or values.shape[0] < 2:
        return None
    import scikit_posthocs  # here, because it brings pyplot and takes seconds
    import scipy.stats

    values = values.round(9)  # equal up to the order of a sum is equal
    average = values.rank(axis=1).mean(axis=0)
    order = sorted(range(values.shape[1]), key=lambda i: (average.iloc[i], str(values.columns[i])))
    values, average = values.iloc[:, order], average.iloc[order]
    same = bool((values.nunique(axis=1) == 1).all())  # the statistic is then 0 / 0
    columns = [values.iloc[:, i].to_numpy() for i in range(values.shape[1])]
    return Ranks(
        names=tuple(str(name) for name in values.columns),
        average_rank=average.to_numpy(dtype=float),
        p_values=scikit_posthocs.posthoc_nemenyi_friedman(values.to_numpy()).to_numpy(dtype=float),
        friedman_p=1.0 if same else float(scipy.stats.friedmanchisquare(*columns).pvalue),
        blocks=tuple((str(group), str(distortion)) for group, distortion in values.index),
        left_out=left_out,
    )
