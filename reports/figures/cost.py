"""Test error against the time of a run, relative to the baseline's."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reports.analysis.cost import condition_notes, relative_costs
from reports.analysis.metrics import epoch_of_classifier
from reports.analysis.stats import mean_std
from reports.document import Figure
from reports.figures import canvas
from reports.figures.choices import Choice
from reports.figures.palette import Style
from reports.keys import key

_MARKERS = "osD^vPX"


class CostQuality(NamedTuple):
    """A method's time of a run over the baseline's, test error and standard deviation over seeds in percent."""

    name: str
    cost: float
    error: float
    std: float | None


def draw_cost_quality(ax: Axes, methods: Sequence[CostQuality], styles: Mapping[str, Style]) -> None:
    """A marker, a name and one standard deviation for each method; the cost on a logarithmic axis.

    Names are placed where they cover no marker or other name, if possible, with a thin line to a distant marker.
    """
    for method in methods:
        style = styles[method.name]
        x, y = [method.cost], [method.error]
        ax.errorbar(x, y, method.std, color=style.colour, elinewidth=0.8, fmt="none")
        ax.plot(x, y, _MARKERS[style.pattern], color=style.colour, markersize=6, markeredgecolor="white")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(10, subs=(1, 1.5, 2, 3, 5, 7)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    costs = [method.cost for method in methods]
    if costs:
        # At least an octave, so that nearly equal costs do not look far apart, and room for names.
        middle, reach = np.sqrt(min(costs) * max(costs)), max(np.sqrt(max(costs) / min(costs)), 2**0.5)
        ax.set_xlim(middle / reach**1.35, middle * reach**1.35)
    ax.margins(y=0.18)
    ax.grid()
    ax.set_axisbelow(True)
    ax.set_xlabel("time of a run, × the baseline of the same launch (log scale)")
    ax.set_ylabel("test error (%)")
    _write_names(ax, methods)


def _write_names(ax: Axes, methods: Sequence[CostQuality]) -> None:
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # positions the axes
    scale = figure.dpi / 72
    inside = ax.get_window_extent()
    positions = ax.transData.transform([(m.cost, m.error) for m in methods]) if methods else np.empty((0, 2))
    taken = [(x - 5 * scale, y - 5 * scale, x + 5 * scale, y + 5 * scale) for x, y in positions]
    for (x, y), method in zip(positions, methods, strict=True):
        reach = ax.transData.transform([(method.cost, method.error + (method.std or 0))])[0, 1] - y
        taken.append((x - scale, y - reach, x + scale, y + reach))
    for (x, y), method in sorted(zip(positions, methods, strict=True), key=lambda pair: -pair[0][1]):
        note = ax.annotate(
            canvas.plain(method.name, 40),
            (method.cost, method.error),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=7,
            annotation_clip=False,
        )
        note.set_in_layout(False)
        extent = note.get_window_extent()
        width, height = extent.width, extent.height
        best, fewest = (0.0, 0.0), np.inf
        for dx, dy in _offsets(width / scale, height / scale):
            box = (x + dx * scale, y + dy * scale, x + dx * scale + width, y + dy * scale + height)
            hidden = sum(_overlap(box, other) for other in taken) + width * height - _overlap(box, inside.extents)
            if hidden < fewest - 1e-6:
                best, fewest = (dx, dy), hidden
        note.set_position(best)
        taken.append(
            (x + best[0] * scale, y + best[1] * scale, x + best[0] * scale + width, y + best[1] * scale + height)
        )
        _connect(ax, note, best, width / scale, height / scale)


def _offsets(width: float, height: float) -> list[tuple[float, float]]:
    """Candidate offsets of a name, in points from its marker to its lower left corner; the nearest first."""
    places = []
    for distance in (6, 12, 20, 30, 42, 56):
        middle = -height / 2
        places += [(distance, middle), (-distance - width, middle)]
        places += [(-width / 2, distance), (-width / 2, -distance - height)]
        places += [(x, y) for y in (distance, -distance - height) for x in (2, -width - 2, distance, -width - distance)]
    return places


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Common area of two boxes (x0, y0, x1, y1)."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, float(width)) * max(0.0, float(height))


def _connect(ax: Axes, note: Annotation, offset: tuple[float, float], width: float, height: float) -> None:
    """Draw a thin line from a name to its marker if they are far apart."""
    near_x = min(max(0.0, offset[0]), offset[0] + width)
    near_y = min(max(0.0, offset[1]), offset[1] + height)
    if near_x**2 + near_y**2 > 9**2:
        ax.annotate(
            "",
            note.xy,
            xytext=(near_x, near_y),
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": canvas.GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3},
        ).set_in_layout(False)


def cost_quality(runs: pd.DataFrame) -> list[CostQuality]:
    """Means over seeds of each method; methods without a relative cost are left out.

    Args:
        runs: rows of the frame of `named` of one cell.
    """
    costs = relative_costs(runs)
    found = []
    for name, of_method in runs.groupby("name", sort=False):
        cost, _ = mean_std(costs[of_method.index].tolist())
        error, std = mean_std((100 * of_method["error_best_val"].astype(float)).tolist())
        if cost is not None and error is not None:
            found.append(CostQuality(str(name), cost, error, std))
    return found


def cost_figures(choices: Sequence[Choice], styles: Mapping[str, Style]) -> list[Figure]:
    """A figure for each choice with at least two methods that have a relative cost."""
    figures = []
    for choice in choices:
        methods = cost_quality(choice.runs)
        if len(methods) > 1:
            figures.append(_figure(choice, methods, styles))
    return figures


def _figure(choice: Choice, methods: Sequence[CostQuality], styles: Mapping[str, Style]) -> Figure:
    @canvas.styled
    def draw() -> Sheet:
        figure = canvas.sheet(3.4 + 0.05 * max(0, len(methods) - 6))
        draw_cost_quality(figure.add_subplot(), methods, styles)
        return figure

    devices = sorted({str(device) for device in choice.runs["device"].dropna()})
    on = f" Measured on {'; '.join(devices)}." if devices else ""
    numbers = ", ".join(f"{m.name} {m.error:.2f} % at {m.cost:.2f}" for m in methods)
    conditions = "".join(f" {note}" for note in condition_notes(choice.runs))
    caption = (
        f"Test error {epoch_of_classifier(choice.runs)} against the time of a run relative to the baseline's in the "
        f"same launch, {choice.title}, means over seeds: {numbers}. The search for a policy before the training is not "
        f"counted.{on}{conditions}{choice.remark}"
    )
    return Figure(key("cost-quality", choice.group, choice.distortion), canvas.visible(caption), draw)
