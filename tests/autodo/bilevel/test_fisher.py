"""Empirical Fisher information: against the dense matrix, against the Hessian, and equation (7) of the paper."""

import math

import pytest
import torch
from torch import Tensor

from autodo.bilevel.hypergradient import fisher_matvec, hessian_matvec
from autodo.bilevel.inverse_hessian import MatVec
from autodo.bilevel.last_layer import LastLayer
from autodo.config.bilevel import LossName, OuterConfig
from autodo.losses import LOSSES, InnerLoss, one_hot
from autodo.testing.oracles import dense_fisher, double_backward, equation_7, plain_loss

CLASSES, FEATURES = 3, 4
WEIGHT = 0.5 * torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
EYE = torch.eye(WEIGHT.numel(), dtype=torch.float64)


def draw(points: int, weight: Tensor = WEIGHT) -> tuple[Tensor, Tensor, Tensor]:
    """Features, weights from 0.2 to 2, and labels drawn from the model with this head."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(points, FEATURES, generator=generator, dtype=torch.float64)
    weights = 0.2 + 1.8 * torch.rand(points, generator=generator, dtype=torch.float64)
    return features, weights, torch.multinomial((features @ weight.T).softmax(1), 1, generator=generator)[:, 0]


def smoothed(labels: Tensor, share: float = 0.1) -> Tensor:
    return (1 - share) * one_hot(labels, CLASSES, torch.float64) + share / CLASSES


def dense(matvec: MatVec) -> Tensor:
    basis = torch.eye(WEIGHT.numel(), dtype=torch.float64).view(-1, CLASSES, FEATURES)
    return torch.stack([matvec(column).reshape(-1) for column in basis], dim=1)


def distance(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


@pytest.mark.parametrize("loss", LOSSES)
def test_product_equals_the_dense_matrix(loss: LossName) -> None:
    features, weights, labels = draw(30)
    targets = smoothed(labels)
    matvec = fisher_matvec(LOSSES[loss], features @ WEIGHT.T, features, weights, targets.log(), damping=0.3)
    information = dense_fisher(lambda w: weights * plain_loss(loss, features @ w.T, targets), WEIGHT)
    assert distance(dense(matvec), information + 0.3 * EYE) <= 1e-12


def test_solver_uses_the_damped_information() -> None:
    features, weights, labels = draw(30)
    head = torch.nn.Linear(FEATURES, CLASSES, bias=False).double()
    with torch.no_grad():
        head.weight.copy_(WEIGHT)
        config = OuterConfig(solver="fisher", iterations=60, damping=0.01)
        layer = LastLayer(config, InnerLoss(LOSSES["kl"]), head, weight_decay=0.02)
        b = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        u = layer.solve(features, labels, weights, smoothed(labels).log(), 30, b)
    information = dense_fisher(lambda w: weights * plain_loss("kl", features @ w.T, smoothed(labels)), WEIGHT)
    expected = torch.linalg.solve(information + 0.03 * EYE, b.reshape(-1)).view_as(b)
    assert distance(u, expected) <= 1e-9


def sampling_errors(loss: LossName, labels: Tensor, targets: Tensor, weights: Tensor, features: Tensor) -> float:
    """Distance of Fisher and Hessian, in units of the root mean square that sampling the labels explains at most."""
    given = LOSSES[loss], features @ WEIGHT.T, features, weights, targets.log()
    information, hessian = dense(fisher_matvec(*given, damping=0)), dense(hessian_matvec(*given, damping=0))
    residual = LOSSES[loss].residual(given[1].log_softmax(1), given[4])
    squares = weights**2 * residual.square().sum(1) * features.square().sum(1)  # of the norm of the scores
    return float((information - hessian).norm() / (squares.square().mean() / len(labels)).sqrt())


def test_fisher_is_the_hessian_for_labels_drawn_from_the_model_and_only_then() -> None:
    features, weights, labels = draw(20_000)
    ones = torch.ones_like(weights)
    hard = one_hot(labels, CLASSES, torch.float64)
    elsewhere = draw(20_000, weight=-WEIGHT)[2]
    assert sampling_errors("cross-entropy", labels, hard, ones, features) < 2
    for case, given in {
        "weights": ("cross-entropy", labels, hard, 2 * weights),
        "symmetric KL": ("symmetric-kl", labels, smoothed(labels, 0.5), ones),
        "labels of another theta": ("cross-entropy", elsewhere, one_hot(elsewhere, CLASSES, torch.float64), ones),
    }.items():
        assert sampling_errors(*given, features) > 6, case  # type: ignore[arg-type]


def every_label(points: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features and labels, each point with every label, and the labels' probabilities under the model."""
    features = draw(points)[0]
    p = (features @ WEIGHT.T).softmax(1)
    return features.repeat_interleave(CLASSES, 0), torch.arange(CLASSES).repeat(points), p.flatten()


def test_fisher_is_the_hessian_in_expectation_over_the_models_labels() -> None:
    features, labels, p = every_label(10)
    hard = one_hot(labels, CLASSES, torch.float64).log()
    # The Fisher information has the square of the weights, so this is the mean with the probabilities.
    given = LOSSES["cross-entropy"], features @ WEIGHT.T, features
    information = dense(fisher_matvec(*given, (CLASSES * p).sqrt(), hard, damping=0))
    hessian = dense(hessian_matvec(*given, torch.ones_like(p), hard, damping=0))
    assert distance(information, hessian) <= 1e-12


def test_equation_7_of_loss_weights_has_a_factor_of_the_weighted_loss() -> None:
    features, _, labels = draw(12)
    targets = one_hot(labels, CLASSES, torch.float64)
    lam = torch.linspace(-2, 2, 12, dtype=torch.float64)[:, None].requires_grad_()
    u = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def losses(weight: Tensor, rows: Tensor) -> Tensor:
        return (
            torch.nn.functional.softplus(rows[:, 0])
            / math.log(2)
            * plain_loss("cross-entropy", features @ weight.T, targets)
        )

    mixed = double_backward(lambda w: losses(w, lam).mean(), WEIGHT.clone().requires_grad_(), lam, u)
    factor = losses(WEIGHT, lam.detach())[:, None]
    # u of (7) solves for the score of val, the negative gradient.
    whole = equation_7(losses, WEIGHT, lam.detach(), -u)
    assert distance(whole, factor * mixed) <= 1e-12
    assert factor.min() < 0.2
    assert factor.max() > 2


def test_equation_7_of_augmentation_holds_in_expectation_over_the_models_labels_only() -> None:
    features, labels, p = every_label(6)
    targets = one_hot(labels, CLASSES, torch.float64)
    lam = torch.zeros(len(labels), FEATURES, dtype=torch.float64, requires_grad=True)  # shifts the features
    u = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def losses(weight: Tensor, rows: Tensor) -> Tensor:
        return plain_loss("cross-entropy", (features + rows) @ weight.T, targets)

    mixed = double_backward(lambda w: losses(w, lam).mean(), WEIGHT.clone().requires_grad_(), lam, u)
    whole = equation_7(losses, WEIGHT, lam.detach(), -u)
    assert distance(whole, mixed) > 0.3, "label by label"
    expected = [(p[:, None] * rows).view(-1, CLASSES, FEATURES).sum(1) for rows in (whole, mixed)]
    assert distance(*expected) <= 1e-12
