"""ELR: a point's prediction is held near what was predicted for it before, when wrong labels were not yet learned."""

import torch
from torch import Tensor, nn

from autodo.config import objective
from autodo.objectives.base import Objective, ObjectiveContext, TrainStep

LEAST = 1e-4  # the published code keeps probabilities in [1e-4, 1 - 1e-4]


class EarlyLearning(Objective):
    """-log p_y + lambda log(1 - <p, t>), where t is the point's running prediction: t <- beta t + (1 - beta) p.

    t begins at 0 and moves before it is used. The gradient of the second term draws p towards t.

    Reference: Liu et al. 2020, section 4.
    """

    def __init__(self, config: objective.ELR, context: ObjectiveContext) -> None:
        self.strength, self.beta = config.strength, config.beta
        self.targets = torch.zeros(len(context.labels), context.classes, device=context.labels.device)

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        logits = network(step.pixels)
        with torch.no_grad():
            p = logits.softmax(1).clamp(LEAST, 1 - LEAST)
            target = self.beta * self.targets[step.points] + (1 - self.beta) * p / p.sum(1, keepdim=True)
            self.targets[step.points] = target.to(self.targets.dtype)
        return early_learning_losses(logits, step.labels, target, self.strength)

    def rows(self) -> dict[str, Tensor]:
        return {"targets": self.targets}


def early_learning_losses(logits: Tensor, labels: Tensor, targets: Tensor, strength: float) -> Tensor:
    """Cross-entropy + strength log(1 - <p, targets>). Shape: [b, C], [b] int64, [b, C] -> [b]."""
    log_p = logits.log_softmax(1)
    p = log_p.exp().clamp(LEAST, 1 - LEAST)
    agreement = (p * targets).sum(1)
    return -log_p.gather(1, labels[:, None]).squeeze(1) + strength * (1 - agreement).log()
