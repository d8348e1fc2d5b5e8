"""Inner problem in theta, the weight of the last layer, for fixed features: solves and gradients of lam."""

import torch
from torch import Tensor, nn

from autodo.bilevel.hypergradient import fisher_matvec, hessian_matvec, implicit_objective
from autodo.bilevel.inverse_hessian import CURVATURES, MatVec, build_solver
from autodo.config.bilevel import OuterConfig
from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from autodo.losses import InnerLoss
from autodo.points.model import Leaves, PointView


class LastLayer:
    """Loss, Hessian and solver of the last layer.

    Args:
        weight_decay: weight decay of the inner problem, which is part of the Hessian.
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
        self.damping = config.damping + weight_decay
        self.group = group
        self.solver = build_solver(config, size=head.weight.numel())
        self.curvature = CURVATURES.get(config.solver, "hessian")
        self.needs_targets = self.curvature != "gauss-newton"
        """Whether the matrix of the solver depends on the targets."""

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
            features [B, D], labels [B] int64, weights [B], log_targets [B, C], gradient [C, D] -> [C, D].
        """
        weights = self.loss.weighted(weights, labels)
        matvec = self._matvec(features, weights, log_targets if self.needs_targets else None, count)
        return self.group.broadcast(self.solver(matvec, gradient))

    def _matvec(self, features: Tensor, weights: Tensor, log_targets: Tensor | None, count: int) -> MatVec:
        given = self.loss.loss, self.loss.shifted(self.head(features)), features, weights
        if self.curvature == "fisher":
            assert log_targets is not None
            return fisher_matvec(*given, log_targets, damping=self.damping, count=count, group=self.group)
        return hessian_matvec(*given, log_targets, damping=self.damping, count=count, group=self.group)

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
        objective = implicit_objective(self.loss.loss, logits, features, weights, view.log_targets, u, count=count)
        wanted = [leaf for leaf in leaves if leaf is not None]
        # Rows without columns are not in the graph.
        rows, *shared = torch.autograd.grad(objective, wanted, materialize_grads=True)
        return Leaves(rows, shared[0] if shared else None)
