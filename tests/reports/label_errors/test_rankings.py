import dataclasses
import warnings

import numpy as np
import pyarrow as pa
import pytest
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

from autodo.results import records
from reports.label_errors.ranked_labels import rank_labels
from reports.label_errors.rankings import CLEANLAB_LIMIT, DEFAULT, RANKINGS, MissingSignal, keys_of
from reports.label_errors.signals import Signals, read_signals
from reports.readers.column_checks import UnusableFile
from tests.reports.conftest import make
from tests.reports.label_errors.points import NAMES, learned, points_table, random_table
from tests.runs import outcome, result_row

P = np.array([[0.7, 0.2, 0.1], [0.7, 0.1, 0.2], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]])
SOFT = [[0.6, 0.3, 0.1], [0.2, 0.1, 0.7], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]]


def signals_of(table: pa.Table, classes: int) -> Signals:
    return read_signals(table.to_batches(), classes)


def test_the_default_sorts_by_loss() -> None:
    labels = rank_labels(points_table(P, [0, 1, 1, 0]), NAMES)
    assert labels.index.tolist() == [10, 30, 20, 0]
    assert labels.score == pytest.approx([0.9, 0.75, 0.4, 0.3])
    assert labels.loss == pytest.approx(-np.log([0.1, 0.25, 0.6, 0.7]))
    assert (labels.weight, labels.soft_label, labels.wrong) == (None, None, None)


def test_the_proposal_is_the_most_probable_other_class() -> None:
    labels = rank_labels(points_table(P, [0, 1, 1, 2], soft_label=SOFT), NAMES)
    proposed = dict(zip(labels.index.tolist(), map(labels.name, labels.proposed.tolist()), strict=True))
    assert proposed == {0: "dog", 10: "cat", 20: "bird", 30: "cat"}


def test_each_learned_signal_sorts_by_itself_and_the_average_by_mean_rank() -> None:
    table = points_table(P, [0, 1, 1, 0], weight=[0.5, 0.4, 0.1, 2.0], soft_label=SOFT)
    order = {name: rank_labels(table, NAMES, name).index.tolist() for name in ("weight", "soft-label", "average")}
    # Suspicion rises with: loss 0 2 3 1, weight 3 0 1 2, soft label 0 2 {1, 3}; ranks are added per point.
    ranks = {0: 1 + 2 + 1, 1: 4 + 3 + 3.5, 2: 2 + 4 + 2, 3: 3 + 1 + 3.5}
    assert order["weight"] == [20, 10, 0, 30]
    assert order["soft-label"] == [10, 30, 20, 0]
    assert order["average"] == [10 * point for point in sorted(ranks, key=lambda point: -ranks[point])]
    assert rank_labels(table, NAMES, "average").score == pytest.approx(np.sort(list(ranks.values()))[::-1] / 12)


def test_loss_in_class_ranks_within_the_points_of_the_given_label() -> None:
    table = random_table(n=50)
    key = keys_of(signals_of(table, 5), ["loss-in-class"])[0]["loss-in-class"]
    frame = table.select(["label", "loss"]).to_pandas()
    assert key == pytest.approx(frame.groupby("label")["loss"].rank(pct=True).to_numpy())


def test_equal_points_keep_their_order() -> None:
    labels = rank_labels(points_table(P, [0, 1, 1, 0], weight=[1.0, 0.5, 1.0, 0.5]), NAMES, "weight")
    assert labels.index.tolist() == [10, 30, 0, 20]


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_up_to_ten_classes_cleanlab_gets_the_exact_probabilities(classes: int) -> None:
    draw = np.random.default_rng(classes)
    given = draw.integers(classes, size=300)
    p = draw.dirichlet(np.full(classes, 0.3) + 0.01, 300)
    keys, lacking = keys_of(signals_of(points_table(np.clip(p, 1e-6, None), given), classes))
    assert set(lacking) == {"weight", "soft-label", "average"}
    p = np.clip(p, 1e-6, None)
    margin = get_label_quality_scores(given, p, method="normalized_margin")
    adjusted = get_label_quality_scores(given, p, method="normalized_margin", adjust_pred_probs=True)
    assert keys["margin"] == pytest.approx(1 - margin, abs=1e-6)
    assert keys["adjusted-margin"] == pytest.approx(1 - adjusted, abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        issues = find_label_issues(given, p, n_jobs=1)
    assert (keys["confident-learning"] - keys["margin"]).round().astype(bool).tolist() == issues.tolist()


def test_loss_is_the_order_of_cleanlabs_self_confidence() -> None:
    draw = np.random.default_rng(0)
    given, p = draw.integers(4, size=100), draw.dirichlet(np.ones(4), 100)
    trust = get_label_quality_scores(given, p, method="self_confidence")
    assert rank_labels(points_table(p, given), list("abcd"), "loss").index.tolist() == (10 * np.argsort(trust)).tolist()


def test_of_more_classes_the_rest_is_spread_evenly() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(30), 20)
    rebuilt = signals_of(points_table(p, np.zeros(20, int)), 30).probabilities
    assert rebuilt.sum(1) == pytest.approx(1)
    for row, true in zip(rebuilt, p, strict=True):
        top = np.argsort(-true)[:10]
        assert row[top] == pytest.approx(true[top])
        assert np.delete(row, top) == pytest.approx((1 - true[top].sum()) / 20)


