import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from reports.analysis.stats import (
    CONFIDENCE,
    COVERAGE,
    FEWEST,
    SAME,
    SIGNIFICANT,
    bootstrap_intervals,
    differences,
    mean_std,
    paired_t_tests,
    rank,
    too_few_pairs,
)


def test_constants_agree_with_the_texts_of_reports() -> None:
    assert (SIGNIFICANT, CONFIDENCE, FEWEST, SAME) == (0.05, 0.95, 3, 1e-9)


def test_mean_and_sample_standard_deviation() -> None:
    assert mean_std([1.0, 2.0, 3.0, 6.0]) == pytest.approx((3.0, (14 / 3) ** 0.5))
    assert mean_std([4.0, float("nan")]) == (4.0, None)
    assert mean_std([]) == (None, None)


def test_only_common_seeds_are_compared() -> None:
    ours, theirs = {3: 5.0, 0: 1.0, 1: 2.0, 2: math.nan}, {0: 0.5, 2: 1.0, 3: 1.0, 7: 9.0}
    assert differences(ours, theirs).tolist() == [0.5, 4.0]
    assert differences({}, theirs).tolist() == []


def test_the_paired_t_test_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 4, 10):
        a, b = rng.normal(size=n), rng.normal(0.5, size=n)
        paired = differences(dict(enumerate(a)), dict(enumerate(b)))
        assert paired_t_tests([paired]) == pytest.approx([scipy.stats.ttest_rel(a, b).pvalue])


@pytest.mark.parametrize(
    ("paired", "p"), [([], None), ([1.0], None), ([0.0, 0.0], 1.0), ([0.3, 0.3, 0.3 + 1e-12], 0.0), ([-1.0, -1.0], 0.0)]
)
def test_p_without_variance_and_under_two_pairs(paired: list[float], p: float | None) -> None:
    assert paired_t_tests([np.array(paired)]) == [p]


def test_samples_of_different_sizes_keep_their_order() -> None:
    samples = [np.arange(n) + 0.1 * np.arange(n) ** 2 - 1 for n in (4, 1, 3, 4, 0, 2, 3)]
    assert paired_t_tests(samples) == [paired_t_tests([sample])[0] for sample in samples]
    assert [p is None for p in paired_t_tests(samples)] == [False, True, False, False, True, False, False]
    equal = [np.full(3, 0.2), samples[0], np.full(2, 1e-10)]
    assert paired_t_tests(equal) == [0.0, *paired_t_tests(samples[:1]), 1.0]


def test_many_samples_have_the_same_intervals_as_each_alone() -> None:
    samples = list(np.random.default_rng(0).normal(size=(600, 4)))
    together = bootstrap_intervals(samples)
    for i in (0, 255, 256, 257, 511, 512, 599):
        assert together[i] == bootstrap_intervals([samples[i]])[0]


def test_an_interval_does_not_depend_on_its_neighbours_and_is_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    samples = [rng.normal(size=n) for n in (4, 5, 4, 4, 5)]
    together = bootstrap_intervals(samples)
    assert [bootstrap_intervals([sample])[0] for sample in samples] == together
    for sample, interval in zip(samples, together, strict=True):
        assert interval is not None
        assert sample.min() <= interval[0] < sample.mean() < interval[1] <= sample.max()


def test_the_interval_is_scipys_bca() -> None:
    sample = np.random.default_rng(3).exponential(size=12)
    ((low, high),) = [interval for interval in bootstrap_intervals([sample]) if interval]
    other = scipy.stats.bootstrap((sample,), np.mean, n_resamples=20_000, rng=np.random.default_rng(9))
    assert (low, high) == pytest.approx(tuple(other.confidence_interval), abs=0.1 * (high - low))


def test_constant_samples_and_under_three_values_have_no_interval() -> None:
    assert bootstrap_intervals([np.array([2.0, 2.0, 2.0]), np.array([1.0]), np.array([])]) == [None] * 3
    assert bootstrap_intervals([]) == []
    assert bootstrap_intervals([np.array([1.0, 2.0]), np.array([1.0, 1.0, 2.0])]) == [None, (1.0, 2.0)]


