"""Inner problem in theta, the weight of the last layer, for fixed features: solves and gradients of lam."""

import torch
from torch import Tensor, nn

from autodo.bilevel.hypergradient import hessian_matvec, implicit_objective
from autodo.bilevel.inverse_hessian import NEEDS_POSITIVE_DEFINITE, build_solver
from autodo.config.bilevel import OuterConfig
from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from autodo.losses import Loss
from autodo.points.model import PointView


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
        loss: type[Loss],
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
        self.gauss_newton = config.solver in NEEDS_POSITIVE_DEFINITE
        """Whether the solver gets only the Gauss-Newton part of the Hessian."""

    def solve(
        self, features: Tensor, weights: Tensor, log_targets: Tensor | None, count: int, gradient: Tensor
    ) -> Tensor:
        """u = H^-1 gradient; every process solves the same equation, and all use the solution of the first.

        Args:
            log_targets: may be None if `gauss_newton`, which does not use them.
            count: number of points on all processes.
        Shape:
            features [B, D], weights [B], log_targets [B, C], gradient [C, D] -> [C, D].
        """
        matvec = hessian_matvec(
            self.loss,
            self.head(features),
            features,
            weights,
            None if self.gauss_newton else log_targets,
            damping=self.damping,
            count=count,
            group=self.group,
        )
        return self.group.broadcast(self.solver(matvec, gradient))

    def hypergradient(self, rows: Tensor, view: PointView, features: Tensor, u: Tensor, count: int) -> Tensor:
        """Gradient of the val loss with respect to the rows of lam behind a view and its features.

        Args:
            count: number of points on all processes.
        """
        objective = implicit_objective(
            self.loss, self.head(features), features, view.weights, view.log_targets, u, count=count
        )
        (gradient,) = torch.autograd.grad(objective, rows)
        return gradient
