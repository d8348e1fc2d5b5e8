import pytest
import torch

from autodo.bilevel.inverse_hessian import (
    SOLVERS,
    build_solver,
    conjugate_gradient,
    exact,
    identity,
    neumann,
    quasi_newton,
)
from autodo.config.bilevel import OuterConfig, SolverName
from autodo.errors import ConfigError


def positive_definite(size: int, seed: int = 0) -> torch.Tensor:
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / size + 0.1 * torch.eye(size, dtype=torch.float64)


MATRIX = positive_definite(12)
B = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def matvec(x: torch.Tensor) -> torch.Tensor:
    return (MATRIX @ x.reshape(-1)).view_as(x)


SOLUTION = torch.linalg.solve(MATRIX, B.reshape(-1)).view_as(B)


def test_every_configured_name_has_a_solver():
    assert set(SOLVERS) == set(SolverName.__args__)


def test_exact_solution():
    torch.testing.assert_close(exact(matvec, B), SOLUTION, rtol=1e-11, atol=0)


def test_exact_refuses_a_large_problem():
    with pytest.raises(ConfigError, match=r"10001 x 10001.*more than 10000; use conjugate-gradient"):
        build_solver(OuterConfig(solver="exact"), size=10_001)
    assert build_solver(OuterConfig(solver="exact"), size=10_000) is exact
    assert build_solver(OuterConfig(solver="exact"), size=12) is exact
    assert build_solver(OuterConfig(solver="identity"), size=10_001) is identity


def test_conjugate_gradient_converges_to_exact():
    errors = [(conjugate_gradient(matvec, B, iterations=n) - SOLUTION).norm().item() for n in (1, 3, 6, 12)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] <= 1e-9 * SOLUTION.norm()


def test_conjugate_gradient_stays_at_the_solution():
    solved = conjugate_gradient(matvec, B, iterations=200)
    torch.testing.assert_close(solved, SOLUTION, rtol=1e-10, atol=0)
    assert conjugate_gradient(matvec, torch.zeros_like(B), iterations=5).eq(0).all()


@pytest.mark.parametrize("iterations", [0, 1, 5, 9])
def test_neumann_equals_its_finite_sum(iterations):
    step = 0.3
    damped = torch.eye(12, dtype=torch.float64) - step * MATRIX
    total = sum(torch.linalg.matrix_power(damped, j) for j in range(iterations + 1))
    expected = (step * total @ B.reshape(-1)).view_as(B)
    torch.testing.assert_close(neumann(matvec, B, iterations=iterations, step=step), expected, rtol=1e-12, atol=1e-14)
    published = neumann(matvec, B, iterations=iterations, step=step, scale="sum")
    torch.testing.assert_close(published, expected / step, rtol=1e-12, atol=1e-14)


def test_neumann_converges_to_exact():
    step = 1 / torch.linalg.eigvalsh(MATRIX)[-1].item()
    torch.testing.assert_close(neumann(matvec, B, iterations=2000, step=step), SOLUTION, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("iterations", [1, 3, 6])
def test_quasi_newton_equals_dense_bfgs_updates_on_conjugate_directions(iterations):
    eye = torch.eye(12, dtype=torch.float64)
    r = d = B.reshape(-1)
    pairs = []
    for _ in range(iterations):
        y = MATRIX @ d
        pairs.append((d, y))
        r_next = r - (r @ r) / (d @ y) * y
        d, r = r_next + (r_next @ r_next) / (r @ r) * d, r_next
    d, y = pairs[-1]
    inverse = (d @ y) / (y @ y) * eye
    for d, y in pairs:
        left = eye - torch.outer(d, y) / (d @ y)
        inverse = left @ inverse @ left.T + torch.outer(d, d) / (d @ y)
    expected = (inverse @ B.reshape(-1)).view_as(B)
    torch.testing.assert_close(quasi_newton(matvec, B, iterations=iterations), expected, rtol=1e-9, atol=1e-12)


def test_quasi_newton_reaches_the_solution_and_stays_there():
    for iterations in (12, 60):
        torch.testing.assert_close(quasi_newton(matvec, B, iterations=iterations), SOLUTION, rtol=1e-8, atol=0)
    assert quasi_newton(matvec, torch.zeros_like(B), iterations=5).eq(0).all()


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0, 100.0])
def test_quasi_newton_never_points_away_from_b(shift):
    shifted = [(quasi_newton(lambda x: matvec(x) - shift * x, B, iterations=n) * B).sum() for n in range(1, 9)]
    assert min(shifted) > 0
    assert max(shifted) < float("inf")


def test_identity():
    assert identity(matvec, B) is B


def test_settings_reach_the_solver():
    built = build_solver(OuterConfig(solver="neumann", iterations=2, step=0.25), size=12)
    assert torch.equal(built(matvec, B), neumann(matvec, B, iterations=2, step=0.25))
    built = build_solver(OuterConfig(solver="neumann", iterations=2, step=0.25, neumann_scale="sum"), size=12)
    assert torch.equal(built(matvec, B), neumann(matvec, B, iterations=2, step=0.25, scale="sum"))
