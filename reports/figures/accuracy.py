"""Test accuracy of each class."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet
from matplotlib.patches import Patch

from reports.analysis.classes import class_accuracies, class_names, majority_first, minority_sentence, worst_class
from reports.analysis.metrics import epoch_of_classifier
from reports.document import Figure, Floats
from reports.figures import canvas
from reports.figures.choices import Choice
from reports.figures.palette import Style
from reports.keys import key

_HATCHES = ("", "////", "\\\\\\\\", "----", "xxxx", "||||", "++++")
_AS_BARS = 20  # most classes that are drawn as bars


def draw_class_bars(
    ax: Axes,
    accuracies: Mapping[str, tuple[Floats, Floats]],
    class_names: Sequence[str],
    styles: Mapping[str, Style],
    minority_start: int | None = None,
) -> None:
    """A group of bars for each class, one bar a method, with one standard deviation; a dash if unknown.

    Args:
        accuracies: (mean, standard deviation) in percent by method.
        minority_start: position of the first minority class, before which a line is drawn.
    Shape:
        mean [C], std [C], NaN where unknown.
    """
    classes, width = len(class_names), 0.84 / max(1, len(accuracies))
    for i, (method, (mean, std)) in enumerate(accuracies.items()):
        style = styles[method]
        known = np.isfinite(mean)
        x = np.arange(classes) + (i - (len(accuracies) - 1) / 2) * width
        ax.bar(
            x[known],
            mean[known],
            width * 0.92,
            color=style.colour,
            hatch=_HATCHES[style.pattern],
            edgecolor="white",
            linewidth=0,
        )
        for at in np.flatnonzero(~(mean >= 0.5)):
            text = "0" if known[at] else "–"  # a bar without height is invisible
            ax.text(x[at], 0.5, text, ha="center", va="bottom", fontsize=6.5, color=style.colour)
        several = known & np.isfinite(std)
        ax.errorbar(x[several], mean[several], std[several], fmt="none", ecolor="black", elinewidth=0.6)
    _name_classes(ax, class_names, minority_start)


def draw_class_profiles(
    ax: Axes,
    accuracies: Mapping[str, tuple[Floats, Floats]],
    styles: Mapping[str, Style],
    minority_start: int | None = None,
) -> None:
    """For many classes: the accuracies of each method from its best class to its worst.

    Majority and minority are sorted separately, with a line between them. Arguments as for `draw_class_bars`.
    """
    for method, (mean, _) in accuracies.items():
        style = styles[method]
        split = len(mean) if minority_start is None else minority_start
        for part, offset in ((mean[:split], 0), (mean[split:], split)):
            known = np.sort(part[np.isfinite(part)])[::-1]
            x = offset + np.arange(len(known))
            ax.plot(x, known, color=style.colour, linestyle=style.linestyle or "-", linewidth=1.4)
    classes = max((len(mean) for mean, _ in accuracies.values()), default=0)
    ax.set_xlim(-1, classes)
    _divide(ax, classes, minority_start)
    ax.set_xlabel("classes, each method's best first")


def _name_classes(ax: Axes, names: Sequence[str], minority_start: int | None) -> None:
    labels = canvas.class_labels(names, 14)
    ax.set_xticks(range(len(names)), labels)
    if max(map(len, labels), default=0) > 5:
        for label in ax.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.6, len(names) - 0.4)
    _divide(ax, len(names), minority_start)


def _divide(ax: Axes, classes: int, minority_start: int | None) -> None:
    ax.set_ylim(0, 100)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.set_ylabel("test accuracy (%)")
    if minority_start is not None:
        ax.axvline(minority_start - 0.5, color=canvas.GREY, linewidth=0.8, linestyle=(0, (4, 2)))
        for x, side in ((minority_start / 2 - 0.5, "majority"), ((minority_start + classes) / 2 - 0.5, "minority")):
            ax.annotate(
                side,
                (x, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                color=canvas.GREY,
            )


class ClassAccuracies(NamedTuple):
    """Mean and sample standard deviation over seeds of the test accuracy of each class, in percent.

    Args:
        n: seeds with an accuracy of any class; a seed counts only for classes in its test set.
        worst: the class with the lowest mean.
    Shape:
        mean [C], std [C], NaN where unknown.
    """

    mean: Floats
    std: Floats
    n: int
    worst: int


def accuracies_of(choice: Choice, classes: int) -> dict[str, ClassAccuracies]:
    """Class accuracies of each method; runs with another number of classes are left out."""
    found = {}
    for method in choice.methods:
        values = class_accuracies(choice.of(method), classes)
        worst = worst_class(values)
        if worst is not None:
            seeds = pd.DataFrame(values).dropna(how="all")
            found[method] = ClassAccuracies(seeds.mean().to_numpy(), seeds.std().to_numpy(), len(seeds), worst)
    return found


def accuracy_figures(choices: Sequence[Choice], styles: Mapping[str, Style]) -> list[Figure]:
    """A figure for each choice: the accuracy of each class by method."""
    figures = []
    for choice in choices:
        names = class_names(choice.runs)
        accuracies = accuracies_of(choice, len(names))
        if accuracies:
            figures.append(_figure(choice, names, accuracies, styles))
    return figures


def _figure(
    choice: Choice,
    names: Sequence[str],
    found: Mapping[str, ClassAccuracies],
    styles: Mapping[str, Style],
) -> Figure:
    order, start = majority_first(choice.runs, len(names))
    ordered = [names[label] for label in order]
    accuracies = {method: (of.mean[order], of.std[order]) for method, of in found.items()}
    bars = len(names) <= _AS_BARS

    @canvas.styled
    def draw() -> Sheet:
        figure = canvas.sheet(3.0 + 0.1 * len(found))
        ax = figure.add_subplot()
        if bars:
            draw_class_bars(ax, accuracies, ordered, styles, start)
            entries = [
                (Patch(facecolor=styles[m].colour, hatch=_HATCHES[styles[m].pattern], edgecolor="white"), m)
                for m in found
            ]
            canvas.legend(figure, [(patch, canvas.plain(method, 60)) for patch, method in entries])
        else:
            draw_class_profiles(ax, accuracies, styles, start)
            canvas.legend(figure, [canvas.line_entry(method, styles[method]) for method in found])
        return figure

    seeds = sorted({of.n for of in found.values()})
    n = f"n = {seeds[0]}" if len(seeds) == 1 else f"n from {seeds[0]} to {seeds[-1]}"
    how = (
        ("whiskers are one standard deviation" if seeds[-1] > 1 else "one seed, no standard deviation")
        if bars
        else "each method's classes are sorted from best to worst, the majority and the minority apart"
    )
    if any(np.isnan(of.mean).any() for of in found.values()):
        how += "; a dash or a gap: the test set has no image of the class"
    worst = ", ".join(f"{method} {of.mean[of.worst]:.1f} % ({names[of.worst]})" for method, of in found.items())
    rare = f" {minority_sentence(choice.runs)}" if start is not None else ""
    caption = (
        f"Test accuracy of each class, {choice.title}, mean over seeds ({n}) {epoch_of_classifier(choice.runs)}; "
        f"{how}. Worst class (lowest mean): {worst}.{rare}{canvas.class_key(ordered)}{choice.remark}"
    )
    return Figure(key("class-accuracy", choice.group, choice.distortion), canvas.visible(caption), draw)
