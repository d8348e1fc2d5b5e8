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
Curvature = Literal["hessian", "gauss-newton", "fisher"]
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


def quasi_newton(matvec: MatVec, b: Tensor, *, iterations: int) -> Tensor:
    """x = B b, where B is the L-BFGS inverse of H from at most `iterations` pairs (s, H s).

    The pairs are those of minimizing <x, H x> / 2 - <b, x> with exact line searches. B maps each H s to its s, and is
    symmetric and positive definite for any H, so x never points away from b: the pair of a direction without positive
    curvature is left out. With as many pairs as H has distinct eigenvalues, all positive, B b = H^-1 b.
    There is no stopping test, so the host never waits for the device.
    Reference: Nocedal and Wright, Numerical Optimization, algorithms 7.4 and 7.5.
    """
    tiny = torch.finfo(b.dtype).eps
    residual = b
    floor = (b * b).sum() * tiny**2
    pairs: list[_Pair] = []
    scale = torch.ones_like(floor)
    for _ in range(iterations):
        direction = _apply_inverse(pairs, scale, residual)
        product = matvec(direction)
        curvature = (direction * product).sum()
        squares = (direction * direction).sum() * (product * product).sum()
        usable = ((residual * residual).sum() > floor) & (curvature > tiny * squares.sqrt())
        residual = residual - torch.where(usable, (direction * residual).sum() / curvature, 0.0) * product
        scale = torch.where(usable, curvature / (product * product).sum(), scale)
        pairs.append((direction, product, torch.where(usable, 1 / curvature, 0.0)))
    return _apply_inverse(pairs, scale, b)


_Pair = tuple[Tensor, Tensor, Tensor]
"""s, y = H s, and 1 / <s, y>, or 0 for a pair that is left out."""


def _apply_inverse(pairs: list[_Pair], scale: Tensor, vector: Tensor) -> Tensor:
    """Product of a vector with the L-BFGS inverse that starts from `scale` times the identity."""
    coefficients = []
    for s, y, inverse in reversed(pairs):
        coefficients.append(inverse * (s * vector).sum())
        vector = vector - coefficients[-1] * y
    vector = scale * vector
    for (s, y, inverse), coefficient in zip(pairs, reversed(coefficients), strict=True):
        vector = vector + (coefficient - inverse * (y * vector).sum()) * s
    return vector


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
    "quasi-newton": lambda config: partial(quasi_newton, iterations=config.iterations),
    "fisher": lambda config: partial(conjugate_gradient, iterations=config.iterations),
    "exact": lambda config: exact,
}
CURVATURES: dict[SolverName, Curvature] = {"conjugate-gradient": "gauss-newton", "fisher": "fisher"}
"""Matrix that a solver gets in place of the Hessian. Conjugate gradients need a positive definite one, and the Hessian
of the symmetric KL can be indefinite."""


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
