"""Hypergradient against autograd through the whole network, and against retraining."""

import pytest
import torch
from torch import Tensor

from autodo.augment import affine
from autodo.augment.pipeline import Pipeline
from autodo.bilevel import hypergradient
from autodo.bilevel.hypergradient import hessian_matvec, validation_gradient
from autodo.bilevel.inverse_hessian import SOLVERS
from autodo.bilevel.last_layer import LastLayer
from autodo.config.bilevel import LossName, OuterConfig, Part, PointsConfig, SolverName
from autodo.config.run import AugmentationConfig
from autodo.losses import LOSSES, InnerLoss
from autodo.points.model import Leaves, PointModel
from autodo.testing.oracles import (
    dense_fisher,
    dense_hessian,
    double_backward,
    plain_loss,
    solve_inner,
    tiny_encoder,
)

CLASSES, FEATURES, POINTS, VAL = 4, 5, 12, 10
DAMPING = 0.05
STEP = 0.1
ITERATIONS: dict[SolverName, int] = dict.fromkeys(SOLVERS, 60) | {"neumann": 5}
CASES: list[tuple[LossName, tuple[Part, ...], bool]] = [
    ("cross-entropy", ("augment",), False),
    ("cross-entropy", ("augment", "weight"), False),
    ("kl", ("augment", "weight", "soft-label"), False),
    ("symmetric-kl", ("augment", "weight", "soft-label"), False),
    ("symmetric-kl", ("weight", "soft-label"), False),
    ("cross-entropy", ("augment", "weight"), True),
    ("symmetric-kl", ("augment", "weight", "soft-label"), True),
]
"""Loss, learned parts, and whether the loss shifts the logits and weighs the classes."""


