"""Critical-difference diagram of average ranks."""

from itertools import chain

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet
from matplotlib.ticker import MaxNLocator

from reports.analysis.stats import SIGNIFICANT, Ranks
from reports.document import Figure
from reports.figures import canvas


def draw_ranks(ax: Axes, ranks: Ranks) -> None:
    """Methods on an axis of average ranks, 1 is best; a bar joins methods that Nemenyi's test does not distinguish.

    Reference: Demšar 2006.
    """
    import scikit_posthocs

    labels = [canvas.plain(name, 40) for name in ranks.names]
    # Names that are cut to the same text stay different methods.
    labels = [label if labels.count(label) == 1 else f"{label} ({i + 1})" for i, label in enumerate(labels)]
    drawn = scikit_posthocs.critical_difference_diagram(
        pd.Series(ranks.average_rank, index=labels),
        pd.DataFrame(ranks.p_values, index=labels, columns=labels),
        alpha=SIGNIFICANT,
        ax=ax,
        text_h_margin=0.04 * max(float(np.ptp(ranks.average_rank)), 0.1),
        label_fmt_left="{label}  {rank:.2f} ",
        label_fmt_right=" {rank:.2f}  {label}",
        label_props={"fontsize": 7.5},
        marker_props={"s": 12},
        elbow_props={"color": canvas.GREY, "linewidth": 0.8},
        crossbar_props={"color": "#0072B2", "linewidth": 2.5},
    )
    for (bar,) in drawn["crossbars"]:
        bar.set_xdata(np.sort(bar.get_xdata()))  # they come in the order of a set, which differs between processes
    for label in drawn["labels"]:
        label.set_color("black")
    for bar in chain.from_iterable(drawn["crossbars"]):
        bar.set_xdata(np.sort(bar.get_xdata()))  # the library has them in the order of a set
    # Names begin at the edges, so that the layout accounts for their width.
    ax.margins(x=0)
    ax.spines["top"].set_visible(True)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    ax.set_xlabel("average rank (1 is best)")
    ax.xaxis.set_label_position("top")


def rank_figure(ranks: Ranks) -> Figure:
    """The critical-difference diagram of average ranks."""

    @canvas.styled
    def draw() -> Sheet:
        figure = canvas.sheet(1.0 + 0.16 * len(ranks.names))
        draw_ranks(figure.add_subplot(), ranks)
        return figure

    caption = (
        f"Critical-difference diagram: average ranks over {len(ranks.blocks)} cells; methods that a bar joins do not "
        "differ significantly in Nemenyi's test at 5%."
    )
    return Figure("average-ranks", canvas.visible(caption), draw)
