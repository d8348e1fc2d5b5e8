import itertools

import numpy as np
import pyarrow as pa
import pytest

from reports.analysis.label_repair import DetectionQuality, detection_quality
from reports.label_errors.quality import qualities, quality_table
from reports.label_errors.rankings import RANKINGS, keys_of
from reports.label_errors.signals import read_signals
from tests.reports.label_errors.points import learned, random_table


def auroc(key: np.ndarray, wrong: np.ndarray) -> float:
    """AUROC as the mean over all pairs of a wrong and a right label; equal keys count half."""
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(key[wrong], key[~wrong])]
    return float(np.mean(pairs))


def precision(key: np.ndarray, wrong: np.ndarray) -> float:
    """Mean over all orders of the points with higher keys first."""
    orders = [order for order in itertools.permutations(range(len(key))) if (np.diff(key[list(order)]) <= 0).all()]
    return float(np.mean([wrong[list(order[: wrong.sum()])].mean() for order in orders]))


@pytest.mark.parametrize("seed", range(4))
def test_quality_agrees_with_all_pairs_and_all_orders(seed: int) -> None:
    draw = np.random.default_rng(seed)
    key, wrong = draw.integers(4, size=7).astype(float), np.arange(7) < 3
    found = detection_quality(key, wrong)
    assert found == pytest.approx((auroc(key, wrong), precision(key, wrong)))


def test_a_constant_key_is_as_good_as_chance() -> None:
    assert detection_quality(np.ones(10), np.arange(10) < 2) == pytest.approx((0.5, 0.2))


def qualities_of(table: pa.Table) -> dict[str, DetectionQuality]:
    signals = read_signals(table.to_batches(), 5)
    return qualities(signals, keys_of(signals)[0])


def test_quality_compares_keys_with_the_changed_labels() -> None:
    table = random_table(**learned(200, 5))
    found = qualities_of(table)
    assert set(found) == set(RANKINGS)
    points = table.to_pandas()
    wrong = (points["label"] != points["clean_label"]).to_numpy()
    doubt = 1 - np.stack(points["soft_label"])[np.arange(200), points["label"]]
    first = np.argsort(-doubt, kind="stable")[: wrong.sum()]
    assert found["soft-label"] == pytest.approx((auroc(doubt, wrong), wrong[first].mean()))
    unknown = table.set_column(table.schema.get_field_index("clean_label"), "clean_label", table["label"])
    assert qualities_of(unknown) == {}


def test_the_table_marks_the_best_and_puts_it_first() -> None:
    points = random_table(**learned(200, 5))
    table = quality_table(qualities_of(points), read_signals(points.to_batches(), 5))
    assert table.title == "32 of 200 labels are known to be wrong"
    assert table.rows[0].cells[1].best
    for column in range(2):
        means = {row.name: row.cells[column].mean for row in table.rows}
        best = {row.name for row in table.rows if row.cells[column].best}
        assert best == {name for name, mean in means.items() if mean == max(means.values())}
