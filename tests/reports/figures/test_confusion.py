import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from reports.figures.choices import choose
from reports.figures.confusion import confusion_counts, confusion_figures, draw_confusion
from tests.reports.figures.stores import Store


def test_cells_hold_shares_of_their_row_and_counts(ax: Axes) -> None:
    counts = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 999]])
    image = draw_confusion(ax, counts, ["a", "b", "c"], minority_start=1)
    shares = np.ma.asarray(image.get_array())
    np.testing.assert_allclose(shares[0], [0.75, 0.25, 0])
    assert shares.mask.tolist() == [[False] * 3, [True] * 3, [False] * 3]
    texts = {(text.get_position(), text.get_text()) for text in ax.texts}
    # A share that rounds to 0 % is not shown.
    wanted = {((0, 0), "75"), ((0, 0), "6"), ((1, 0), "25"), ((1, 0), "2")}
    assert texts == wanted | {((0, 2), "1"), ((2, 2), "100"), ((2, 2), "999")}
    (hatched,) = ax.patches
    assert hatched.get_hatch() is not None


def test_a_hundred_classes_have_no_numbers_in_their_cells(ax: Axes) -> None:
    draw_confusion(ax, np.eye(100, dtype=np.int64), [f"class {i}" for i in range(100)])
    assert len(ax.texts) == 0
    assert [label.get_text() for label in ax.get_yticklabels()] == [str(10 * i) for i in range(10)]


def test_counts_are_those_of_the_predictions(store: Store) -> None:
    ids = [store.add(seed=seed) for seed in range(2)]
    counts, warnings = confusion_counts(store.root, ids, 10)
    assert warnings == ()
    for run_id in ids:
        written = store.written["predictions", run_id]
        table = pd.crosstab(written["label"], written["prediction"]).reindex(range(10), columns=range(10), fill_value=0)
        assert counts[run_id].tolist() == table.to_numpy().tolist()


@pytest.mark.parametrize("label", [10, -1, None])
def test_a_label_of_no_class_is_a_warning(store: Store, label: int | None) -> None:
    run_id = store.add()
    path = store.path("predictions", run_id)
    frame = pd.read_parquet(path).astype({"label": "Int16"})
    frame.loc[3, "label"] = label
    frame.to_parquet(path)
    counts, warnings = confusion_counts(store.root, [run_id], 10)
    assert counts == {}
    assert len(warnings) == 1
    assert run_id in warnings[0]


def test_a_method_is_a_matrix_summed_over_seeds(store: Store) -> None:
    for method in ("baseline", "mixup"):
        for seed in range(2):
            store.add(method, seed=seed, absent=[3])
    store.path("predictions", store.add("gce")).unlink()
    ((figure,), warnings) = confusion_figures(store.root, choose(store.runs()))
    assert warnings == ()
    axes = [ax for ax in figure.draw().axes if ax.images]
    runs = store.runs()
    for ax, method in zip(axes, ("baseline", "mixup"), strict=True):
        ids = runs.loc[runs["name"] == method, "run_id"]
        label, prediction = (
            np.concatenate([store.written["predictions", run_id][side] for run_id in ids])
            for side in ("label", "prediction")
        )
        accuracy = 100 * (label == prediction).mean()
        assert ax.get_title() == f"{method}: {accuracy:.1f} % (n = 2)"
        assert f"{method} {accuracy:.1f} %" in figure.caption
        recall = (prediction == label)[label == 0].mean()
        assert np.ma.asarray(ax.images[0].get_array())[0, 0] == pytest.approx(recall)


def test_no_predictions_make_no_figure(store: Store) -> None:
    store.path("predictions", store.add()).unlink()
    assert confusion_figures(store.root, choose(store.runs())) == ([], ())
    assert confusion_figures(store.root, []) == ([], ())
