"""Losses between a target distribution q and the prediction p = softmax(logits), with their derivatives in the logits.

The hypergradient needs the residual and the Hessian of the loss in the logits. Both have closed forms, so the outer
problem is arithmetic on [B, C] without a second backward pass.
Arguments are logarithms: `log_p`, `log_q` [B, C]; `tangent` [B, C] is a direction in the logits.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from autodo.config.bilevel import LossName


class Loss(Protocol):
    """Loss per point, with its derivatives in the logits."""

    @staticmethod
    def value(log_p: Tensor, log_q: Tensor) -> Tensor:
        """Loss of each point. Shape: -> [B]."""

    @staticmethod
    def residual(log_p: Tensor, log_q: Tensor) -> Tensor:
        """d value / d logits. Shape: -> [B, C]."""

    @staticmethod
    def hessian_product(log_p: Tensor, log_q: Tensor, tangent: Tensor) -> Tensor:
        """(d2 value / d logits2) tangent. Shape: -> [B, C]."""


def one_hot(labels: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """One-hot labels, without the value checks of torch's function. Shape: [B] int64 -> [B, classes]."""
    return (labels[:, None] == torch.arange(classes, device=labels.device)).to(dtype)


def softmax_curvature(p: Tensor, tangent: Tensor) -> Tensor:
    """(diag p - p p') t: the Hessian of cross-entropy and KL, and the Gauss-Newton part of the symmetric KL.

    Shape:
        p, tangent [B, C] -> [B, C]. Positive semi-definite.
    """
    return p * (tangent - (p * tangent).sum(1, keepdim=True))


class CrossEntropy:
    """-sum q log p. `log_q` may contain -inf (a hard label)."""

    @staticmethod
    def value(log_p: Tensor, log_q: Tensor) -> Tensor:
        return -(log_q.exp() * log_p).sum(1)

    @staticmethod
    def residual(log_p: Tensor, log_q: Tensor) -> Tensor:
        return log_p.exp() - log_q.exp()

    @staticmethod
    def hessian_product(log_p: Tensor, log_q: Tensor, tangent: Tensor) -> Tensor:
        return softmax_curvature(log_p.exp(), tangent)


class KL(CrossEntropy):
    """KL(q || p) = sum q (log q - log p): cross-entropy minus the entropy of q, which depends on lam^S."""

    @staticmethod
    def value(log_p: Tensor, log_q: Tensor) -> Tensor:
        return (log_q.exp() * (log_q - log_p)).sum(1)


class SymmetricKL:
    """(KL(q || p) + KL(p || q)) / 2. Reference: Gudovskiy et al. 2021, section 4.2.

    With c = log p - log q, k = <p, c> and m = p (c - k): KL(p || q) = k, its gradient in the logits is m, and its
    Hessian is p (t - <p,t>)(1 + c - k) - p <m, t>. It can be indefinite away from a minimum.
    """

    @staticmethod
    def value(log_p: Tensor, log_q: Tensor) -> Tensor:
        return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1) / 2

    @staticmethod
    def residual(log_p: Tensor, log_q: Tensor) -> Tensor:
        p = log_p.exp()
        return (p - log_q.exp() + _reverse_residual(log_p, log_q)) / 2

    @staticmethod
    def hessian_product(log_p: Tensor, log_q: Tensor, tangent: Tensor) -> Tensor:
        p = log_p.exp()
        c = log_p - log_q
        k = (p * c).sum(1, keepdim=True)
        m = p * (c - k)
        forward = softmax_curvature(p, tangent)
        return (forward * (2 + c - k) - p * (m * tangent).sum(1, keepdim=True)) / 2


def _reverse_residual(log_p: Tensor, log_q: Tensor) -> Tensor:
    # With an exponential of its own: autograd sums the gradients in another order if both terms share one.
    p = log_p.exp()
    c = log_p - log_q
    return p * (c - (p * c).sum(1, keepdim=True))


LOSSES: dict[LossName, type[Loss]] = {
    "cross-entropy": CrossEntropy,
    "kl": KL,
    "symmetric-kl": SymmetricKL,
}


class InnerLoss(NamedTuple):
    """Loss of a point in the inner problem: v_y w loss(q, softmax(f + shift)), where f are the logits.

    Shift and class weights are constants, so residual and Hessian in the logits are those of `loss` at the shifted
    logits, times the weight. Predictions and the val loss use f itself.

    Shape:
        shift, class_weights [C]; None for zeros and ones.
    """

    loss: type[Loss]
    shift: Tensor | None = None
    class_weights: Tensor | None = None
    """v, by the observed label y of a point."""

    def shifted(self, logits: Tensor) -> Tensor:
        """f + shift. Shape: [B, C] -> [B, C]."""
        return logits if self.shift is None else logits + self.shift

    def weighted(self, weights: Tensor, labels: Tensor) -> Tensor:
        """v_y w. Shape: weights [B], observed labels [B] int64 -> [B]."""
        return weights if self.class_weights is None else self.class_weights[labels] * weights

    def values(self, logits: Tensor, labels: Tensor, weights: Tensor, log_targets: Tensor) -> Tensor:
        """Loss of each point. Shape: logits, log_targets [B, C], labels [B] int64, weights [B] -> [B]."""
        log_p = self.shifted(logits).log_softmax(1)
        return self.weighted(weights, labels) * self.loss.value(log_p, log_targets)