@pytest.mark.parametrize("n", COVERAGE)
def test_coverage_of_intervals_of_few_values(n: int) -> None:
    rng = np.random.default_rng(n)
    intervals = bootstrap_intervals(list(rng.normal(size=(1500, n))))
    held = np.mean([interval is not None and interval[0] < 0 < interval[1] for interval in intervals])
    assert 100 * held == pytest.approx(COVERAGE[n], abs=4)  # three standard errors


@pytest.mark.parametrize("n", range(1, 6))
def test_the_lowest_p_of_a_signed_rank_test_is_that_of_equal_signs(n: int) -> None:
    p = scipy.stats.wilcoxon(np.arange(1.0, n + 1), method="exact").pvalue
    assert f"under p = {p:g}:" in (too_few_pairs([n]) or "")


def test_too_few_seeds_have_a_sentence() -> None:
    assert too_few_pairs([6, 20]) is None
    assert too_few_pairs([]) is None
    assert (too_few_pairs([4]) or "").startswith(
        "With 4 common seeds a two-sided Wilcoxon signed-rank test cannot go under p = 0.125"
    )
    assert (too_few_pairs([2, 5, 9]) or "").startswith("With 5 common seeds or fewer a two-sided")
    assert (too_few_pairs([1]) or "").startswith("With 1 common seed a two-sided")
    assert "cannot go under p = 1:" in (too_few_pairs([0]) or "")


def errors(rows: list[list[float]], names: str = "abc") -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples([(f"group {i}", "1-0.0") for i in range(len(rows))])
    return pd.DataFrame(rows, index=index, columns=list(names))


def test_ranks_by_hand() -> None:
    # Ranks: 3 1 2 / 3 1.5 1.5 / 2 1 3 / 3 1 2.
    found = rank(errors([[9, 1, 5], [9, 2, 2], [5, 1, 9], [3, 1, 2]]), left_out=("d",))
    assert found is not None
    assert found.names == ("b", "c", "a")
    assert found.average_rank == pytest.approx([4.5 / 4, 8.5 / 4, 11 / 4])
    assert found.blocks == tuple((f"group {i}", "1-0.0") for i in range(4))
    assert found.left_out == ("d",)
    # Demšar 2006, section 3.2.2: chi2 of Friedman, with the correction for ties that scipy makes: 1 tie of 2 in 4 x 3.
    squares = sum(r**2 for r in (4.5 / 4, 8.5 / 4, 11 / 4))
    chi2 = 12 * 4 / (3 * 4) * (squares - 3 * 4**2 / 4) / (1 - (2**3 - 2) / (4 * 3 * (3**2 - 1)))
    assert found.friedman_p == pytest.approx(scipy.stats.chi2.sf(chi2, df=2))
    # Nemenyi: q = (difference of average ranks) / sqrt(k (k + 1) / 6 N), against the studentized range over sqrt 2.
    q = (11 / 4 - 4.5 / 4) / math.sqrt(3 * 4 / (6 * 4))
    assert found.p_values[0, 2] == pytest.approx(
        scipy.stats.studentized_range.sf(q * math.sqrt(2), 3, np.inf), rel=1e-4
    )
    assert np.array_equal(found.p_values, found.p_values.T)
    assert found.different == (found.friedman_p < 0.05)


def test_equal_methods_have_equal_ranks_and_are_not_different() -> None:
    found = rank(errors([[0.1 + 0.2, 0.3, 0.3]] * 3))
    assert found is not None
    assert found.average_rank.tolist() == [2.0] * 3
    assert (found.friedman_p, found.different) == (1.0, False)
    assert np.array_equal(found.p_values, np.ones((3, 3)))
    named = rank(errors([[1, 1, 1], [2, 2, 2]], "cba"))
    assert named is not None
    assert named.names == ("a", "b", "c"), "equal ones by name"


def test_two_methods_or_one_block_are_not_ranked() -> None:
    assert rank(errors([[1, 2], [1, 2], [1, 2]], "ab")) is None
    assert rank(errors([[1, 2, 3]])) is None
