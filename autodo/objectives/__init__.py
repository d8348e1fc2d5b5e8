"""Train losses: the plain one, and those of methods for imbalance and label noise."""

from collections.abc import Callable
from typing import Any

from autodo.objectives.base import Objective, ObjectiveContext, TrainStep
from autodo.objectives.early_learning import EarlyLearning
from autodo.objectives.imbalance import ClassBalanced, LogitAdjustment, Margins
from autodo.objectives.learned_labels import JointOptimization, Pencil
from autodo.objectives.meta import LearnedReweighting, MetaWeightNet
from autodo.objectives.mixing import CutMix, Mixup
from autodo.objectives.plain import LabelSmoothing, Plain
from autodo.objectives.robust import GeneralisedCrossEntropy
from autodo.objectives.sparse_noise import SparseNoise

OBJECTIVES: dict[str, Callable[[Any, ObjectiveContext], Objective]] = {
    "label-smoothing": LabelSmoothing,
    "mixup": Mixup,
    "cutmix": CutMix,
    "class-balanced": ClassBalanced,
    "ldam-drw": Margins,
    "logit-adjustment": LogitAdjustment,
    "gce": GeneralisedCrossEntropy,
    "elr": EarlyLearning,
    "sop": SparseNoise,
    "pencil": Pencil,
    "joint-optimization": JointOptimization,
    "meta-weight-net": MetaWeightNet,
    "l2rw": LearnedReweighting,
}

__all__ = ["OBJECTIVES", "Objective", "ObjectiveContext", "TrainStep", "build_objective"]


def build_objective(context: ObjectiveContext) -> Objective:
    """Build the train loss of a run.

    Raises:
        ConfigError: if it does not support several processes, and there are several.
    """
    config = context.config.objective
    return Plain(context) if config is None else OBJECTIVES[config.kind](config, context)
