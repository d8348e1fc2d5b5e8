"""Inner problem in theta, the weight of the last layer, for fixed features: solves and gradients of lam.

If the head is solved (`outer.inner`), its bias is part of theta: the weight, without weight decay, of a feature that is
1.
"""

import torch
from torch import Tensor, nn

from autodo.bilevel.hypergradient import fisher_matvec, hessian_matvec, implicit_objective
from autodo.bilevel.inverse_hessian import CURVATURES, MatVec, build_solver
from autodo.config.bilevel import OuterConfig
from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from autodo.losses import InnerLoss, Loss
from autodo.points.model import Leaves, PointView


class LastLayer:
    """Loss, Hessian and solver of the last layer.

    Args:
        weight_decay: weight decay of the inner problem, which is part of the Hessian; that of a solved head may change.
    Raises:
        ConfigError: if the solver does not support a layer of this size.
    """

    def __init__(
        self,
        config: OuterConfig,
        loss: InnerLoss,
        head: nn.Linear,
        *,
        weight_decay: float,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.loss = loss
        self.head = head
        self.weight_decay = weight_decay
        self.group = group
        self.with_bias = config.inner == "head"
        self._damping = config.damping
        self.solver = build_solver(config, size=head.weight.numel())
        self.curvature = CURVATURES.get(config.solver, "hessian")
        self.needs_targets = self.curvature != "gauss-newton"
        """Whether the matrix of the solver depends on the targets."""

    @property
    def damping(self) -> float:
        """Added to the diagonal of the matrix of the solver, for the weights."""
        return self._damping + self.weight_decay

    def inputs(self, features: Tensor) -> Tensor:
        """Features that theta multiplies: with a bias in theta there is another one, which is 1.

        Shape:
            features [B, D] -> [B, D] or [B, D + 1].
        """
        return torch.cat([features, features.new_ones(len(features), 1)], 1) if self.with_bias else features

    def solve(
        self,
        features: Tensor,
        labels: Tensor,
        weights: Tensor,
        log_targets: Tensor | None,
        count: int,
        gradient: Tensor,
    ) -> Tensor:
        """u = H^-1 gradient; every process solves the same equation, and all use the solution of the first.

        Args:
            labels: observed labels, by which classes have weights.
            log_targets: may be None unless `needs_targets`.
            count: number of points on all processes.
        Shape:
            features [B, D], labels [B] int64, weights [B], log_targets [B, C], gradient and result those of theta,
            [C, D] or [C, D + 1].
        """
        weights = self.loss.weighted(weights, labels)
        matvec = self._matvec(features, weights, log_targets if self.needs_targets else None, count)
        return self.group.broadcast(self.solver(matvec, gradient))

    def _matvec(self, features: Tensor, weights: Tensor, log_targets: Tensor | None, count: int) -> MatVec:
        given = self.loss.loss, self.loss.shifted(self.head(features)), self.inputs(features), weights
        if self.curvature == "fisher":
            assert log_targets is not None
            return fisher_matvec(*given, log_targets, damping=self.damping, count=count, group=self.group)
        if self.with_bias:
            return self._hessian_with_bias(given, count)
        return hessian_matvec(*given, log_targets, damping=self.damping, count=count, group=self.group)

    def _hessian_with_bias(self, given: tuple[type[Loss], Tensor, Tensor, Tensor], count: int) -> MatVec:
        damping = torch.full_like(given[2][0], self.damping)
        damping[-1] = self._damping
        product = hessian_matvec(*given, None, damping=damping, count=count, group=self.group)

        def matvec(direction: Tensor) -> Tensor:
            # The loss does not change with the sum of the biases. Curvature in that direction alone makes the Hessian
            # definite, and no solution changes, since no gradient has a part in it.
            result = product(direction)
            result[:, -1] += direction[:, -1].mean()
            return result

        return matvec

    def hypergradient(
        self, leaves: Leaves, labels: Tensor, view: PointView, features: Tensor, u: Tensor, count: int
    ) -> Leaves:
        """Gradient of the val loss with respect to the values of lam behind a view and its features.

        Args:
            labels: observed labels of the points.
            count: number of points on all processes.
        """
        weights = self.loss.weighted(view.weights, labels)
        logits = self.loss.shifted(self.head(features))
        inputs = self.inputs(features)
        objective = implicit_objective(self.loss.loss, logits, inputs, weights, view.log_targets, u, count=count)
        wanted = [leaf for leaf in leaves if leaf is not None]
        # Rows without columns are not in the graph.
        rows, *shared = torch.autograd.grad(objective, wanted, materialize_grads=True)
        return Leaves(rows, shared[0] if shared else None)
