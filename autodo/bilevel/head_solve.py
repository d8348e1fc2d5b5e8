"""Solve of the inner problem in the head alone: regularised multinomial logistic regression with soft labels."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup

CHUNK_SIZE = 2**16
"""Points whose logits are in memory at a time."""


class HeadProblem(NamedTuple):
    """mean_i w_i CE(q_i, softmax(W z_i + b + shift)) + weight_decay / 2 |W|^2, which is convex in W and b.

    Shape:
        features [n, D], targets [n, C] (rows that sum to 1), weights [n], shift [C]; n is this process's share.
    """

    features: Tensor
    targets: Tensor
    weights: Tensor
    shift: Tensor
    weight_decay: float
    total: int
    """Number of points on all processes."""

    def value_and_gradient(self, theta: Tensor, group: ProcessGroup = SINGLE_PROCESS) -> tuple[Tensor, Tensor]:
        """The loss and its gradient; processes exchange only their sums.

        Shape:
            theta [C, D + 1], the bias last -> [], [C, D + 1].
        """
        weight, bias = theta[:, :-1], theta[:, -1] + self.shift
        gradient = torch.zeros_like(theta)
        loss = theta.new_zeros(())
        for z, q, w in zip(*(part.split(CHUNK_SIZE) for part in self[:3]), strict=True):
            log_p = (z @ weight.T + bias).log_softmax(1)
            loss -= (w * (q * log_p).sum(1)).sum()
            # The residual p - q of each point, times its weight.
            slope = w[:, None] * (log_p.exp() - q)
            gradient[:, :-1] += slope.T @ z
            gradient[:, -1] += slope.sum(0)
        sums = group.all_reduce(torch.cat([loss.reshape(1), gradient.flatten()])) / self.total
        value, gradient = sums[0], sums[1:].view_as(theta)
        value = value + self.weight_decay / 2 * weight.square().sum()
        gradient[:, :-1] += self.weight_decay * weight
        return value, gradient


def solve_head(
    problem: HeadProblem,
    *,
    tolerance: float,
    max_iterations: int,
    start: Tensor | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Tensor:
    """Minimise the loss of a linear head by L-BFGS with a line search that keeps the strong Wolfe conditions.

    Every process gets the same sums, and so takes the same steps.

    Args:
        tolerance: largest absolute value of the gradient at the solution, as a share of that at zero.
        max_iterations: number of steps, if the tolerance is not reached before.
        start: first guess; None: zeros.
    Shape:
        start and result [C, D + 1], the bias last.
    """
    zeros = problem.features.new_zeros(problem.targets.shape[1], problem.features.shape[1] + 1)
    _, steepest = problem.value_and_gradient(zeros, group)
    theta = nn.Parameter(zeros if start is None else start.clone())
    optimizer = torch.optim.LBFGS(
        [theta],
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        tolerance_grad=tolerance * float(steepest.abs().max()),
        tolerance_change=0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    @torch.no_grad()
    def loss_and_gradient() -> Tensor:
        value, theta.grad = problem.value_and_gradient(theta.detach(), group)
        return value

    optimizer.step(loss_and_gradient)
    return theta.detach()


def linear_head(theta: Tensor) -> nn.Linear:
    """A linear layer with these weights. Shape: theta [C, D + 1], the bias last."""
    classes, features = theta.shape[0], theta.shape[1] - 1
    head = nn.utils.skip_init(nn.Linear, features, classes, device=theta.device, dtype=theta.dtype)
    with torch.no_grad():
        head.weight.copy_(theta[:, :-1])
        head.bias.copy_(theta[:, -1])
    return head
