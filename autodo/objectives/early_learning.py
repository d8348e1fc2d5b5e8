"""ELR: keeps predictions close to earlier ones, from before wrong labels were learned."""

import torch
from torch import Tensor, nn

from autodo.config import objective
from autodo.objectives.base import Objective, ObjectiveContext, TrainStep

MIN_PROBABILITY = 1e-4  # as in the published code, which clamps to [1e-4, 1 - 1e-4]


class EarlyLearningLoss(Objective):
    """-log p_y + lambda log(1 - <p, t>), where t is the running prediction of the point: t <- beta t + (1 - beta) p.

    t starts at 0 and is updated before its use. The gradient of the second term pulls p towards t.

    Reference: Liu et al. 2020, section 4.
    """

    def __init__(self, config: objective.ELR, context: ObjectiveContext) -> None:
        self.strength, self.beta = config.strength, config.beta
        self.targets = torch.zeros(len(context.labels), context.classes, device=context.labels.device)

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        logits = network(step.pixels)
        with torch.no_grad():
            p = logits.softmax(1).clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
            target = self.beta * self.targets[step.points] + (1 - self.beta) * p / p.sum(1, keepdim=True)
            self.targets[step.points] = target.to(self.targets.dtype)
        return early_learning_losses(logits, step.labels, target, self.strength)

    def rows(self) -> dict[str, Tensor]:
        return {"targets": self.targets}


def early_learning_losses(logits: Tensor, labels: Tensor, targets: Tensor, strength: float) -> Tensor:
    """Cross-entropy + strength log(1 - <p, targets>). Shape: [b, C], [b] int64, [b, C] -> [b]."""
    log_p = logits.log_softmax(1)
    p = log_p.exp().clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    agreement = (p * targets).sum(1)
    return -log_p.gather(1, labels[:, None]).squeeze(1) + strength * (1 - agreement).log()
