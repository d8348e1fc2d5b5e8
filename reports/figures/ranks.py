"""Critical-difference diagram of average ranks."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet
from matplotlib.ticker import MaxNLocator

from reports.document import Figure, Floats
from reports.figures import canvas

ALPHA = 0.05


def draw_ranks(ax: Axes, names: Sequence[str], ranks: Floats, p_values: Floats, alpha: float = ALPHA) -> None:
    """Methods on an axis of average ranks, 1 is best; a bar joins methods that do not differ significantly.

    Args:
        alpha: p value below which methods differ.
    Shape:
        names [M] distinct, ranks [M], p_values [M, M] symmetric, without NaN off the diagonal.
    Reference: Demšar 2006.
    """
    import scikit_posthocs

    labels = [canvas.plain(name, 40) for name in names]
    # Names that are cut to the same text stay different methods.
    labels = [label if labels.count(label) == 1 else f"{label} ({i + 1})" for i, label in enumerate(labels)]
    matrix = np.array(p_values, dtype=float)
    np.fill_diagonal(matrix, 1.0)
    drawn = scikit_posthocs.critical_difference_diagram(
        pd.Series(np.asarray(ranks, dtype=float), index=labels),
        pd.DataFrame(matrix, index=labels, columns=labels),
        alpha=alpha,
        ax=ax,
        text_h_margin=0.04 * max(float(np.ptp(ranks)), 0.1),
        label_fmt_left="{label}  {rank:.2f} ",
        label_fmt_right=" {rank:.2f}  {label}",
        label_props={"fontsize": 7.5},
        marker_props={"s": 12},
        elbow_props={"color": canvas.GREY, "linewidth": 0.8},
        crossbar_props={"color": "#0072B2", "linewidth": 2.5},
    )
    for label in drawn["labels"]:
        label.set_color("black")
    # Names begin at the edges, so that the layout accounts for their width.
    ax.margins(x=0)
    ax.spines["top"].set_visible(True)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    ax.set_xlabel("average rank (1 is best)")
    ax.xaxis.set_label_position("top")


def rank_figure(
    key: str, caption: str, names: Sequence[str], ranks: Floats, p_values: Floats, alpha: float = ALPHA
) -> Figure:
    """A critical-difference diagram as a figure of a report; arguments as for `draw_ranks`."""

    @canvas.styled
    def draw() -> Sheet:
        figure = canvas.sheet(1.0 + 0.16 * len(names))
        ax = figure.add_subplot()
        draw_ranks(ax, names, ranks, p_values, alpha)
        return figure

    return Figure(key, canvas.visible(caption), draw)
