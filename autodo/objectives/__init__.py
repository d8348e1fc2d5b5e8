"""The train loss of a batch: what methods for imbalance and label noise exchange for the plain one."""

from collections.abc import Callable
from typing import Any

from autodo.objectives.base import Objective, Setting, Step
from autodo.objectives.early_learning import EarlyLearning
from autodo.objectives.imbalance import ClassBalanced, LogitAdjustment, Margins
from autodo.objectives.meta import LearnedReweighting, MetaWeightNet
from autodo.objectives.mixing import CutMix, Mixup
from autodo.objectives.plain import LabelSmoothing, Plain
from autodo.objectives.robust import GeneralisedCrossEntropy
from autodo.objectives.sparse_noise import SparseNoise

OBJECTIVES: dict[str, Callable[[Any, Setting], Objective]] = {
    "label-smoothing": LabelSmoothing,
    "mixup": Mixup,
    "cutmix": CutMix,
    "class-balanced": ClassBalanced,
    "ldam-drw": Margins,
    "logit-adjustment": LogitAdjustment,
    "gce": GeneralisedCrossEntropy,
    "elr": EarlyLearning,
    "sop": SparseNoise,
    "meta-weight-net": MetaWeightNet,
    "l2rw": LearnedReweighting,
}

__all__ = ["OBJECTIVES", "Objective", "Setting", "Step", "build_objective"]


def build_objective(setting: Setting) -> Objective:
    """The train loss of a run.

    Raises:
        ConfigError: if it cannot be trained by several workers, and there are.
    """
    config = setting.config.objective
    return Plain(setting) if config is None else OBJECTIVES[config.kind](config, setting)
