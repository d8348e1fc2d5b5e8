import numpy as np
from matplotlib.axes import Axes

from reports.analysis.stats import Ranks
from reports.figures.ranks import draw_ranks, rank_figure
from reports.figures.rendering import render


def ranks_of(names: list[str], average: list[float], p_values: np.ndarray) -> Ranks:
    return Ranks(tuple(names), np.array(average), p_values, 0.01, (("g", "1-0.0"),) * 4)


P_VALUES = np.array([[1.0, 0.5, 0.001], [0.5, 1.0, 0.2], [0.001, 0.2, 1.0]])


def test_bars_join_methods_that_do_not_differ(ax: Axes) -> None:
    draw_ranks(ax, ranks_of(["a", "b", "c"], [1.25, 2.0, 2.75], P_VALUES))
    lines = [np.asarray(line.get_xydata()) for line in ax.lines]
    bars = [sorted(line[:, 0].tolist()) for line in lines if np.ptp(line[:, 1]) == 0]
    assert sorted(bars) == [[1.25, 2.0], [2.0, 2.75]]
    assert {text.get_text().strip() for text in ax.texts} == {"a  1.25", "b  2.00", "2.75  c"}
    markers = [offset.tolist() for collection in ax.collections for offset in np.asarray(collection.get_offsets())]
    assert sorted(markers) == [[1.25, 0], [2, 0], [2.75, 0]]


def test_bars_are_the_same_in_every_process(ax: Axes) -> None:
    """The order of a set of names depends on the process; 9 names are in order by chance once in 362,880 times."""
    names = [f"method {i}" for i in range(9)]
    draw_ranks(ax, ranks_of(names, list(np.arange(9.0)), np.ones((9, 9))))
    (bar,) = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 9]
    np.testing.assert_array_equal(bar, np.arange(9.0))


def test_equal_ranks_can_be_drawn(ax: Axes) -> None:
    draw_ranks(ax, ranks_of(["a", "b", "c"], [2.0, 2.0, 2.0], P_VALUES))
    assert len(ax.texts) == 3


def test_names_that_are_cut_to_the_same_text_stay_different(ax: Axes) -> None:
    names = ["x" * 30 + middle + "x" * 30 for middle in "ab"] + ["$c$"]
    draw_ranks(ax, ranks_of(names, [1.0, 2.0, 3.0], P_VALUES))
    assert [text.get_text().strip() for text in ax.texts][-1] == r"3.00  \$c\$"
    first, second = (text.get_text().rpartition("  ")[0] for text in ax.texts[:2])
    assert first != second


def test_no_name_is_cut_off_at_the_edge() -> None:
    names = [f"method with a rather long name, number {i}" for i in range(9)]
    figure = rank_figure(ranks_of(names, list(range(1, 10)), np.ones((9, 9))))
    sheet = figure.draw()
    sheet.draw_without_rendering()
    boxes = [text.get_window_extent() for text in sheet.axes[0].texts]
    assert all(sheet.bbox.x0 <= box.x0 and box.x1 <= sheet.bbox.x1 for box in boxes)
    assert render(figure).svg.startswith(b"<?xml")
