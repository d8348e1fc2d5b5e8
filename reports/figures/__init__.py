"""Figures of a report: functions that draw arrays on an `ax`, and functions that make a `Figure` of a store's runs.

`choose` says which cells and methods of a grid are drawn; `files` turns a `Figure` into SVG and PNG.
"""

from reports.figures.accuracy import accuracy_figures
from reports.figures.choose import Choice, choose
from reports.figures.clusters import cluster_figures
from reports.figures.confusion import confusion_figures
from reports.figures.cost import cost_figures
from reports.figures.hyperparameters import hyperparameter_figures
from reports.figures.learning import curve_figures
from reports.figures.ranks import rank_figure
from reports.figures.rendering import RenderedFigure, render, save

__all__ = [
    "Choice",
    "RenderedFigure",
    "accuracy_figures",
    "choose",
    "cluster_figures",
    "confusion_figures",
    "cost_figures",
    "curve_figures",
    "hyperparameter_figures",
    "rank_figure",
    "render",
    "save",
]
