"""SOP: learns the label noise of each point as a sparse vector u*u - v*v."""

import torch
from torch import Tensor, nn

from autodo.config import objective
from autodo.losses import one_hot
from autodo.objectives.base import Objective, ObjectiveContext, TrainStep

MIN_PROBABILITY = 1e-4  # as in the published code


class SparseNoiseLoss(Objective):
    """Label noise s = u^2 onehot(y) - v^2 (1 - onehot(y)) of each point, with u and v in [-1, 1].

    theta and u descend the cross-entropy of y and max(p + s, 1e-4), normalised;
    v descends |onehot(argmax p) + s - onehot(y)|^2.

    u is one number per point, because s uses only its entry at y. u and v start near 0, where the factor 2u of the
    gradient keeps them until the residual of a point stays large; so s is sparse. They take plain gradient steps on the
    mean over the batch, with constant learning rates of their own.

    Reference: Liu et al. 2022, section 2, with its learning rates for CIFAR-10.
    """

    def __init__(self, config: objective.SOP, context: ObjectiveContext) -> None:
        self.lr_u, self.lr_v = config.lr_u, config.lr_v
        count, generator = len(context.labels), context.generator
        self.u, self.v = (
            config.deviation * torch.randn(count, width, generator=generator, device=generator.device)
            for width in (1, context.classes)
        )

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        p = network(step.pixels).softmax(1)
        u, v = (table[step.points].requires_grad_() for table in (self.u, self.v))
        losses = corrected_cross_entropies(p, step.labels, u, v.detach())
        (du,) = torch.autograd.grad(corrected_cross_entropies(p.detach(), step.labels, u, v.detach()).sum(), u)
        (dv,) = torch.autograd.grad(noise_residuals(p.detach(), step.labels, u.detach(), v).sum(), v)
        with torch.no_grad():
            for table, row, gradient, lr in ((self.u, u, du, self.lr_u), (self.v, v, dv, self.lr_v)):
                table[step.points] = (row - lr * gradient / step.size).clamp(-1, 1)
        return losses

    def rows(self) -> dict[str, Tensor]:
        return {"u": self.u, "v": self.v}


def noise(labels: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """s = u^2 onehot(y) - v^2 (1 - onehot(y)). Shape: [b] int64, [b, 1], [b, C] -> [b, C]."""
    own = one_hot(labels, v.shape[1], v.dtype)
    return u.square() * own - v.square() * (1 - own)


def corrected_cross_entropies(p: Tensor, labels: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Cross-entropy of the labels and p + s. Shape: p [b, C], [b] int64, [b, 1], [b, C] -> [b]."""
    raised = (p + noise(labels, u, v)).clamp(min=MIN_PROBABILITY)
    corrected = (raised / raised.sum(1, keepdim=True)).gather(1, labels[:, None]).squeeze(1)
    return -corrected.clamp(min=MIN_PROBABILITY).log()


def noise_residuals(p: Tensor, labels: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """|onehot(argmax p) + s - onehot(y)|^2. Shape: p [b, C], [b] int64, [b, 1], [b, C] -> [b]."""
    predicted, own = (one_hot(classes, p.shape[1], p.dtype) for classes in (p.argmax(1), labels))
    return (predicted + noise(labels, u, v) - own).square().sum(1)