class Problem:
    """A small bilevel problem in float64: real digits, frozen encoder, learnable head weight, random lam."""

    def __init__(self, loss: LossName, learn: tuple[Part, ...], by_class: bool = False) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        chosen = (digits.target < CLASSES).nonzero()[0][: POINTS + VAL]
        images = torch.from_numpy(digits.images[chosen] * 15).to(torch.uint8)[:, None]
        labels = torch.from_numpy(digits.target[chosen])
        self.images, self.labels = images[:POINTS], labels[:POINTS]
        self.val_images, self.val_labels = images[POINTS:], labels[POINTS:]
        one = torch.ones(1, dtype=torch.float64)
        self.pipeline = Pipeline(AugmentationConfig(crop_padding=1, flip=False), 0.3 * one, 0.4 * one)
        self.encoder = tiny_encoder(features=FEATURES)
        self.loss = loss
        self.points = PointModel(PointsConfig(learn=learn, gate_probability=0.6), self.labels, CLASSES, torch.float64)
        generator = torch.Generator().manual_seed(3)
        rows = self.points.table.values
        self.lam = rows + 0.5 * torch.randn(rows.shape, generator=generator, dtype=torch.float64)
        self.weight = 2 * torch.randn(CLASSES, FEATURES, generator=generator, dtype=torch.float64)
        self.bias = torch.randn(CLASSES, generator=generator, dtype=torch.float64)
        self.val_features = self.encoder(self.pipeline.test_view(self.val_images))
        self.shift, self.class_weights = torch.zeros(CLASSES).double(), torch.ones(CLASSES).double()
        if by_class:
            self.shift += torch.tensor([0.0, -1.5, -3.0, 0.5])
            self.class_weights *= torch.tensor([0.2, 2.0, 0.7, 4.0])
        self.inner_loss = (
            InnerLoss(LOSSES[loss], self.shift, self.class_weights) if by_class else InnerLoss(LOSSES[loss])
        )

    def features(self, lam: Tensor) -> Tensor:
        """Inner loss with the same augmentation noise in every call."""
        view = self.points.view(torch.arange(POINTS), lam)
        pixels = self.pipeline.train_view(self.images, torch.Generator().manual_seed(5), view.augment)
        result: Tensor = self.encoder(pixels)
        return result

    def losses(self, weight: Tensor, lam: Tensor) -> Tensor:
        view = self.points.view(torch.arange(POINTS), lam)
        logits = self.features(lam) @ weight.T + self.bias + self.shift
        losses = plain_loss(self.loss, logits, view.log_targets.exp().clamp(min=1e-300))
        return self.class_weights[self.labels] * view.weights * losses

    def inner(self, weight: Tensor, lam: Tensor) -> Tensor:
        return self.losses(weight, lam).mean() + DAMPING * weight.square().sum() / 2

    def outer(self, weight: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(self.val_features @ weight.T + self.bias, self.val_labels)

    def val_gradient(self, weight: Tensor) -> Tensor:
        val_logits = self.val_features @ weight.T + self.bias
        return validation_gradient(val_logits, self.val_features, self.val_labels)

    def fast(self, weight: Tensor, solver: SolverName) -> tuple[Tensor, Tensor]:
        """u and the hypergradient of the package."""
        head = torch.nn.utils.skip_init(torch.nn.Linear, FEATURES, CLASSES, dtype=torch.float64)
        head.weight.data, head.bias.data = weight, self.bias
        step = STEP if solver == "neumann" else None
        config = OuterConfig(solver=solver, iterations=ITERATIONS[solver], step=step, damping=DAMPING)
        layer = LastLayer(config, self.inner_loss, head.requires_grad_(False), weight_decay=0.0)
        lam = self.lam.clone().requires_grad_()
        view = self.points.view(torch.arange(POINTS), lam)
        features = self.features(lam)
        with torch.no_grad():
            gradient = self.val_gradient(weight)
            u = layer.solve(features, self.labels, view.weights, view.log_targets, POINTS, gradient)
        leaves = Leaves(lam, None)
        return u, layer.hypergradient(leaves, self.labels, view, features, u, POINTS).rows


def relative_error(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


@pytest.mark.parametrize(("loss", "learn", "by_class"), CASES)
def test_equals_double_backward_through_the_network(loss, learn, by_class):
    problem = Problem(loss, learn, by_class)
    u, fast = problem.fast(problem.weight, "exact")
    weight = problem.weight.clone().requires_grad_()
    lam = problem.lam.clone().requires_grad_()
    slow = double_backward(lambda w: problem.inner(w, lam), weight, lam, u)
    assert relative_error(fast, slow) <= 1e-12
    for column_of_part in range(fast.shape[1]):
        column, expected = fast[:, column_of_part], slow[:, column_of_part]
        assert (column - expected).abs().max() <= 1e-9 * slow.abs().max()
    assert slow.abs().amax(0).min() > 0, "every column must contribute"


@pytest.mark.parametrize(("loss", "learn", "by_class"), CASES)
def test_hessian_products_and_val_gradient_equal_autograd(loss, learn, by_class):
    problem = Problem(loss, learn, by_class)
    hessian = dense_hessian(lambda w: problem.inner(w, problem.lam), problem.weight)
    weight = problem.weight.clone().requires_grad_()
    (val_gradient,) = torch.autograd.grad(problem.outer(weight), weight)
    expected = torch.linalg.solve(hessian, val_gradient.reshape(-1)).view_as(weight)
    u, _ = problem.fast(problem.weight, "exact")
    assert relative_error(u, expected) <= 1e-9


@pytest.mark.parametrize(("loss", "learn", "by_class"), CASES)
def test_exact_equals_finite_differences_of_retraining(loss, learn, by_class):
    problem = Problem(loss, learn, by_class)
    optimum = solve_inner(lambda w: problem.inner(w, problem.lam), problem.weight)
    _, gradient = problem.fast(optimum, "exact")

    def outer_after_training(lam: Tensor) -> float:
        return float(problem.outer(solve_inner(lambda w: problem.inner(w, lam), optimum)))

    # A gate is a hard draw, so the loss is flat in its logit, and finite differences are zero.
    gates = range(len(affine.WARP_OPERATIONS), affine.COLUMNS) if "augment" in learn else range(0)
    columns = [column for column in range(gradient.shape[1]) if column not in gates]
    step = 1e-4
    for row in (0, 5):
        numeric = []
        for column in columns:
            moved = [problem.lam.clone(), problem.lam.clone()]
            moved[0][row, column] += step
            moved[1][row, column] -= step
            numeric.append((outer_after_training(moved[0]) - outer_after_training(moved[1])) / (2 * step))
        expected = torch.tensor(numeric, dtype=torch.float64)
        assert relative_error(gradient[row, columns], expected) <= 1e-4


@pytest.mark.parametrize(("loss", "learn", "by_class"), [*CASES[:3], CASES[5]])
def test_conjugate_gradient_reaches_the_exact_hypergradient(loss, learn, by_class):
    problem = Problem(loss, learn, by_class)
    _, expected = problem.fast(problem.weight, "exact")
    _, gradient = problem.fast(problem.weight, "conjugate-gradient")
    assert relative_error(gradient, expected) <= 1e-7


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_uses_the_same_inner_loss(solver, by_class):
    problem = Problem("kl", ("weight", "soft-label"), by_class)
    weight, lam, b = problem.weight, problem.lam, problem.val_gradient(problem.weight).reshape(-1)
    hessian = dense_hessian(lambda w: problem.inner(w, lam), weight)
    eye = torch.eye(len(b), dtype=torch.float64)
    if solver == "identity":
        expected = b
    elif solver == "neumann":
        damped = eye - STEP * hessian
        expected = STEP * sum(torch.linalg.matrix_power(damped, j) @ b for j in range(ITERATIONS[solver] + 1))
    elif solver == "fisher":
        expected = torch.linalg.solve(dense_fisher(lambda w: problem.losses(w, lam), weight) + DAMPING * eye, b)
    else:
        expected = torch.linalg.solve(hessian, b)
    u, gradient = problem.fast(weight, solver)
    assert relative_error(u.reshape(-1), expected) <= 1e-9
    leaf, rows = weight.clone().requires_grad_(), lam.clone().requires_grad_()
    slow = double_backward(lambda w: problem.inner(w, rows), leaf, rows, u)
    assert relative_error(gradient, slow) <= 1e-12


def test_gauss_newton_part_is_positive_definite_if_the_hessian_is_not():
    problem = Problem("symmetric-kl", ("weight", "soft-label"))
    view = problem.points.view(torch.arange(POINTS), problem.lam)
    features = problem.features(problem.lam)
    weight = 30 * problem.weight
    eigenvalues = {}
    for gauss_newton in (False, True):
        matvec = hessian_matvec(
            LOSSES["symmetric-kl"],
            features @ weight.T + problem.bias,
            features,
            view.weights,
            None if gauss_newton else view.log_targets,
            damping=0.0,
        )
        basis = torch.eye(weight.numel(), dtype=torch.float64).view(-1, CLASSES, FEATURES)
        matrix = torch.stack([matvec(column).reshape(-1) for column in basis])
        torch.testing.assert_close(matrix, matrix.T)
        eigenvalues[gauss_newton] = float(torch.linalg.eigvalsh(matrix)[0])
    assert eigenvalues[False] < -1e-5
    assert eigenvalues[True] > -1e-12


@pytest.mark.parametrize("gauss_newton", [False, True])
def test_products_with_the_hessian_in_parts_are_those_at_once(
    gauss_newton: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = torch.Generator().manual_seed(0)
    logits, targets = (torch.randn(7, CLASSES, generator=draw, dtype=torch.float64) for _ in range(2))
    features = torch.randn(7, FEATURES, generator=draw, dtype=torch.float64)
    direction = torch.randn(CLASSES, FEATURES, generator=draw, dtype=torch.float64)
    log_targets = None if gauss_newton else targets.log_softmax(1)
    given = LOSSES["symmetric-kl"], logits, features, features[:, 0].exp(), log_targets
    at_once = hessian_matvec(*given, damping=DAMPING)(direction)
    monkeypatch.setattr(hypergradient, "POINTS_AT_ONCE", 3)
    torch.testing.assert_close(hessian_matvec(*given, damping=DAMPING)(direction), at_once, rtol=1e-12, atol=1e-12)
