import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from autodo.augment import affine
from reports.figures.choices import choose
from reports.figures.hyperparameters import draw_strengths, draw_weights, hyperparameter_figures
from reports.figures.points import (
    GROUPS,
    OPERATIONS,
    SHARE_EDGES,
    WEIGHT_EDGES,
    PointSummary,
    point_summaries,
    quantiles,
)
from tests.reports.figures.stores import Store


def test_operations_and_ranges_are_those_of_the_augmentation() -> None:
    assert list(OPERATIONS) == list(affine.WARP_OPERATIONS)
    assert list(OPERATIONS.values()) == pytest.approx(list(affine.WARP_OPERATIONS.values()))


def summary(store: Store, run_id: str, minority: Sequence[int] = ()) -> PointSummary:
    summaries, warnings = point_summaries(store.root, [run_id], len(store.classes), minority)
    assert warnings == ()
    return summaries[run_id]


def test_points_are_counted_by_noise_and_imbalance(store: Store) -> None:
    run_id = store.add("autodo-aws")
    found, written = summary(store, run_id, minority=[0, 7]), store.written["points", run_id]
    wrong, minority = written["label"] != written["clean_label"], np.isin(written["clean_label"], [0, 7])
    assert found.weight is not None
    assert found.gate is not None
    assert found.magnitude is not None
    for i, name in enumerate(GROUPS):
        mine = (wrong == name.startswith("wrong")) & (minority == name.endswith("minority"))
        assert found.size[i] == mine.sum() > 0
        weight = written["weight"][mine].astype(np.float32)
        assert found.weight[i].tolist() == np.histogram(weight, WEIGHT_EDGES)[0].tolist()
        for k, largest in enumerate(OPERATIONS.values()):
            gate = np.stack(written["gate_probability"])[mine, k].astype(np.float32)
            share = np.stack(written["magnitude"])[mine, k].astype(np.float32) / largest
            assert found.gate[i, k].tolist() == np.histogram(gate, SHARE_EDGES)[0].tolist()
            assert found.magnitude[i, k].tolist() == np.histogram(share, SHARE_EDGES)[0].tolist()


def test_values_that_were_not_learned_are_not_counted(store: Store) -> None:
    found = summary(store, store.add("baseline"))
    assert found.size.sum() == store.train_points
    assert (found.weight, found.gate, found.magnitude) == (None, None, None)


def test_very_large_weights_are_in_the_last_bin_and_nan_in_none(store: Store) -> None:
    run_id = store.add("autodo-aws")
    path = store.path("points", run_id)
    frame = pd.read_parquet(path)
    frame["weight"] = [math.nan] * 3 + [1e6] * 4 + [0.5] * (len(frame) - 7)
    frame.to_parquet(path)
    found = summary(store, run_id)
    assert found.weight is not None
    assert (found.weight.sum(), found.weight[:, -1].sum()) == (len(frame) - 3, 4)


@pytest.mark.parametrize(("column", "value"), [("label", 10), ("clean_label", -1), ("magnitude", [0.5] * 6)])
def test_impossible_points_are_a_warning(store: Store, column: str, value: object) -> None:
    run_id = store.add("autodo-aws")
    path = store.path("points", run_id)
    frame = pd.read_parquet(path)
    frame.at[2, column] = value
    frame.to_parquet(path)
    summaries, warnings = point_summaries(store.root, [run_id], 10)
    assert [s for s in summaries.values() if column != "magnitude" or s.magnitude is not None] == []
    assert len(warnings) == 1
    assert run_id in warnings[0]


def test_quantiles_are_those_of_the_values_up_to_a_bin() -> None:
    values = np.random.default_rng(0).beta(2, 5, (3, 2000))
    counts = np.stack([np.histogram(row, SHARE_EDGES)[0] for row in values])
    shares = (0.0, 0.1, 0.5, 0.9, 1.0)
    wanted = np.quantile(values, shares, axis=1).T
    np.testing.assert_allclose(quantiles(counts, SHARE_EDGES, shares), wanted, atol=0.005)
    assert np.isnan(quantiles(np.zeros((1, 200), int), SHARE_EDGES, [0.5])).all()


def test_steps_hold_all_points_of_a_group(ax: Axes) -> None:
    values = [np.array([0.2, 0.5, 1.0, 1.0, 2.5]), np.array([3.0, 50.0])]
    draw_weights(ax, np.stack([np.histogram(v, WEIGHT_EDGES)[0] for v in values]), ["clean", "wrong"])
    first, second = (patch.get_data() for patch in ax.patches)  # type: ignore[attr-defined]
    assert len(first.values) <= 41
    for data, points in ((first, values[0]), (second, np.array([3.0, 9.999]))):
        assert data.values.sum() == pytest.approx(100)
        assert data.values.tolist() == pytest.approx((100 / len(points) * np.histogram(points, data.edges)[0]).tolist())


def test_a_dot_is_the_median(ax: Axes) -> None:
    values = np.random.default_rng(0).random((2, 7, 500)) ** np.array([1.0, 3.0])[:, None, None]
    counts = np.array([[np.histogram(row, SHARE_EDGES)[0] for row in group] for group in values])
    draw_strengths(ax, counts, ["clean", "wrong"])
    for line, group in zip(ax.lines, values, strict=True):
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), np.median(group, axis=1), atol=0.006)
    thin = np.stack([path[:, 1] for path in ax.collections[0].get_segments()])  # type: ignore[attr-defined]
    np.testing.assert_allclose(thin, np.quantile(values[0], (0.1, 0.9), axis=1).T, atol=0.006)


def test_methods_that_learn_are_drawn_over_all_seeds(store: Store) -> None:
    ids = [store.add("autodo-aws", seed=seed) for seed in range(2)]
    store.add("baseline")
    ((weights, strengths), warnings) = hyperparameter_figures(store.root, choose(store.runs()))
    assert warnings == ()
    written = [store.written["points", run_id] for run_id in ids]
    weight = np.concatenate([w["weight"] for w in written])
    clean = np.concatenate([(w["label"] == w["clean_label"]) & (w["clean_label"] < 5) for w in written])
    assert f"clean, majority {np.median(weight[clean]):.2f}" in weights.caption
    assert [ax.get_title() for ax in weights.draw().axes] == ["autodo-aws"]
    assert len(strengths.draw().axes) == 2


@pytest.mark.parametrize(
    ("distortion", "groups"),
    [("1-0.1", ["clean", "wrong"]), ("10-0.1", list(GROUPS))],
)
def test_groups_without_noise_or_imbalance_are_merged(store: Store, distortion: str, groups: list[str]) -> None:
    store.add("autodo-aws", distortion)
    ((figure, _), _) = hyperparameter_figures(store.root, choose(store.runs()))
    legend = [text.get_text() for text in figure.draw().legends[0].get_texts()]
    assert legend == groups
