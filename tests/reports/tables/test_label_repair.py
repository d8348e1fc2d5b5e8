from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import precision_recall_curve

from autodo.results import records
from orchestration.planning.plan import expected_rows
from reports.analysis.label_repair import REPAIR_COLUMNS, LabelRepair, detection_quality, label_repair
from reports.tables.label_repair import label_repair_tables
from tests.reports import synthetic

CLASSES = 4


def drawn(seed: int = 0, size: int = 200, wrong: int = 30) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, CLASSES, size)
    label = clean.copy()
    label[:wrong] = (clean[:wrong] + 1 + rng.integers(0, CLASSES - 1, wrong)) % CLASSES
    noise = label != clean
    return {
        "label": label,
        "clean_label": clean,
        "weight": (1 - 0.5 * noise + 0.4 * rng.standard_normal(size)).astype(np.float32),
        "loss": (1 + noise + rng.standard_normal(size)).astype(np.float32),
        "soft_label": rng.dirichlet(np.ones(CLASSES), size).astype(np.float32).tolist(),
    }


def test_label_repair_agrees_with_loops_over_points() -> None:
    points = drawn()
    found = label_repair(synthetic.points(**points))
    wrong = [a != b for a, b in zip(points["label"], points["clean_label"], strict=True)]
    doubt = [1 - soft[label] for soft, label in zip(points["soft_label"], points["label"], strict=True)]
    assert (found.points, found.wrong) == (200, 30)
    for part, scores in {"weight": -points["weight"], "loss": points["loss"], "soft_label": doubt}.items():
        pairs = [
            (a > b) + 0.5 * (a == b)
            for a, p in zip(scores, wrong, strict=True)
            if p
            for b, q in zip(scores, wrong, strict=True)
            if not q
        ]
        assert getattr(found, part).auroc == pytest.approx(np.mean(pairs))
        most = sorted(range(200), key=lambda i: -scores[i])[:30]
        hits = sum(wrong[i] for i in most)
        assert getattr(found, part).precision == pytest.approx(hits / 30)
        precision, recall, _ = precision_recall_curve(wrong, scores)
        assert any(np.allclose(point, hits / 30) for point in zip(precision, recall, strict=True))
    top = [int(np.argmax(soft)) for soft in points["soft_label"]]
    assert found.repaired == pytest.approx(sum(top[i] == points["clean_label"][i] for i in range(30)) / 30)
    assert found.lost == pytest.approx(sum(top[i] != points["clean_label"][i] for i in range(30, 200)) / 170)


def test_equal_scores_are_as_good_as_chance() -> None:
    wrong = np.array([True] * 3 + [False] * 7)
    found = detection_quality(np.zeros(10), wrong)
    assert found is not None
    assert tuple(found) == (0.5, pytest.approx(0.3))
    # Two are found, and one wrong and three right labels tie for the third place.
    shared = detection_quality(np.array([9.0, 8, 1, 1, 1, 1, 0, 0, 0, 0]), wrong)
    assert shared is not None
    assert shared.precision == pytest.approx((2 + 1 / 4) / 3)


def test_values_that_are_not_learned_are_none() -> None:
    points = drawn()
    found = label_repair(synthetic.points(points["label"], points["clean_label"], loss=points["loss"]))
    assert found.loss is not None
    assert (found.weight, found.soft_label, found.repaired, found.lost) == (None, None, None, None)


@pytest.mark.parametrize(
    "spoiled", ["null weight", "nan loss", "null soft label", "ragged soft labels", "label out of range"]
)
def test_damaged_columns_are_none(spoiled: str) -> None:
    points = drawn()
    if spoiled == "null weight":
        points["weight"] = [None, *points["weight"][1:]]
    elif spoiled == "nan loss":
        points["loss"][5] = np.nan
    elif spoiled == "null soft label":
        points["soft_label"][5] = None
    elif spoiled == "ragged soft labels":
        points["soft_label"][5] = [0.5, 0.5]
    else:
        points["label"][0] = CLASSES
    found = label_repair(synthetic.points(**points))
    assert (found.weight is None) == (spoiled == "null weight")
    assert (found.loss is None) == (spoiled == "nan loss")
    assert (found.repaired is None) == ("label" in spoiled)


