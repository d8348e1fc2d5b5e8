"""Losses without state in which wrong labels have little weight."""

from torch import Tensor, nn

from autodo.config import objective
from autodo.objectives.base import Objective, ObjectiveContext, TrainStep, cross_entropies


class GeneralisedCrossEntropy(Objective):
    """(1 - p_y^q) / q, not truncated.

    Reference: Zhang and Sabuncu 2018, section 3.
    """

    def __init__(self, config: objective.GCE, context: ObjectiveContext) -> None:
        self.q = config.q

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        return generalised_cross_entropies(network(step.pixels), step.labels, self.q)


def generalised_cross_entropies(logits: Tensor, labels: Tensor, q: float) -> Tensor:
    """(1 - p_y^q) / q of each point. Shape: [b, C], [b] int64 -> [b]."""
    return -(-q * cross_entropies(logits, labels)).expm1() / q
