import numpy as np
import pytest
from matplotlib.axes import Axes

from autodo.results import records
from reports.analysis.cost import condition_notes
from reports.figures.choices import choose
from reports.figures.cost import CostQuality, cost_figures, cost_quality, draw_cost_quality
from reports.figures.palette import styles
from tests.reports.figures.stores import Store


def test_markers_stand_at_cost_and_error_on_a_logarithmic_axis(ax: Axes) -> None:
    methods = [CostQuality("a", 100.0, 5.0, 0.5), CostQuality("b", 1000.0, 4.0, None)]
    draw_cost_quality(ax, methods, styles("ab"))
    assert ax.get_xscale() == "log"
    drawn = [line.get_xydata()[0].tolist() for line in ax.lines]  # type: ignore[union-attr,index]
    assert [100, 5] in drawn
    assert [1000, 4] in drawn
    low, high = ax.get_xlim()
    assert low < 100
    assert high > 1000


def test_names_cover_no_name_and_no_marker(ax: Axes) -> None:
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
    markers = ax.transData.transform([(m.cost, m.error) for m in methods])
    assert not any(box.contains(x, y) for box in boxes for x, y in markers)


def test_cost_is_relative_to_the_baseline_of_the_same_launch_and_device(store: Store) -> None:
    for seed, (seconds, error) in enumerate([(30.0, 0.25), (50.0, 0.5)]):
        store.add(seed=seed, seconds=seconds, error_best_val=error)
    # Runs on another device are left out.
    store.add(seed=2, seconds=1.0, error_best_val=0.375, launch_id="other")
    store.add(seed=3, seconds=1.0, error_best_val=0.375, device="H100")
    store.add("autodo-aws", seconds=60.0, error_best_val=0.125)
    store.add("autodo-aws", seed=1, seconds=1.0, error_best_val=0.125, resumed=True)
    store.add("mixup", seconds=10.0, launch_id=None)
    autodo, baseline = sorted(cost_quality(store.runs()))
    assert autodo == ("autodo-aws", 1.5, 12.5, 0.0)
    assert baseline[:3] == ("baseline", pytest.approx(1.0), 37.5)


def test_each_split_has_a_baseline_of_its_own(store: Store) -> None:
    store.add(split="union", seconds=20.0)
    store.add("autodo-aws", split="union", seconds=60.0)
    assert {method.name: method.cost for method in cost_quality(store.runs())} == {
        "baseline (union)": 1.0,
        "autodo-aws (union)": 3.0,
    }
    assert not any("Left out of the cost" in note for note in condition_notes(store.runs()))
    store.add(seconds=10.0)
    store.add("autodo-aws", split="test-as-val", seconds=10.0)
    costs = {method.name: method.cost for method in cost_quality(store.runs())}
    assert costs == {"baseline": 1.0, "baseline (union)": 1.0, "autodo-aws (union)": 3.0}
    (left_out,) = (note for note in condition_notes(store.runs()) if "Left out of the cost" in note)
    assert "1 run of a launch without the baseline in the same split on the same device" in left_out


def test_the_caption_names_conditions_and_runs_left_out(store: Store) -> None:
    store.add(seconds=10.0)
    store.add("autodo-aws", seconds=20.0, load_average=0.5)
    store.add("mixup", seconds=20.0, resumed=True)
    runs = store.runs()
    (figure,) = cost_figures(choose(runs), styles(runs["name"]))
    assert "% at 2.00" in figure.caption
    words = "up to 2 runs at a time on a host of 2 CPU cores; load average 0.5 to 1.9 when they began."
    assert words in figure.caption
    assert "1 run resumed from a checkpoint" in figure.caption


def test_runs_without_relative_costs_make_no_figure(store: Store) -> None:
    store.add(seconds=10.0, **dict.fromkeys(records.CONDITIONS))
    store.add("mixup", seconds=20.0, **dict.fromkeys(records.CONDITIONS))
    assert cost_figures(choose(store.runs()), styles(["baseline", "mixup"])) == []