def test_missing_signals_are_named() -> None:
    table = random_table()
    keys, lacking = keys_of(signals_of(table, 5))
    assert set(keys) == {"loss", "loss-in-class", "margin", "adjusted-margin", "confident-learning"}
    assert lacking["weight"] == "the method does not learn what it needs"
    with pytest.raises(MissingSignal, match="the method does not learn what it needs"):
        rank_labels(table, list("abcde"), "soft-label")
    with pytest.raises(MissingSignal, match="unknown ranking 'wait'; known: loss, "):
        rank_labels(table, list("abcde"), "wait")


def test_many_points_of_many_classes_need_no_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.label_errors.rankings.CLEANLAB_LIMIT", 999)
    keys, lacking = keys_of(signals_of(random_table(), 5))
    assert "loss" in keys
    assert lacking["confident-learning"] == "points x classes are 1,000, more than 999"
    assert CLEANLAB_LIMIT >= 200_000 * 100


def test_parts_of_a_table_give_the_same_keys_as_the_whole() -> None:
    table = random_table(**learned(200, 5))
    parts = read_signals(table.to_batches(max_chunksize=33), 5)
    for name in RANKINGS:
        assert keys_of(parts, [name])[0][name].tolist() == keys_of(signals_of(table, 5), [name])[0][name].tolist()
    assert rank_labels(table, list("abcde"), DEFAULT).first(3).index.tolist() == (
        rank_labels(table, list("abcde"), DEFAULT).index[:3].tolist()
    )


def test_a_slice_of_a_table_reads_its_own_lists() -> None:
    table = random_table(**learned(200, 5))
    piece = table.slice(50, 60)
    whole, part = signals_of(table, 5), signals_of(piece, 5)
    assert part.soft_label is not None
    assert whole.soft_label is not None
    assert part.soft_label.tolist() == whole.soft_label[50:110].tolist()


def replaced(table: pa.Table, name: str, values: object, kind: pa.DataType | None = None) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, pa.array(values, kind or table.schema.field(name).type))


@pytest.mark.parametrize(
    ("column", "values", "kind", "message"),
    [
        ("label", [0, 1, 3, 0], None, "label: 0..3, but classes are 0..2"),
        ("prediction", [0, -1, 1, 0], None, "prediction: -1..1, but classes are 0..2"),
        ("label", [0, 1, None, 0], None, "label: null"),
        ("label", ["0", "cat", "1", "1"], pa.string(), "Failed to parse string: 'cat'"),
        ("index", [1, 2, 2, 3], None, "index: a train point occurs twice"),
        ("loss", [1.0, float("nan"), 1.0, 1.0], None, "loss: not a number in some rows"),
        ("loss", [1.0, None, 1.0, 1.0], None, "loss: not a number in some rows"),
        ("loss", [None] * 4, None, "loss: null"),
        ("weight", [1.0, None, 1.0, 1.0], None, "weight: not a number in some rows"),
        ("soft_label", [[0.5, 0.5]] * 4, None, "soft_label: 2 values, but 3 classes"),
        ("soft_label", [[0.5, 0.5, 0.0]] * 3 + [[1.0]], None, "soft_label: not as many values in each row"),
        ("top_classes", [[0, 1, 5]] * 4, None, "top_classes: not different classes of 0..2"),
        ("top_classes", [[0, 1, 1]] * 4, None, "top_classes: not different classes of 0..2"),
        ("top_classes", [[0, 1]] * 4, None, "top_classes: not one for each of top_probabilities"),
        ("top_probabilities", [[0.9, 0.9, 0.9]] * 4, None, "top_probabilities: not probabilities"),
        ("top_probabilities", [[0.9, None, 0.1]] * 4, None, "top_probabilities: not a number in some rows"),
    ],
)
def test_impossible_values_are_named(column: str, values: object, kind: pa.DataType | None, message: str) -> None:
    with pytest.raises(UnusableFile) as caught:
        rank_labels(replaced(points_table(P, [0, 1, 1, 0]), column, values, kind), NAMES)
    assert message in str(caught.value)


def test_a_table_without_a_column_or_rows_is_named() -> None:
    table = points_table(P, [0, 1, 1, 0])
    with pytest.raises(UnusableFile, match="it has no column 'loss'"):
        rank_labels(table.drop_columns(["loss"]), NAMES)
    with pytest.raises(UnusableFile, match="it has no rows"):
        rank_labels(table.slice(0, 0), NAMES)


def test_a_column_that_is_null_in_one_part_only_is_named() -> None:
    table = points_table(P, [0, 1, 1, 0], weight=[1.0, 1.0, None, None])
    with pytest.raises(UnusableFile, match="weight: null in some rows"):
        read_signals(table.to_batches(max_chunksize=2), 3)


def test_an_outcome_lists_its_points_in_the_order_of_the_default() -> None:
    table = random_table()
    results = records.table("results", [result_row(make(), class_names=list("abcde"))])
    suspicious = dataclasses.replace(outcome(make()), results=results, points=table).suspicious_points()
    assert suspicious["index"].to_pylist() == rank_labels(table, list("abcde")).index.tolist()