def test_without_wrong_labels_there_is_no_quality() -> None:
    points = drawn(wrong=0)
    assert label_repair(synthetic.points(**points)) == LabelRepair(200, 0)
    assert label_repair(records.SCHEMAS["points"].empty_table()) == LabelRepair(0, 0)
    everything = drawn(size=20, wrong=20)
    found = label_repair(synthetic.points(**everything))
    assert (found.wrong, found.weight, found.lost) == (20, None, None)
    assert found.repaired is not None


def test_chunks_and_slices_are_read_as_the_whole() -> None:
    whole = synthetic.points(**drawn())
    parts = pa.concat_tables([whole.slice(0, 70), whole.slice(70)])
    assert set(REPAIR_COLUMNS) == set(parts.column_names)
    assert label_repair(parts) == label_repair(whole)
    assert label_repair(whole.slice(10)) == label_repair(pa.table(whole.slice(10).to_pydict(), schema=whole.schema))


def test_tables_are_means_over_seeds() -> None:
    rows = synthetic.grid(("svhn",), ("1-0.0", "100-0.1"), {"baseline": 0.3, "autodo-aws": 0.1}, seeds=3)
    repairs = {}
    for i, (run, _) in enumerate(rows):
        points = drawn(i, wrong=30 if run.distortion.noise_ratio else 0)
        kept = list(points) if run.method.name == "autodo-aws" else ["label", "clean_label", "loss"]
        repairs[run.run_id] = label_repair(synthetic.points(**{name: points[name] for name in kept}))
    of_seed_2 = rows[-1][0].run_id
    missing = {run_id: repair for run_id, repair in repairs.items() if run_id != of_seed_2}
    found, repaired = label_repair_tables(synthetic.results(rows, expected_rows(run for run, _ in rows)), missing)
    assert [row.name for row in found.rows] == [
        "baseline: loss", "autodo-aws: low weight", "autodo-aws: soft label", "autodo-aws: loss"
    ]  # fmt: skip
    assert [(row.whole, row.part) for row in found.rows] == [
        ("baseline", "loss"), ("autodo-aws", "low weight"), ("autodo-aws", "soft label"), ("autodo-aws", "loss")
    ]  # fmt: skip
    assert [(row.whole, row.part) for row in repaired.rows] == [("autodo-aws", "")]
    assert found.title == repaired.title == "svhn (wrn-28-10, 200 epochs), 100-0.1"
    assert {(t.group, t.distortion) for t in (found, repaired)} == {("svhn (wrn-28-10, 200 epochs)", "100-0.1")}
    assert any("here 15.0%" in note for note in found.notes)
    noisy = [run.run_id for run, _ in rows if run.distortion.noise_ratio]
    losses = [repairs[run_id].loss for run_id in noisy[:3]]
    assert found.rows[0].cells[0].mean == pytest.approx(np.mean([loss.auroc for loss in losses if loss]))
    assert found.rows[0].cells[0].std == pytest.approx(np.std([loss.auroc for loss in losses if loss], ddof=1))
    weights = [repairs[run_id].weight for run_id in noisy[3:5]]
    assert found.rows[1].cells[1].mean == pytest.approx(100 * np.mean([w.precision for w in weights if w]))
    assert (found.rows[1].cells[1].n, found.rows[1].cells[1].expected) == (2, 3)
    (row,) = repaired.rows
    of_two = [repairs[run_id] for run_id in noisy[3:5]]
    assert row.cells[0].mean == pytest.approx(100 * np.mean([r.repaired for r in of_two]))
    assert row.cells[1].mean == pytest.approx(100 * np.mean([r.lost for r in of_two]))
    assert label_repair_tables(synthetic.results(rows), {}) == []
