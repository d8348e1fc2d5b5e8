"""Distributions of learned loss weights and augmentation strengths, split by label noise and class imbalance."""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet
from matplotlib.lines import Line2D

from autodo.io.storage import Location
from reports.analysis.classes import class_names, minority, minority_sentence
from reports.document import Figure, Floats
from reports.figures import canvas
from reports.figures.choices import Choice
from reports.figures.palette import COLOURS
from reports.figures.points import (
    GROUPS,
    OPERATIONS,
    SHARE_EDGES,
    WEIGHT_EDGES,
    Counts,
    PointSummary,
    point_summaries,
    quantiles,
)
from reports.keys import key

_BLUE, _RED, _, _PINK, _ORANGE, _SKY = COLOURS
_SHOWN_BINS = 40
_SOLID: Any = "-"
_DASHED: Any = (0, (5, 1.5))
_LOOKS: dict[str, tuple[str, Any]] = {
    **{"clean, majority": (_BLUE, _SOLID), "clean, minority": (_SKY, _DASHED)},
    **{"wrong, majority": (_RED, _SOLID), "wrong, minority": (_ORANGE, _DASHED)},
    **{"clean": (_BLUE, _SOLID), "wrong": (_RED, _SOLID)},
    **{"majority": (_BLUE, _SOLID), "minority": (_ORANGE, _DASHED)},
    "all points": (_BLUE, _SOLID),
}
_UNITS = {"rotate": "30°", "scale": "0.5", "translate": "0.45", "shear": "0.3"}


def draw_weights(ax: Axes, counts: Counts, groups: Sequence[str]) -> None:
    """Histogram of each group's weights in percent; a thin line at 1, the initial weight.

    Shape:
        counts [G, W] by WEIGHT_EDGES; values beyond the last finite edge are drawn at it.
    """
    edges, shown = _shown_bins(counts)
    for name, row in zip(groups, shown, strict=True):
        if row.any():
            colour, dash = _LOOKS[name]
            ax.stairs(100 * row / row.sum(), edges, color=colour, linestyle=dash, linewidth=1.4)
    ax.axvline(1, color=canvas.GREY, linewidth=0.7, zorder=0)
    ax.set_xlabel("learned loss weight")
    ax.set_ylabel("points of the group (%)")
    ax.set_ylim(bottom=0)


