"""t-SNE of the test images' embeddings: Fig. 6 of the paper, bottom."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Sheet
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from autodo.io.storage import Location, as_location
from reports.analysis.classes import class_names
from reports.document import Figure, Floats
from reports.figures import canvas
from reports.figures.choices import Choice
from reports.figures.palette import class_colours
from reports.keys import key
from reports.readers.column_checks import UnusableFile, labels_of
from reports.readers.load import reduce_runs

Ints = NDArray[np.int64]
MOST_POINTS = 1500
_PERPLEXITY = 30.0
_SEED = 0
_WITH_LEGEND = 12  # most classes with a legend of colours; with more, clusters have numbers


class Embedded(NamedTuple):
    """A sample of the test images of one run. Shape: embedding [n, D], label [n], prediction [n]."""

    embedding: NDArray[np.float32]
    label: Ints
    prediction: Ints


def stratified(label: Ints, most: int = MOST_POINTS, seed: int = _SEED) -> Ints:
    """Sorted positions of at most `most` points; each class keeps its share, and at least one point if possible.

    The same labels give the same positions.
    """
    if len(label) <= most:
        return np.arange(len(label))
    order = np.random.default_rng(seed).permutation(len(label))
    # The rank of a point within its class, as a share of the class: the lowest are the same share of each class.
    by_class = pd.Series(label[order]).groupby(label[order])
    rank, size = by_class.cumcount().to_numpy(), by_class.transform("size").to_numpy()
    share = np.where(rank == 0, -1.0, (rank + 0.5) / size)
    return np.sort(order[np.argsort(share, kind="stable")[:most]])


def project(embedding: NDArray[np.floating], seed: int = _SEED) -> Floats:
    """t-SNE in two dimensions, deterministic on a machine; for under 4 points, the first two principal components.

    Shape:
        [n, D] -> [n, 2].
    Reference: van der Maaten and Hinton 2008; openTSNE, Poličar et al. 2019.
    """
    count = len(embedding)
    points = np.asarray(embedding, dtype=np.float64)
    if count < 4 or not np.ptp(points, axis=0).any():
        return _principal(points)
    from openTSNE import TSNE

    # openTSNE uses three times the perplexity as neighbours, of which there are n - 1.
    perplexity = min(_PERPLEXITY, (count - 1) / 3)
    # Fewer than three dimensions have no two components to start from.
    start = "pca" if min(points.shape) > 2 else "random"
    tsne = TSNE(
        perplexity=perplexity,
        initialization=start,
        neighbors="exact",
        negative_gradient_method="bh",
        n_jobs=1,
        random_state=seed,
    )
    return np.asarray(tsne.fit(points), dtype=np.float64)


def _principal(points: Floats) -> Floats:
    centred = points - points.mean(axis=0) if len(points) else points
    scores = np.zeros((len(points), 2))
    if centred.size:
        left, scale, _ = np.linalg.svd(centred, full_matrices=False)
        kept = min(2, len(scale))
        scores[:, :kept] = left[:, :kept] * scale[:kept]
    return scores


def draw_clusters(ax: Axes, position: Floats, label: Ints, prediction: Ints, class_names: Sequence[str]) -> None:
    """Small dots for images classified right, balls for those classified wrong, in the colour of the label.

    Shape:
        position [n, 2], label [n], prediction [n].
    """
    colours = np.array(class_colours(len(class_names)))
    wrong = label != prediction
    # Rasterized, because thousands of dots make a large SVG.
    dots: dict[str, Any] = {"linewidths": 0, "s": 5, "alpha": 0.75, "rasterized": True}
    balls: dict[str, Any] = {"linewidths": 0.5, "s": 20, "edgecolors": "black", "rasterized": True, "zorder": 3}
    ax.scatter(position[~wrong, 0], position[~wrong, 1], c=colours[label[~wrong]], **dots)
    ax.scatter(position[wrong, 0], position[wrong, 1], c=colours[label[wrong]], **balls)
    _write_names(ax, position, label, class_names)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.margins(0.07)
    ax.set_aspect("equal", adjustable="datalim")
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_color("#cccccc")


def _write_names(ax: Axes, position: Floats, label: Ints, class_names: Sequence[str]) -> None:
    """Write the name or number of each class in its middle, shifted up or down to avoid overlap."""
    names = canvas.class_labels(class_names, 11) if len(class_names) <= _WITH_LEGEND else None
    size = 6.5 if names else 5.5
    halo = [patheffects.withStroke(linewidth=1.8, foreground="white")]
    colours = class_colours(len(class_names))
    # Approximate points of the page for a unit of the data; the final layout is not known yet.
    extent = ax.get_window_extent()
    figure = ax.get_figure(root=True)
    assert figure is not None
    scale = (
        72 / figure.dpi * min(extent.width, extent.height) / max(float(np.ptp(position, axis=0).max(initial=0)), 1e-9)
    )
    taken: list[tuple[float, float, float]] = []
    for present in np.unique(label):
        # The median of a class may lie between its clusters; the nearest point lies in one.
        own = position[label == present]
        x, y = own[np.argmin(((own - np.median(own, axis=0)) ** 2).sum(axis=1))]
        text = names[present] if names else str(present)
        half = 0.32 * size * len(text)
        free = [
            shift
            for shift in (0, 1, -1, 2, -2, 3, -3)
            if all(
                abs(x * scale - other_x) > half + other_half or abs(y * scale + shift * size * 1.1 - other_y) > size
                for other_x, other_y, other_half in taken
            )
        ]
        shift = size * 1.1 * (free[0] if free else 0)
        taken.append((x * scale, y * scale + shift, half))
        note = ax.annotate(text, (x, y), xytext=(0, shift), textcoords="offset points", ha="center", va="center")
        colour = "black" if names else [0.7 * part for part in to_rgb(colours[present])]
        # A hundred numbers with halos are rasterized: their outlines would dominate the SVG.
        note.set(fontsize=size, color=colour, path_effects=halo, rasterized=not names, in_layout=False, zorder=5)


def embeddings(
    root: Location | str, run_ids: Sequence[str], classes: int
) -> tuple[dict[str, Embedded], tuple[str, ...]]:
    """A stratified sample of the test images of each run that kept embeddings, and warnings."""

    def sample(table: pa.Table) -> Embedded:
        label, prediction = labels_of(table, ("label", "prediction"), classes)
        chosen = stratified(label)
        vectors = table["embedding"].take(pa.array(chosen)).combine_chunks()
        widths = np.unique(vectors.value_lengths().to_numpy(zero_copy_only=False))
        if vectors.null_count or len(widths) > 1 or (len(chosen) and not widths[0] > 0):
            raise UnusableFile("its embeddings differ in width, or one is missing")
        values = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(chosen), -1)
        if not np.isfinite(values).all():
            raise UnusableFile("its embedding is not a number")
        return Embedded(values, label[chosen], prediction[chosen])

    return reduce_runs(root, "embeddings", run_ids, ["label", "prediction", "embedding"], sample)


def cluster_figures(root: Location | str, choices: Sequence[Choice]) -> tuple[list[Figure], tuple[str, ...]]:
    """A figure for each choice: embeddings of the first seed of each method that kept them; and warnings."""
    figures: list[Figure] = []
    warnings: list[str] = []
    kept = (as_location(root) / "embeddings").names()  # few runs keep them
    for choice in choices:
        names = class_names(choice.runs)
        by_method: dict[str, tuple[int, Embedded]] = {}
        for method in choice.methods:
            runs = choice.of(method)
            for run_id, seed in runs.loc[(runs["run_id"] + ".parquet").isin(kept), ["run_id", "seed"]].itertuples(
                index=False
            ):
                parts, problems = embeddings(root, [run_id], len(names))
                warnings += problems
                if parts and len(parts[run_id].label):
                    by_method[method] = (int(seed), parts[run_id])
                    break
        if by_method:
            figures.append(_figure(choice, names, by_method))
    return figures, tuple(warnings)


def _figure(choice: Choice, names: Sequence[str], by_method: dict[str, tuple[int, Embedded]]) -> Figure:
    @functools.cache  # takes seconds, and a figure may be drawn again
    def positions() -> list[Floats]:
        return [project(part.embedding) for _, part in by_method.values()]

    @canvas.styled
    def draw() -> Sheet:
        figure, axes = canvas.panels(len(by_method), 3.4, extra_height=0.5)
        for ax, position, (method, (seed, part)) in zip(axes, positions(), by_method.items(), strict=True):
            draw_clusters(ax, position, part.label, part.prediction, names)
            wrong = int((part.label != part.prediction).sum())
            ax.set_title(
                f"{canvas.plain(method, canvas.LONGEST_NAME)}, seed {seed}: {wrong} of {len(part.label)} wrong"
            )
        entries = [
            (Line2D([], [], marker="o", markersize=2.5, color=canvas.GREY, linestyle="none"), "right"),
            (
                Line2D([], [], marker="o", markersize=5, color=canvas.GREY, markeredgecolor="black", linestyle="none"),
                "wrong",
            ),
        ]
        if len(names) <= _WITH_LEGEND:
            colours = class_colours(len(names))
            entries += [
                (Line2D([], [], marker="s", markersize=5, color=colour, linestyle="none"), label)
                for colour, label in zip(colours, canvas.class_labels(names), strict=True)
            ]
        canvas.legend(figure, entries, columns=min(len(entries), 6))
        return figure

    sizes = ", ".join(
        f"{method} {int((part.label != part.prediction).sum())} of {len(part.label)} wrong"
        for method, (_, part) in by_method.items()
    )
    numbers = "" if len(names) <= _WITH_LEGEND else " Numbers mark the classes."
    caption = (
        f"t-SNE of the penultimate layer's outputs for test images, {choice.title}, coloured by true class: dots are "
        f"classified right, balls wrong. A stratified sample of at most {MOST_POINTS} images of one seed: {sizes}. "
        f"Distances between clusters mean nothing.{numbers}{canvas.class_key(names)}{choice.remark}"
    )
    return Figure(key("clusters", choice.group, choice.distortion), canvas.visible(caption), draw)
