"""The solved head: its gradient, its minimum, and shards of its points."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from autodo.bilevel import head_solve
from autodo.bilevel.head_solve import HeadProblem, linear_head, solve_head
from autodo.distributed.process_group import ProcessGroup

CLASSES, FEATURES, POINTS = 3, 4, 60


def problem_of(*, shift: float = 1.0, weight_decay: float = 0.03) -> HeadProblem:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    features, targets = drawn(POINTS, FEATURES), drawn(POINTS, CLASSES).softmax(1)
    return HeadProblem(features, targets, drawn(POINTS).exp(), shift * drawn(CLASSES), weight_decay, POINTS)


def test_the_gradient_is_that_of_the_loss_in_every_chunk(monkeypatch):
    problem = problem_of()
    theta = torch.randn(CLASSES, FEATURES + 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    leaf = theta.clone().requires_grad_()
    log_p = (problem.features @ leaf[:, :-1].T + leaf[:, -1] + problem.shift).log_softmax(1)
    loss = -(problem.weights[:, None] * problem.targets * log_p).sum() / POINTS
    loss = loss + problem.weight_decay / 2 * leaf[:, :-1].square().sum()
    (expected,) = torch.autograd.grad(loss, leaf)
    for chunk in (7, POINTS):
        monkeypatch.setattr(head_solve, "CHUNK_SIZE", chunk)
        value, gradient = problem.value_and_gradient(theta)
        torch.testing.assert_close(value, loss.detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)


def test_the_solution_is_that_of_logistic_regression():
    problem = problem_of(shift=0)
    labels = problem.targets.argmax(1)
    hard = problem._replace(targets=torch.nn.functional.one_hot(labels, CLASSES).double())
    theta = solve_head(hard, tolerance=1e-10, max_iterations=500)
    oracle = LogisticRegression(C=1 / (POINTS * hard.weight_decay), tol=1e-12, max_iter=5000)
    oracle.fit(hard.features.numpy(), labels.numpy(), sample_weight=hard.weights.numpy())
    expected = torch.from_numpy(oracle.predict_proba(hard.features.numpy()))
    torch.testing.assert_close(linear_head(theta)(hard.features).softmax(1).detach(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("start", [None, torch.full((CLASSES, FEATURES + 1), 0.4, dtype=torch.float64)])
def test_the_gradient_at_the_solution_is_below_the_tolerance(start):
    problem = problem_of()
    _, at_zero = problem.value_and_gradient(torch.zeros(CLASSES, FEATURES + 1, dtype=torch.float64))
    theta = solve_head(problem, tolerance=1e-4, max_iterations=500, start=start)
    _, gradient = problem.value_and_gradient(theta)
    assert gradient.abs().max() <= 1e-4 * at_zero.abs().max()


class OtherShard(ProcessGroup):
    """Adds the sums of another process's points to those of this one."""

    def __init__(self, problem: HeadProblem, theta: torch.Tensor) -> None:
        value, gradient = problem._replace(weight_decay=0.0).value_and_gradient(theta)
        self.sums = torch.cat([value.reshape(1), gradient.flatten()]) * problem.total

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor + self.sums


def test_shards_exchange_only_sums_of_the_size_of_the_head():
    problem = problem_of()
    theta = torch.full((CLASSES, FEATURES + 1), 0.3, dtype=torch.float64)
    one, other = (
        problem._replace(features=problem.features[part], targets=problem.targets[part], weights=problem.weights[part])
        for part in (np.s_[:25], np.s_[25:])
    )
    whole, halves = problem.value_and_gradient(theta), one.value_and_gradient(theta, OtherShard(other, theta))
    torch.testing.assert_close(halves, whole, rtol=1e-12, atol=1e-14)
