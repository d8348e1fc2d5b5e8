from collections import Counter

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from sklearn.neighbors import NearestNeighbors

from reports.figures.choices import choose
from reports.figures.clusters import MOST_POINTS, cluster_figures, draw_clusters, embeddings, project, stratified
from reports.figures.palette import class_colours
from tests.reports.figures.stores import Store


def test_a_stratified_part_keeps_the_share_of_every_class() -> None:
    label = np.random.default_rng(1).permutation(np.repeat(np.arange(4), [5000, 2500, 2490, 10]))
    part = stratified(label, 1000)
    assert len(part) == len(set(part)) == 1000
    assert (np.diff(part) > 0).all()
    found = Counter(label[part].tolist())
    assert all(abs(found[c] - n / 10) <= 1 for c, n in Counter(label.tolist()).items())
    assert part.tolist() == stratified(label, 1000).tolist()
    assert part.tolist() != stratified(label, 1000, seed=1).tolist()


def test_a_rare_class_keeps_a_point_and_few_points_are_all_kept() -> None:
    label = np.array([0] * 9999 + [1])
    assert 9999 in stratified(label, 10)
    assert stratified(label[:7], 10).tolist() == list(range(7))
    assert len(stratified(np.arange(100), 10)) == 10
    assert len(stratified(np.array([], int), 10)) == 0


def test_neighbours_stay_neighbours() -> None:
    generator = np.random.default_rng(0)
    label = np.arange(150) % 3
    points = generator.normal(0, 20, (3, 8))[label] + generator.normal(0, 1, (150, 8))
    position = project(points)
    assert position.shape == (150, 2)
    near = NearestNeighbors(n_neighbors=2).fit(position).kneighbors(position, return_distance=False)[:, 1]
    assert (label[near] == label).mean() > 0.98
    assert position.tolist() == project(points).tolist()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("width", [1, 2, 8])
def test_few_points_can_be_projected(count: int, width: int) -> None:
    position = project(np.random.default_rng(0).normal(size=(count, width)))
    assert position.shape == (count, 2)
    assert np.isfinite(position).all()


def test_equal_points_can_be_projected() -> None:
    assert np.isfinite(project(np.ones((20, 4)))).all()


def test_dots_are_right_and_balls_wrong_in_the_colour_of_the_label(ax: Axes) -> None:
    generator = np.random.default_rng(0)
    position, label, prediction = generator.normal(size=(50, 2)), generator.integers(0, 3, 50), np.zeros(50, int)
    draw_clusters(ax, position, label, prediction, ["a", "b", "c"])
    dots, balls = ax.collections
    wrong = label != prediction
    assert np.asarray(dots.get_offsets()).tolist() == position[~wrong].tolist()
    assert np.asarray(balls.get_offsets()).tolist() == position[wrong].tolist()
    assert balls.get_sizes()[0] > 2 * dots.get_sizes()[0]  # type: ignore[attr-defined]
    colours = class_colours(3)
    assert [to_hex(face) for face in balls.get_facecolor()] == [colours[c] for c in label[wrong]]
    assert {text.get_text() for text in ax.texts} == {"a", "b", "c"}


def test_names_in_one_place_do_not_cover_each_other(ax: Axes) -> None:
    label = np.array([0, 1, 2, 2])
    draw_clusters(ax, np.array([[0, 0], [0.01, 0], [0.01, 0], [9.0, 9]]), label, label, ["first", "second", "third"])
    figure = ax.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_a_sample_of_the_embeddings_is_read(store: Store) -> None:
    store.test_images = MOST_POINTS + 500
    run_id = store.add(embeddings=True)
    found, warnings = embeddings(store.root, [run_id], 10)
    assert warnings == ()
    written = store.written["embeddings", run_id]
    part = stratified(written["label"])
    np.testing.assert_array_equal(found[run_id].label, written["label"][part])
    np.testing.assert_array_equal(found[run_id].prediction, written["prediction"][part])
    np.testing.assert_allclose(found[run_id].embedding, np.stack(written["embedding"])[part], rtol=1e-6)


@pytest.mark.parametrize("bad", [[1.0], [], None, [float("nan")] * 16])
def test_a_damaged_embedding_is_a_warning(store: Store, bad: list[float] | None) -> None:
    run_id = store.add(embeddings=True)
    path = store.path("embeddings", run_id)
    frame = pd.read_parquet(path)
    frame.at[5, "embedding"] = bad
    frame.to_parquet(path)
    found, warnings = embeddings(store.root, [run_id], 10)
    assert found == {}
    assert len(warnings) == 1
    assert run_id in warnings[0]


def test_the_first_seed_with_embeddings_is_drawn(store: Store) -> None:
    store.test_images = 60
    store.add(seed=0)
    kept = store.add(seed=1, embeddings=True)
    store.add(seed=2, embeddings=True)
    store.add("mixup")
    ((figure,), warnings) = cluster_figures(store.root, choose(store.runs()))
    assert warnings == ()
    written = store.written["embeddings", kept]
    wrong = int((written["label"] != written["prediction"]).sum())
    (ax,) = figure.draw().axes
    assert ax.get_title() == f"baseline, seed 1: {wrong} of 60 wrong"
    assert len(np.asarray(ax.collections[1].get_offsets())) == wrong
    assert f"baseline {wrong} of 60 wrong" in figure.caption


def test_no_embeddings_make_no_figure(store: Store) -> None:
    store.add()
    assert cluster_figures(store.root, choose(store.runs())) == ([], ())
