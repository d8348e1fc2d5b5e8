"""Train losses: the plain one, and those of methods for imbalance and label noise."""

from collections.abc import Callable
from typing import Any

from autodo import plugins
from autodo.config.objective import ObjectiveSettings
from autodo.objectives.base import Objective, ObjectiveContext, TrainableNetwork, TrainStep, cross_entropies
from autodo.objectives.co_teaching import CoTeachingLoss
from autodo.objectives.early_learning import EarlyLearningLoss
from autodo.objectives.imbalance import ClassBalancedLoss, LogitAdjustmentLoss, MarginLoss
from autodo.objectives.label_posterior import LabelPosteriorLoss
from autodo.objectives.learned_labels import JointOptimizationLoss, PencilLoss
from autodo.objectives.loss_correction import ForwardCorrectionLoss, GoldLossCorrection
from autodo.objectives.meta import LearnedReweightingLoss, MetaWeightNetLoss
from autodo.objectives.mixing import CutMixLoss, MixupLoss
from autodo.objectives.plain import LabelSmoothingLoss, PlainLoss
from autodo.objectives.robust import GeneralisedCrossEntropy
from autodo.objectives.sparse_noise import SparseNoiseLoss

OBJECTIVES: dict[str, Callable[[Any, ObjectiveContext], Objective]] = {
    "label-smoothing": LabelSmoothingLoss,
    "mixup": MixupLoss,
    "cutmix": CutMixLoss,
    "class-balanced": ClassBalancedLoss,
    "ldam-drw": MarginLoss,
    "label-posterior": LabelPosteriorLoss,
    "logit-adjustment": LogitAdjustmentLoss,
    "gce": GeneralisedCrossEntropy,
    "elr": EarlyLearningLoss,
    "sop": SparseNoiseLoss,
    "pencil": PencilLoss,
    "joint-optimization": JointOptimizationLoss,
    "glc": GoldLossCorrection,
    "forward-correction": ForwardCorrectionLoss,
    "co-teaching": CoTeachingLoss,
    "meta-weight-net": MetaWeightNetLoss,
    "l2rw": LearnedReweightingLoss,
}

__all__ = [
    "OBJECTIVES",
    "Objective",
    "ObjectiveContext",
    "TrainStep",
    "TrainableNetwork",
    "build_objective",
    "cross_entropies",
]


def build_objective(context: ObjectiveContext) -> Objective:
    """Build the train loss of a run.

    Raises:
        ConfigError: if it does not support several processes, and there are several; or if it is of a plug-in that is
            missing, or not as it was when the run was planned.
    """
    config = context.config.objective
    if config is None:
        return PlainLoss(context)
    if isinstance(config, ObjectiveSettings):
        objective: Objective = plugins.get("objective", config.kind, config.code).plugin.build(config, context)
        return objective
    return OBJECTIVES[config.kind](config, context)
