import numpy as np
import pytest
from matplotlib.axes import Axes

from reports.figures.accuracy import accuracies_of, accuracy_figures, draw_class_bars, draw_class_profiles
from reports.figures.choices import choose
from reports.figures.palette import styles
from tests.reports.figures.stores import Store


def test_a_bar_is_as_high_as_the_accuracy(ax: Axes) -> None:
    accuracies = {
        "a": (np.array([90.0, np.nan, 0.0]), np.array([1.0, np.nan, np.nan])),
        "b": (np.array([80.0, 70.0, 60.0]), np.array([2.0, 3.0, 4.0])),
    }
    draw_class_bars(ax, accuracies, ["x", "y", "z"], styles("ab"), minority_start=1)
    assert [bar.get_height() for bar in ax.patches] == [90, 0, 80, 70, 60]  # type: ignore[attr-defined]
    centres = [bar.get_x() + bar.get_width() / 2 for bar in ax.patches]  # type: ignore[attr-defined]
    assert np.round(centres).tolist() == [0, 2, 0, 1, 2]
    assert [text.get_text() for text in ax.texts] == ["–", "0", "majority", "minority"]
    whiskers = [segment[:, 1].tolist() for lines in ax.collections for segment in lines.get_segments()]  # type: ignore[attr-defined]
    assert whiskers == [[89, 91], [78, 82], [67, 73], [56, 64]]


def test_many_classes_are_sorted_apart(ax: Axes) -> None:
    mean = np.random.default_rng(0).permutation(100).astype(float)
    mean[3] = np.nan
    draw_class_profiles(ax, {"a": (mean, mean)}, styles("a"), minority_start=50)
    majority, minority, _ = ax.lines
    assert majority.get_ydata().tolist() == sorted(np.delete(mean[:50], 3), reverse=True)  # type: ignore[union-attr]
    assert minority.get_ydata().tolist() == sorted(mean[50:], reverse=True)  # type: ignore[union-attr]
    assert minority.get_xdata().tolist() == list(range(50, 100))  # type: ignore[union-attr]


@pytest.mark.filterwarnings("error")
def test_accuracies_are_over_the_seeds_that_have_the_class(store: Store) -> None:
    rows = [[0.5, 0.25, None], [0.75, None, None], [1.0, 0.75, None]]
    store.classes = ("a", "b", "c")
    for seed, row in enumerate(rows):
        store.add(seed=seed, per_class_accuracy=row)
    store.add(seed=3, per_class_accuracy=[0.1])
    store.add(seed=4, per_class_accuracy=None)
    (choice,) = choose(store.runs())
    mean, std, n, worst = accuracies_of(choice, 3)["baseline"]
    np.testing.assert_allclose(mean, [75, 50, np.nan])
    np.testing.assert_allclose(std, [25, 25 * 2**0.5, np.nan])
    assert (n, worst) == (3, 1)


def test_the_worst_class_stands_in_the_caption(store: Store) -> None:
    store.classes = ("cat", "dog")
    store.add(distortion="1-0.0", per_class_accuracy=[0.75, 0.5])
    (figure,) = accuracy_figures(choose(store.runs()), styles(["baseline"]))
    assert "Worst class (lowest mean): baseline 50.0 % (dog)." in figure.caption
    assert "one seed, no standard deviation" in figure.caption
    (ax,) = figure.draw().axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["cat", "dog"]
    assert len(ax.lines) == 0  # nothing is rare without imbalance


def test_unknown_accuracies_make_no_figure(store: Store) -> None:
    store.add(per_class_accuracy=None)
    assert accuracy_figures(choose(store.runs()), styles(["baseline"])) == []
