"""Confusion matrices of the test images: Fig. 6 of the paper, top."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure as Sheet
from matplotlib.image import AxesImage
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from autodo.io.storage import Location
from reports.analysis.classes import class_names, majority_first, minority_sentence
from reports.analysis.metrics import epoch_of_classifier
from reports.document import Figure
from reports.figures import canvas
from reports.figures.choices import Choice
from reports.keys import key
from reports.readers.column_checks import labels_of
from reports.readers.load import reduce_runs

Counts = NDArray[np.int64]
_WITH_NUMBERS = 12  # most classes with numbers in the cells
_WITH_NAMES = 26  # most classes with names at the axes


def draw_confusion(
    ax: Axes,
    counts: Counts,
    class_names: Sequence[str],
    minority_start: int | None = None,
    numbers: Sequence[int] | None = None,
) -> AxesImage:
    """Shares of each true class (row) by predicted class (column); rows without images are hatched.

    With few classes a cell shows its count and, above, its share in percent if that rounds to 1 or more.

    Args:
        minority_start: position of the first minority class, before which lines are drawn.
        numbers: of the classes, shown if there are too many for names; 0 to C-1 if None.
    Shape:
        counts [C, C].
    """
    classes = len(counts)
    total = counts.sum(axis=1, keepdims=True)
    share = np.ma.masked_where(np.broadcast_to(total == 0, counts.shape), counts / np.maximum(total, 1))
    # The root makes rare confusions visible beside a diagonal of nearly 1.
    image = ax.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    for row in np.flatnonzero(total[:, 0] == 0):
        ax.axhspan(row - 0.5, row + 0.5, facecolor="#f2f2f2", edgecolor="#bbbbbb", hatch="////", linewidth=0)
    if minority_start is not None:
        for line in (ax.axhline, ax.axvline):
            line(minority_start - 0.5, color="#D55E00", linewidth=0.8, linestyle=(0, (4, 2)))
    if classes <= _WITH_NUMBERS:
        _write_numbers(ax, counts, share)
    _name_axes(ax, class_names, range(classes) if numbers is None else numbers)
    return image


def _write_numbers(ax: Axes, counts: Counts, share: np.ma.MaskedArray) -> None:
    size = 6.2 if len(counts) > 6 else 8
    figure = ax.get_figure(root=True)
    assert figure is not None
    above, below = (ScaledTranslation(0, share * size / 72, figure.dpi_scale_trans) for share in (0.3, -0.72))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            value = float(share[row, column])
            colour = "white" if value > 0.35 else "black"
            # Not in the layout, which would measure each text.
            look: dict[str, Any] = {"ha": "center", "va": "center", "color": colour, "in_layout": False}
            if value >= 0.005:
                percent = math.floor(100 * value + 0.5)
                ax.text(column, row, f"{percent}", fontsize=size, transform=ax.transData + above, **look)
            ax.text(column, row, f"{count}", fontsize=size * 0.62, transform=ax.transData + below, **look)


def _name_axes(ax: Axes, names: Sequence[str], numbers: Sequence[int]) -> None:
    classes = len(names)
    if classes <= _WITH_NAMES:
        labels = canvas.class_labels(names)
        size = 6.5 if classes > _WITH_NUMBERS else 7
        ax.set_xticks(range(classes), labels, rotation=90, fontsize=size)
        ax.set_yticks(range(classes), labels, fontsize=size)
    else:
        ticks = range(0, classes, 10)
        ax.set_xticks(ticks, [str(numbers[i]) for i in ticks])
        ax.set_yticks(ticks, [str(numbers[i]) for i in ticks])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def confusion_counts(
    root: Location | str, run_ids: Sequence[str], classes: int
) -> tuple[dict[str, Counts], tuple[str, ...]]:
    """Test images by true (row) and predicted (column) class of each run, and warnings.

    Shape:
        [classes, classes] for each run.
    """

    def count(table: pa.Table) -> Counts:
        label, prediction = labels_of(table, ("label", "prediction"), classes)
        return np.bincount(label * classes + prediction, minlength=classes**2).reshape(classes, classes)

    return reduce_runs(root, "predictions", run_ids, ["label", "prediction"], count)


def confusion_figures(root: Location | str, choices: Sequence[Choice]) -> tuple[list[Figure], tuple[str, ...]]:
    """A figure for each choice: a matrix of each method with predictions, summed over seeds; and warnings."""
    figures: list[Figure] = []
    warnings: list[str] = []
    for choice in choices:
        names = class_names(choice.runs)
        counts, problems = confusion_counts(root, choice.runs["run_id"].tolist(), len(names))
        warnings += problems
        by_method = {}
        for method in choice.methods:
            found = [counts[run_id] for run_id in choice.of(method)["run_id"] if run_id in counts]
            if found and (total := np.sum(found, axis=0)).any():
                by_method[method] = (total, len(found))
        if by_method:
            figures.append(_figure(choice, names, by_method))
    return figures, tuple(warnings)


def _figure(choice: Choice, names: Sequence[str], by_method: dict[str, tuple[Counts, int]]) -> Figure:
    order, start = majority_first(choice.runs, len(names))
    ordered = [names[label] for label in order]

    @canvas.styled
    def draw() -> Sheet:
        figure, axes = canvas.panels(len(by_method), 3.5, extra_height=0.4)
        for ax, (method, (counts, seeds)) in zip(axes, by_method.items(), strict=True):
            image = draw_confusion(ax, counts[np.ix_(order, order)], ordered, start, order)
            accuracy = 100 * np.trace(counts) / counts.sum()
            ax.set_title(f"{canvas.plain(method, canvas.LONGEST_NAME)}: {accuracy:.1f} % (n = {seeds})")
            ax.set_xlabel("predicted class")
            ax.set_ylabel("true class")
        bar = figure.colorbar(image, ax=axes, location="bottom", aspect=50, shrink=0.7, pad=0.02)
        bar.set_label("share of the true class, %")
        shares = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1]
        bar.set_ticks(shares, labels=[f"{100 * share:g}" for share in shares])
        bar.ax.minorticks_off()
        bar.outline.set_visible(False)
        return figure

    accuracies = ", ".join(f"{name} {100 * np.trace(c) / c.sum():.1f} %" for name, (c, _) in by_method.items())
    numbers = (
        " A cell holds the share of its row in percent (none if that rounds to 0) and, below, the number of images."
    )
    rare = f" The minority is beyond the dashed line. {minority_sentence(choice.runs)}" if start is not None else ""
    caption = (
        f"Confusion matrices of the test images, {choice.title}, summed over n seeds, "
        f"{epoch_of_classifier(choice.runs)}."
        f" Test accuracy: {accuracies}.{numbers if len(names) <= _WITH_NUMBERS else ''}{rare}"
        f"{canvas.class_key(ordered)}{choice.remark}"
    )
    return Figure(key("confusion", choice.group, choice.distortion), canvas.visible(caption), draw)
