import itertools
from pathlib import Path

import numpy as np
import pytest

from autodo.results import records
from reports.analysis.label_repair import detection_quality
from reports.label_errors.quality import QUALITY_COLUMNS, label_quality, quality_table
from reports.label_errors.rankings import RANKINGS
from reports.readers.load import reduce_runs
from tests.reports.label_errors.points import learned, random_table


def auroc(key: np.ndarray, wrong: np.ndarray) -> float:
    """Over all pairs of a wrong and a right label; half a point for equal keys."""
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(key[wrong], key[~wrong])]
    return float(np.mean(pairs))


def precision(key: np.ndarray, wrong: np.ndarray) -> float:
    """The mean over every order of the points that has the higher key first."""
    orders = [order for order in itertools.permutations(range(len(key))) if (np.diff(key[list(order)]) <= 0).all()]
    return float(np.mean([wrong[list(order[: wrong.sum()])].mean() for order in orders]))


@pytest.mark.parametrize("seed", range(4))
def test_quality_is_that_of_all_pairs_and_all_orders(seed: int) -> None:
    draw = np.random.default_rng(seed)
    key, wrong = draw.integers(4, size=7).astype(float), np.arange(7) < 3
    found = detection_quality(key, wrong)
    assert found == pytest.approx((auroc(key, wrong), precision(key, wrong)))


def test_a_key_that_says_nothing_is_as_good_as_chance() -> None:
    assert detection_quality(np.ones(10), np.arange(10) < 2) == pytest.approx((0.5, 0.2))


def test_the_quality_of_many_runs_is_read_from_few_columns(tmp_path: Path) -> None:
    for run, columns in {"plain": {}, "learned": learned(200, 5)}.items():
        records.write("points", random_table(**columns, run_id=[run] * 200), tmp_path / "points" / f"{run}.parquet")
    found, warnings = reduce_runs(tmp_path, "points", ["plain", "learned"], QUALITY_COLUMNS, label_quality)
    assert warnings == ()
    assert set(found["plain"]) == {"loss", "loss-in-class"}
    assert set(found["learned"]) == {name for name, ranking in RANKINGS.items() if not ranking.slow}
    points = random_table(**learned(200, 5)).to_pandas()
    wrong = (points["label"] != points["clean_label"]).to_numpy()
    doubt = 1 - np.stack(points["soft_label"])[np.arange(200), points["label"]]
    first = np.argsort(-doubt, kind="stable")[: wrong.sum()]
    assert found["learned"]["soft-label"] == pytest.approx((auroc(doubt, wrong), wrong[first].mean()))


def test_where_no_label_is_known_to_be_wrong_there_is_no_quality() -> None:
    table = random_table()
    assert (
        label_quality(table.set_column(table.schema.get_field_index("clean_label"), "clean_label", table["label"]))
        == {}
    )


def test_a_table_that_cannot_be_used_is_a_hole() -> None:
    assert label_quality(random_table(weight=[None] + [1.0] * 199)) == {}


def test_the_table_marks_the_best_and_puts_it_first() -> None:
    table = quality_table(label_quality(random_table(**learned(200, 5))), wrong=35, points=200)
    assert table.title == "35 of 200 labels are known to be wrong"
    assert table.rows[0].name in ("loss", "loss-in-class")
    for column in range(2):
        means = {row.name: row.cells[column].mean for row in table.rows}
        best = {row.name for row in table.rows if row.cells[column].best}
        assert best == {name for name, mean in means.items() if mean == max(means.values())}
