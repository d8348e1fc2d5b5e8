import numpy as np
from matplotlib.axes import Axes

from reports.analysis.curves import COLUMNS, learning_curves
from reports.document import Curve
from reports.figures.choices import choose
from reports.figures.learning_curves import curve_figures, draw_curves
from reports.figures.palette import styles
from reports.readers.load import load_epochs
from tests.reports.figures.stores import Store


def curve(epochs: list[int], outer_start: int | None = None, std: float = 0.5) -> Curve:
    mean = np.array([10.0 + e for e in epochs])
    return Curve("a", np.array(epochs), mean, np.full(len(epochs), std), 2, outer_start)


def test_a_curve_is_a_line_a_band_and_a_mark(ax: Axes) -> None:
    draw_curves(ax, [curve([0, 1, 2, 3], outer_start=2)], styles("a"))
    line, mark = ax.lines
    assert line.get_xydata().tolist() == [[0, 10], [1, 11], [2, 12], [3, 13]]  # type: ignore[union-attr]
    assert mark.get_xydata().tolist() == [[2, 12]]  # type: ignore[union-attr]
    assert line.get_color() == styles("a")["a"].colour
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    assert {(0, 9.5), (0, 10.5), (3, 12.5), (3, 13.5)} <= {tuple(corner) for corner in corners}


def test_a_line_is_broken_where_epochs_are_missing(ax: Axes) -> None:
    draw_curves(ax, [curve([0, 1, 4, 5])], styles("a"))
    x, y = ax.lines[0].get_data()
    assert np.isnan(np.asarray(y, float)).tolist() == [False, False, True, False, False]
    assert 1 < np.asarray(x, float)[2] < 4


def test_one_seed_has_no_band_and_one_epoch_is_a_point(ax: Axes) -> None:
    draw_curves(ax, [curve([3], std=np.nan)], styles("a"))
    assert len(ax.collections) == 0
    assert [line.get_marker() for line in ax.lines] == ["None", "o"]


def test_a_cell_is_a_figure_with_all_its_quantities(store: Store) -> None:
    for method in ("baseline", "autodo-aws"):
        for seed in range(2):
            store.add(method, seed=seed)
    runs = store.runs()
    epochs, warnings = load_epochs(store.root, runs["run_id"].tolist(), COLUMNS)
    assert warnings == ()
    panels = learning_curves(runs, epochs)
    (figure,) = curve_figures(panels, styles(runs["name"]), choose(runs))
    assert "A triangle marks the first epoch with an outer pass" in figure.caption
    axes = figure.draw().axes
    assert [ax.get_title() for ax in axes] == ["test accuracy (%)", "test loss", "train loss"]
    mine = runs.merge(epochs[["run_id", "epoch", "test_error"]], on="run_id")
    wanted = 100 - 100 * mine[mine["name"] == "baseline"].groupby("epoch")["test_error"].mean()
    np.testing.assert_allclose(np.asarray(axes[0].lines[0].get_ydata(), float), wanted)
    legend = [text.get_text() for text in axes[0].figure.legends[0].get_texts()]  # type: ignore[union-attr]
    assert legend == ["baseline", "autodo-aws", "outer phase starts"]


def test_no_epochs_make_no_figure(store: Store) -> None:
    store.add()
    assert curve_figures([], styles(["baseline"]), choose(store.runs())) == []
