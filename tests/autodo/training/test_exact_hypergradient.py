"""With constant features and a solved head, the hypergradient is that of retraining, by finite differences."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.functional import hessian

from autodo.bilevel.head_solve import linear_head
from autodo.bilevel.hypergradient import validation_gradient
from autodo.bilevel.last_layer import LastLayer
from autodo.config.bilevel import LossName, OuterConfig, PointsConfig
from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.errors import ConfigError
from autodo.losses import LOSSES, InnerLoss
from autodo.points.model import Leaves, PointModel
from autodo.training.trainer import Trainer

CLASSES, DECAY = 3, 0.03
EXACT = OuterConfig(solver="conjugate-gradient", iterations=60, val_gradient="full", inner="head")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def solved(points: PointModel, rows: Tensor, features: Tensor, loss: InnerLoss) -> torch.nn.Linear:
    """The head that minimises the train loss for these values of lam, by Newton's method."""
    view = points.view(torch.arange(len(rows)), rows)

    def train_loss(theta: Tensor) -> Tensor:
        weight, bias = theta.view(points.classes, -1).split([features.shape[1], 1], 1)
        logits = features @ weight.T + bias.T
        losses = loss.values(logits, points.labels, view.weights, view.log_targets)
        return losses.mean() + DECAY / 2 * weight.square().sum()

    theta = torch.zeros(points.classes * (features.shape[1] + 1)).double()
    for _ in range(9):
        (gradient,) = torch.autograd.grad(train_loss(leaf := theta.clone().requires_grad_()), leaf)
        # The loss does not depend on the sum of the biases.
        theta = theta - torch.linalg.pinv(hessian(train_loss, theta), rtol=1e-12) @ gradient
    assert gradient.abs().max() < 1e-12
    return linear_head(theta.view(points.classes, -1)).requires_grad_(False)


def retrained(points: PointModel, rows: Tensor, features: Tensor, loss: InnerLoss, at: list[int], val_loss) -> Tensor:
    """Central differences of the val loss of solved heads in the rows at these positions. Shape: [len(at), K]."""
    step, gradient = 1e-4, torch.zeros(len(at), rows.shape[1]).double()
    for i, point in enumerate(at):
        for k in range(rows.shape[1]):
            losses = []
            for sign in (1, -1):
                moved = rows.clone()
                moved[point, k] += sign * step
                losses.append(val_loss(solved(points, moved, features, loss)))
            gradient[i, k] = (losses[0] - losses[1]) / (2 * step)
    return gradient


@pytest.mark.parametrize(("name", "by_class"), [("cross-entropy", False), ("kl", True)])
def test_the_hypergradient_is_that_of_retraining(name: LossName, by_class: bool) -> None:
    count = 6
    features, val = drawn(count, 4), drawn(20, 4, seed=1)
    labels, val_labels = torch.arange(count) % CLASSES, torch.arange(20) % CLASSES
    loss = InnerLoss(LOSSES[name])
    if by_class:
        loss = loss._replace(shift=drawn(CLASSES, seed=2), class_weights=drawn(CLASSES, seed=3).exp())
    points = PointModel(PointsConfig(learn=("weight", "soft-label")), labels, CLASSES, torch.float64)
    rows = points.table.values + drawn(*points.table.values.shape, seed=4)

    def val_loss(head: torch.nn.Linear) -> Tensor:
        return torch.nn.functional.cross_entropy(head(val), val_labels)

    head = solved(points, rows, features, loss)
    layer = LastLayer(EXACT, loss, head, weight_decay=DECAY)
    leaves = Leaves(rows.clone().requires_grad_(), None)
    view = points.view(torch.arange(count), *leaves)
    gradient = validation_gradient(head(val), layer.inputs(val), val_labels)
    u = layer.solve(features, labels, view.weights.detach(), None, count, gradient)
    found = layer.hypergradient(leaves, labels, view, features, u, count).rows
    at = [0, 2, 5]
    expected = retrained(points, rows, features, loss, at, val_loss)
    assert (found[at] - expected).norm() <= 1e-6 * expected.norm()


def test_a_run_moves_lambda_by_the_gradient_of_retraining(tmp_path: Path) -> None:
    """With the solvers of the method `autodo-solved-ws`, in float32."""
    labels = np.arange(300) % CLASSES
    np.save(tmp_path / "x.npy", drawn(300, 5).numpy() + 1.5 * drawn(CLASSES, 5, seed=1).numpy()[labels])
    np.save(tmp_path / "x.label.npy", labels)
    precise = {"head.tolerance": 1e-6, "training.epochs": 3, "training.warmup_epochs": 0, "outer.start_share": 0.0}
    config = build_run(
        "features", "autodo-solved-ws", overrides={"dataset.path": str(tmp_path / "x.npy"), "outer.every": 1, **precise}
    )
    training = Trainer(config, prepare(load(config.dataset), config))
    for epoch in range(2):
        training.train_epoch(epoch)
    points, steps = training.points, []
    rows, take = points.table.values.double().clone(), points.rmsprop_step
    points.rmsprop_step = lambda *given: (steps.append(given), take(*given))[1]
    training.train_epoch(2)
    found = torch.cat([gradient.rows for _, gradient, *_ in steps]).double()
    assert torch.equal(torch.cat([index for index, *_ in steps]), torch.arange(len(found)))

    def standardised(images: Tensor) -> Tensor:
        return training.model.pipeline.test_view(images).flatten(1).double()

    val = standardised(next(training.loaders.val.images.in_order(10_000)))
    features = standardised(next(training.loaders.train.images.in_order(10_000)))
    exact = PointModel(config.points, points.labels, CLASSES, torch.float64)

    def val_loss(head: torch.nn.Linear) -> Tensor:
        return torch.nn.functional.cross_entropy(head(val), training.loaders.val.labels)

    at = [0, 50]
    expected = retrained(exact, rows, features, InnerLoss(LOSSES["kl"]), at, val_loss)
    assert (found[at] - expected).norm() <= 1e-3 * expected.norm()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"outer.solver": "exact"},
            "inner 'head' needs val_gradient 'full' and solver 'conjugate-gradient', not 'full' ",
        ),
        ({"head.solve": "final"}, "outer.inner 'head' needs a head that is solved .*: set head.solve=passes"),
        ({"head.balance": "shift"}, "set head.balance=loss"),
        ({"head.labels": "observed"}, "set head.labels=learned"),
        ({"method.loss": "symmetric-kl"}, "needs method.loss cross-entropy or kl, .* not 'symmetric-kl'"),
    ],
)
def test_other_problems_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_run("digits", "autodo-solved-ws", overrides=settings)