def _shown_bins(counts: Counts) -> tuple[Floats, Counts]:
    """About 40 bins that cover all points and 1. Shape: [G, W] -> edges [S + 1], counts [G, S]."""
    finite = counts[:, :-1].copy()
    finite[:, -1] += counts[:, -1]
    used = np.flatnonzero(finite.sum(axis=0))
    one = int(np.searchsorted(WEIGHT_EDGES, 1.0))
    low, high = (min(used[0], one - 1), max(used[-1] + 1, one + 1)) if used.size else (one - 1, one + 1)
    width = max(1, -(-(high - low) // _SHOWN_BINS))
    # Whole bins from 0, so that 1 is an edge if the width divides it.
    low, high = low // width * width, -(-high // width) * width
    padded = np.pad(finite, ((0, 0), (0, max(0, high - finite.shape[1]))))
    shown = padded[:, low:high].reshape(len(counts), -1, width).sum(axis=2)
    return WEIGHT_EDGES[1] * np.arange(low, high + 1, width), shown


def draw_strengths(ax: Axes, counts: Counts, groups: Sequence[str]) -> None:
    """For each operation and group the median (dot), the middle half (thick) and the middle 80 % of points (thin).

    Shape:
        counts [G, 7, S] by SHARE_EDGES.
    """
    spread = quantiles(counts, SHARE_EDGES, (0.1, 0.25, 0.5, 0.75, 0.9))
    for g, name in enumerate(groups):
        colour, _ = _LOOKS[name]
        x = np.arange(len(OPERATIONS)) + (g - (len(groups) - 1) / 2) * 0.17
        ax.vlines(x, spread[g, :, 0], spread[g, :, 4], color=colour, linewidth=0.9)
        ax.vlines(x, spread[g, :, 1], spread[g, :, 3], color=colour, linewidth=3)
        ax.plot(x, spread[g, :, 2], "o", color="white", markeredgecolor=colour, markersize=3.5, markeredgewidth=1)
    ax.set_ylim(0, 1)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.tick_params(axis="x", length=0)


def hyperparameter_figures(root: Location | str, choices: Sequence[Choice]) -> tuple[list[Figure], tuple[str, ...]]:
    """Figures for each choice: the weights of all methods that learned them, the strengths of each; and warnings."""
    figures: list[Figure] = []
    warnings: list[str] = []
    for choice in choices:
        summaries, problems = _summaries(root, choice)
        warnings += problems
        groups = _groups(choice, list(summaries.values()))
        weights = {m: _merged(s.weight, groups) for m, s in summaries.items() if s.weight is not None}
        if weights:
            figures.append(_weight_figure(choice, weights, list(groups)))
        for method, summary in summaries.items():
            if summary.gate is not None and summary.magnitude is not None:
                gate, magnitude = _merged(summary.gate, groups), _merged(summary.magnitude, groups)
                figures.append(_strength_figure(choice, method, gate, magnitude, list(groups)))
    return figures, tuple(warnings)


def _summaries(root: Location | str, choice: Choice) -> tuple[dict[str, PointSummary], tuple[str, ...]]:
    """The summary of each method over its seeds."""
    classes = len(class_names(choice.runs))
    by_run, warnings = point_summaries(root, choice.runs["run_id"].tolist(), classes, minority(choice.runs))
    by_method = {m: [by_run[r] for r in choice.of(m)["run_id"] if r in by_run] for m in choice.methods}
    return {method: reduce(add, found) for method, found in by_method.items() if found}, warnings


def _groups(choice: Choice, summaries: Sequence[PointSummary]) -> dict[str, list[int]]:
    """Names of the groups to draw, and the indices of GROUPS that each holds."""
    size = sum((summary.size for summary in summaries), np.zeros(len(GROUPS), np.int64))
    noisy = bool(size[2:].any())
    imbalanced = bool(minority(choice.runs))
    if noisy and imbalanced:
        return {name: [i] for i, name in enumerate(GROUPS)}
    if noisy:
        return {"clean": [0, 1], "wrong": [2, 3]}
    return {"majority": [0, 2], "minority": [1, 3]} if imbalanced else {"all points": [0, 1, 2, 3]}


def _merged(counts: Counts, groups: dict[str, list[int]]) -> Counts:
    return np.stack([counts[members].sum(axis=0) for members in groups.values()])


def _entries(groups: Sequence[str], width: float, dashed: bool) -> list[tuple[Artist, str]]:
    looks = [_LOOKS[group] for group in groups]
    lines = [Line2D([], [], color=c, linestyle=dash if dashed else _SOLID, linewidth=width) for c, dash in looks]
    return list(zip(lines, groups, strict=True))


def _split_words(choice: Choice, groups: Sequence[str]) -> str:
    noisy, imbalanced = any("wrong" in g for g in groups), any("minority" in g for g in groups)
    words = ["whether the label was changed"] if noisy else []
    rare = minority_sentence(choice.runs).removesuffix(".").replace("Minority: ", "")
    words += [f"whether the image's own class is of the minority ({rare})"] if imbalanced else []
    return f", split by {' and by '.join(words)}" if words else ""


def _weight_figure(choice: Choice, weights: dict[str, Counts], groups: Sequence[str]) -> Figure:
    @canvas.styled
    def draw() -> Sheet:
        figure, axes = canvas.panels(len(weights), 2.3, extra_height=0.4)
        for ax, (method, counts) in zip(axes, weights.items(), strict=True):
            draw_weights(ax, counts, groups)
            ax.set_title(canvas.plain(method, 40))
        canvas.legend(figure, _entries(groups, 1.6, dashed=True))
        return figure

    medians = "; ".join(f"{method}: {_medians(counts, groups)}" for method, counts in weights.items())
    caption = (
        f"Learned loss weights of the train points after the last epoch, {choice.title}{_split_words(choice, groups)}; "
        f"points of all seeds. All weights begin at 1. Medians: {medians}.{choice.remark}"
    )
    return Figure(key("weights", choice.group, choice.distortion), canvas.visible(caption), draw)


def _medians(counts: Counts, groups: Sequence[str]) -> str:
    finite = np.append(WEIGHT_EDGES[:-1], WEIGHT_EDGES[-2])
    found = zip(groups, quantiles(counts, finite, [0.5])[:, 0], strict=True)
    return ", ".join(f"{group} {median:.2f}" for group, median in found if np.isfinite(median))


def _strength_figure(choice: Choice, method: str, gate: Counts, magnitude: Counts, groups: Sequence[str]) -> Figure:
    @canvas.styled
    def draw() -> Sheet:
        figure, axes = canvas.panels(2, 2.2, columns=1, extra_height=0.4)
        figure.set_figwidth(canvas.WIDTH)
        for ax, counts, title in zip(
            axes, (gate, magnitude), ("gate probability", "magnitude, as a share of its range"), strict=True
        ):
            draw_strengths(ax, counts, groups)
            ax.set_title(title)
        axes[0].set_xticks(range(len(OPERATIONS)), list(OPERATIONS))
        ranges = [f"{name}\nof {_UNITS[name.split('-')[0]]}" for name in OPERATIONS]
        axes[1].set_xticks(range(len(OPERATIONS)), ranges)
        canvas.legend(figure, _entries(groups, 3, dashed=False))
        return figure

    caption = (
        f"Learned augmentation of the train points by {method} after the last epoch, {choice.title}"
        f"{_split_words(choice, groups)}; points of all seeds. Median (dot), the middle half (thick) and the middle "
        "80 % (thin) of the probability that an operation is applied, and of the standard deviation of its magnitude "
        f"as a share of the largest.{choice.remark}"
    )
    return Figure(key("strengths", choice.group, choice.distortion, method), canvas.visible(caption), draw)
