"""Learning curves: Fig. 5 and 7 of the paper."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.document import Curve, Figure, Floats, Panel
from reports.figures import canvas
from reports.figures.choices import Choice
from reports.figures.palette import Style
from reports.keys import key


def draw_curves(ax: Axes, curves: Sequence[Curve], styles: Mapping[str, Style]) -> None:
    """A line of means and a band of one standard deviation for each curve, with gaps at missing epochs.

    A triangle marks the start of the outer phase.
    """
    for curve in curves:
        style = styles[curve.name]
        epoch, mean, std = _with_gaps(curve)
        lone = np.isfinite(mean) & ~np.isfinite(np.roll(mean, 1)) & ~np.isfinite(np.roll(mean, -1))
        ax.plot(epoch, mean, color=style.colour, linestyle=style.linestyle or "-", linewidth=1.4)
        if curve.epoch.size == 1 or lone[1:-1].any():
            ax.plot(epoch[lone], mean[lone], "o", color=style.colour, markersize=3)
        if np.isfinite(std).any():
            ax.fill_between(epoch, mean - std, mean + std, color=style.colour, alpha=0.18, linewidth=0)
        if curve.outer_start is not None and curve.outer_start in curve.epoch:
            at = int(np.flatnonzero(curve.epoch == curve.outer_start)[0])
            start = ([curve.outer_start], [curve.mean[at]])
            ax.plot(*start, "v", markersize=6, color=style.colour, markeredgecolor="white", zorder=4)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.margins(x=0.02)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _with_gaps(curve: Curve) -> tuple[Floats, Floats, Floats]:
    """Epochs, means and deviations, with NaN in each gap."""
    step = np.diff(curve.epoch)
    at = np.flatnonzero(step > (step.min() if step.size else 1)) + 1
    gap = np.insert(curve.epoch.astype(float), at, curve.epoch[at - 1] + 0.5)
    return gap, np.insert(curve.mean, at, np.nan), np.insert(curve.std, at, np.nan)


def curve_figures(panels: Sequence[Panel], styles: Mapping[str, Style], choices: Sequence[Choice]) -> list[Figure]:
    """A figure for each choice, with all quantities side by side.

    Args:
        panels: from `learning_curves`.
    """
    figures = []
    for choice in choices:
        mine = [panel for panel in panels if panel.group == choice.title]
        shown = [name for name in choice.methods if any(c.name == name for panel in mine for c in panel.curves)]
        if shown:
            figures.append(_figure(choice, mine, shown, styles))
    return figures


def _figure(choice: Choice, panels: Sequence[Panel], shown: Sequence[str], styles: Mapping[str, Style]) -> Figure:
    by_quantity = [
        (panel, [curve for name in shown for curve in panel.curves if curve.name == name]) for panel in panels
    ]
    starts = any(curve.outer_start is not None for _, curves in by_quantity for curve in curves)

    @canvas.styled
    def draw() -> Sheet:
        columns = min(3, len(by_quantity))
        figure, axes = canvas.panels(len(by_quantity), 2.2, columns=columns, extra_height=0.3 + 0.08 * len(shown))
        for ax, (panel, curves) in zip(axes, by_quantity, strict=True):
            draw_curves(ax, curves, styles)
            unit = f" ({panel.unit})" if panel.unit else ""
            ax.set_title(canvas.plain(f"{panel.quantity}{unit}"))
            ax.set_xlabel("epoch")
        entries = [canvas.line_entry(name, styles[name]) for name in shown]
        if starts:
            mark = Line2D([], [], marker="v", markersize=6, color=canvas.GREY, linestyle="none")
            entries.append((mark, "outer phase starts"))
        canvas.legend(figure, entries)
        return figure

    names = ", ".join(panel.quantity for panel in panels)
    mark = " A triangle marks the first epoch with an outer pass." if starts else ""
    caption = (
        f"Learning curves ({names}), {choice.title}: mean over seeds and a band of one standard deviation.{mark}"
        f"{choice.remark}"
    )
    return Figure(key("learning-curves", choice.group, choice.distortion), canvas.visible(caption), draw)
