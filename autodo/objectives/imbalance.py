"""Losses that use the class counts: weights, margins and shifts by class."""

import torch
from torch import Tensor, nn

from autodo.config import objective
from autodo.objectives.base import Objective, ObjectiveContext, TrainStep, cross_entropies
from autodo.objectives.plain import PlainLoss


class ClassBalancedLoss(PlainLoss):
    """v_y times the plain loss, with the weights v of `effective_number_weights`.

    Reference: Cui et al. 2019, section 4.
    """

    def __init__(self, config: objective.ClassBalanced, context: ObjectiveContext) -> None:
        counts = context.class_counts(oracle=config.oracle)
        super().__init__(context, class_weights=effective_number_weights(counts, config.beta).float())


class LogitAdjustmentLoss(PlainLoss):
    """Plain loss of the logits f + tau log(share of the class); predictions are those of f.

    Reference: Menon et al. 2021, eq. (10).
    """

    def __init__(self, config: objective.LogitAdjustment, context: ObjectiveContext) -> None:
        counts = context.class_counts(oracle=config.oracle)
        super().__init__(context, shift=(config.tau * (counts / counts.sum()).log()).float())


class MarginLoss(Objective):
    """Cross-entropy of the logits s (cos_c - m_y [c = y]), with the margins of `label_aware_margins`: LDAM-DRW.

    The logits s cos_c are scaled cosines between the features and the weights of each class (`CosineHead`), in
    training and evaluation. In the last `deferred_share` of the epochs, class-balanced weights are added, normalised to
    a mean of 1 over the points; the published code divides by the weights of each batch, which is the same in
    expectation.

    Reference: Cao et al. 2019, section 3 and algorithm 1.
    """

    def __init__(self, config: objective.LDAM, context: ObjectiveContext) -> None:
        counts = context.class_counts(oracle=config.oracle)
        self.shift = (config.scale * label_aware_margins(counts, config.max_margin)).float()
        weights = effective_number_weights(counts, config.beta)
        self.weights = (weights * counts.sum() / (weights * counts).sum()).float()
        self.deferred_start = config.deferred_start(context.config.finetune_start)

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        losses = cross_entropies(with_margins(network(step.pixels), step.labels, self.shift), step.labels)
        return self.weights[step.labels] * losses if step.epoch >= self.deferred_start else losses


def effective_number_weights(counts: Tensor, beta: float) -> Tensor:
    """(1 - beta) / (1 - beta^n_c), scaled to sum to C. Shape: counts [C] float, positive -> [C]."""
    weights = (1 - beta) / (1 - beta**counts)
    return weights * len(counts) / weights.sum()


def label_aware_margins(counts: Tensor, largest: float) -> Tensor:
    """K / n_c^(1/4), with K such that the largest margin is `largest`. Shape: counts [C] float, positive -> [C]."""
    margins = counts ** (-1 / 4)
    return margins * largest / margins.max()


def with_margins(logits: Tensor, labels: Tensor, shift: Tensor) -> Tensor:
    """Subtract `shift` of the class from the logit of the label. Shape: [b, C], [b] int64, [C] -> [b, C]."""
    own = torch.zeros_like(logits).scatter(1, labels[:, None], shift[labels][:, None].to(logits.dtype))
    return logits - own
