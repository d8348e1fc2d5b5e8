"""Solvers of H x = b, given H only as `matvec`; each is a function (matvec, b) -> x.

`b` and `x` have the same, arbitrary shape; `matvec` must be linear and symmetric.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from autodo.config.bilevel import OuterConfig, SolverName
from autodo.errors import ConfigError

MatVec = Callable[[Tensor], Tensor]
Solver = Callable[[MatVec, Tensor], Tensor]
# Largest dense matrix that `exact` builds: 800 MB in float64.
EXACT_LIMIT = 10_000


def identity(matvec: MatVec, b: Tensor) -> Tensor:
    """x = b: approximates the Hessian by the identity, as DARTS does."""
    return b


def neumann(
    matvec: MatVec, b: Tensor, *, iterations: int, step: float, scale: Literal["sum", "step"] = "step"
) -> Tensor:
    """x = step * sum_{j=0..iterations} (I - step H)^j b, which tends to H^-1 b if 0 < step H < 2.

    With few terms and a step far below 1 / |H|, this is close to step * (iterations + 1) * b.

    Args:
        scale: `sum` omits the factor `step` of the sum, as the published code of the paper does.
    Reference: Lorraine et al., AISTATS 2020, algorithm 3; Gudovskiy et al. 2021, T = 5.
    """
    term = b
    total = b
    for _ in range(iterations):
        term = term - step * matvec(term)
        total = total + term
    return total if scale == "sum" else step * total


def conjugate_gradient(matvec: MatVec, b: Tensor, *, iterations: int) -> Tensor:
    """x after `iterations` steps of conjugate gradients; exact after as many steps as H has distinct eigenvalues.

    H must be positive definite. There is no stopping test, so the host never waits for the device; once the residual
    is zero, further steps change nothing.
    Reference: Hestenes and Stiefel 1952.
    """
    x = torch.zeros_like(b)
    residual = b
    direction = b
    rho = (residual * residual).sum()
    floor = rho * torch.finfo(b.dtype).eps ** 2
    for _ in range(iterations):
        product = matvec(direction)
        alive = rho > floor
        alpha = torch.where(alive, rho / (direction * product).sum(), 0.0)
        x = x + alpha * direction
        residual = residual - alpha * product
        rho_next = (residual * residual).sum()
        direction = residual + torch.where(alive, rho_next / rho, 0.0) * direction
        rho = rho_next
    return x


def exact(matvec: MatVec, b: Tensor) -> Tensor:
    """x = H^-1 b from the dense matrix; for small problems, as an oracle."""
    size = b.numel()
    assert size <= EXACT_LIMIT
    basis = torch.eye(size, dtype=b.dtype, device=b.device).view(size, *b.shape)
    matrix = torch.stack([matvec(column).reshape(-1) for column in basis], dim=1)
    return torch.linalg.solve(matrix, b.reshape(-1)).view_as(b)


SOLVERS: dict[SolverName, Callable[[OuterConfig], Solver]] = {
    "identity": lambda config: identity,
    "neumann": lambda config: partial(
        neumann, iterations=config.iterations, step=config.step or 0.0, scale=config.neumann_scale
    ),
    "conjugate-gradient": lambda config: partial(conjugate_gradient, iterations=config.iterations),
    "exact": lambda config: exact,
}
NEEDS_POSITIVE_DEFINITE: frozenset[SolverName] = frozenset({"conjugate-gradient"})
"""Solvers that get the Gauss-Newton part of the Hessian, because the symmetric KL can make it indefinite."""


def build_solver(config: OuterConfig, size: int) -> Solver:
    """Build the configured solver.

    Args:
        size: number of entries of b.
    Raises:
        ConfigError: if the matrix of `exact` would be too large.
    """
    if config.solver == "exact" and size > EXACT_LIMIT:
        raise ConfigError(
            f"outer.solver: 'exact' would build a matrix of {size} x {size} (classes x features of the last layer), "
            f"more than {EXACT_LIMIT}; use conjugate-gradient"
        )
    return SOLVERS[config.solver](config)
