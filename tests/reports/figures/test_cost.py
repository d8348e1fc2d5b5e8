import numpy as np
import pytest
from matplotlib.axes import Axes

from reports.figures import choose, cost_figures
from reports.figures.cost import CostQuality, cost_quality, draw_cost_quality
from reports.palette import styles
from tests.reports.figures.stores import Store


def test_markers_stand_at_speed_and_error_on_a_logarithmic_axis(ax: Axes) -> None:
    methods = [CostQuality("a", 100.0, 5.0, 0.5), CostQuality("b", 1000.0, 4.0, None)]
    draw_cost_quality(ax, methods, styles("ab"))
    assert ax.get_xscale() == "log"
    drawn = [line.get_xydata()[0].tolist() for line in ax.lines]  # type: ignore[union-attr,index]
    assert [100, 5] in drawn
    assert [1000, 4] in drawn
    low, high = ax.get_xlim()
    assert low < 100
    assert high > 1000


def test_names_hide_no_name_and_no_marker(ax: Axes) -> None:
    generator = np.random.default_rng(0)
    methods = [
        CostQuality(f"method-{i}", float(1000 * 2 ** generator.normal(0, 0.6)), float(generator.normal(20, 2)), None)
        for i in range(15)
    ]
    draw_cost_quality(ax, methods, styles(m.name for m in methods))
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text()]
    assert len(boxes) == 15
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    markers = ax.transData.transform([(m.images_per_second, m.error) for m in methods])
    assert not any(box.contains(x, y) for box in boxes for x, y in markers)


def test_the_outer_phase_belongs_to_the_price(store: Store) -> None:
    store.add(seed=0, images_per_second=100.0, inner_seconds=30.0, outer_seconds=None, error_best_val=0.25)
    store.add(seed=1, images_per_second=100.0, inner_seconds=30.0, outer_seconds=0.0, error_best_val=0.5)
    store.add("autodo-aws", images_per_second=100.0, inner_seconds=30.0, outer_seconds=10.0, error_best_val=0.125)
    store.add("mixup", images_per_second=None)
    baseline, autodo = cost_quality(store.runs())
    assert baseline == ("baseline", 100.0, 37.5, pytest.approx(25 / 2**0.5))
    assert autodo == ("autodo-aws", 75.0, 12.5, None)


def test_speeds_of_different_devices_are_said_not_to_compare(store: Store) -> None:
    store.add(device="cpu")
    store.add("mixup", device="H100")
    runs = store.runs()
    (figure,) = cost_figures(choose(runs), styles(runs["name"]))
    assert "different devices and do not compare: H100; cpu." in figure.caption


def test_no_speeds_make_no_figure(store: Store) -> None:
    store.add(inner_seconds=0.0, outer_seconds=0.0)
    assert cost_figures(choose(store.runs()), styles(["baseline"])) == []
