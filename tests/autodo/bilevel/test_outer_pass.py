"""A whole outer pass against plain autograd, on one batch that holds all points, so that both see the same draw."""

import pytest
import torch
from torch import Tensor

from autodo.config import DistortionConfig
from autodo.data import load, prepare
from autodo.evaluate import evaluate
from autodo.recipes import build_run
from autodo.train import Training
from tests.oracles import dense_hessian, double_backward, plain_loss

SETTINGS = {
    "dataset.subsample": 60,
    "training.batch_size": 64,
    "training.weight_decay": 0.02,
    "augmentation.crop_padding": 0,
    "training.epochs": 2,
}


def training_of(method: str, **overrides) -> Training:
    distortion = DistortionConfig(noise_ratio=0.3)
    config = build_run("digits", method, distortion=distortion, overrides={**SETTINGS, **overrides})
    training = Training(config, prepare(load(config.dataset), config))
    training._inner_phase(0)
    for module in (training.encoder, training.head):
        module.double()
    table = training.points.table
    generator = torch.Generator().manual_seed(0)
    table.values = table.values.double() + torch.randn(table.values.shape, generator=generator, dtype=torch.float64) / 4
    table.square_average = table.square_average.double()
    training.pipeline.mean, training.pipeline.std = training.pipeline.mean.double(), training.pipeline.std.double()
    return training


@pytest.mark.parametrize("method", ["autodo-aws", "autodo-aw", "autodo-exact-ws", "autodo-exact-aws"])
def test_the_gradient_of_every_row_is_that_of_double_backward(method, monkeypatch):
    # Erasing changes at each draw; without it only the warp is random, and the warp of a full pass draws twice, so its
    # Hessian and its gradient see different images. Closed gates make both the same.
    gates = {"points.gate_probability": 1e-9} if method == "autodo-exact-aws" else {}
    training = training_of(method, **gates)
    if gates:
        training.points.table.values[:, 7:14] = -30.0
    config, head, points = training.config, training.head, training.points
    assert config.outer is not None
    val = evaluate(training.encoder, head, training.pipeline, training.val_images, training.val_labels)
    given: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(points.table, "rmsprop_step", lambda index, gradient, lr: given.append((index, gradient)))
    everything = torch.arange(training.train_size)
    assert training.outer is not None
    training.outer.run(val, everything, 0.1, torch.Generator().manual_seed(7))
    ((index, fast),) = given

    # The same draws of the generator, in the same order: the batch, the val batch, then the augmentation.
    generator = torch.Generator().manual_seed(7)
    if config.outer.val_gradient == "batch":
        assert torch.equal(index, everything[torch.randperm(len(everything), generator=generator)])
        torch.randperm(len(val.labels), generator=generator)
    lam = points.table.values[index].clone().requires_grad_()
    view = points.view(index, lam)
    features = training.encoder(training.pipeline.train_view(training.images[index], generator, view.augment))

    def inner(weight: Tensor) -> Tensor:
        targets = view.log_targets.exp().clamp(min=1e-300)
        losses = plain_loss(config.method.loss, features @ weight.T + head.bias, targets)
        return (view.weights * losses).mean() + damping * weight.square().sum() / 2

    damping = config.outer.damping + config.training.weight_decay
    weight = head.weight.detach().clone().requires_grad_()
    val_logits = val.features @ weight.T + head.bias.detach()
    (val_gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(val_logits, val.labels), weight)
    if config.outer.solver == "neumann":
        hessian = dense_hessian(inner, weight.detach())
        damped = torch.eye(len(hessian), dtype=torch.float64) - config.outer.step * hessian
        series = sum(torch.linalg.matrix_power(damped, j) for j in range(config.outer.iterations + 1))
        u = config.outer.step * (series @ val_gradient.reshape(-1)).view_as(weight)
    else:
        u = gauss_newton_cg(features, view.weights, head, damping, val_gradient, config.outer.iterations)
    slow = double_backward(inner, weight, lam, u.detach())
    assert (fast - slow).norm() <= 1e-9 * slow.norm()
    assert slow.norm() > 0


def gauss_newton_cg(features, weights, head, damping, b, iterations) -> Tensor:
    """Textbook conjugate gradients with the Gauss-Newton matrix, built dense from its definition."""
    p = (features @ head.weight.T + head.bias).softmax(1).detach()
    matrix = damping * torch.eye(b.numel(), dtype=torch.float64)
    for feature, probability, weight in zip(features.detach(), p, weights.detach(), strict=True):
        curvature = torch.diag(probability) - torch.outer(probability, probability)
        matrix += weight / len(features) * torch.kron(curvature, torch.outer(feature, feature))
    x, r = torch.zeros(b.numel(), dtype=torch.float64), b.reshape(-1)
    d = r
    for _ in range(iterations):
        alpha = (r @ r) / (d @ matrix @ d)
        x, r_next = x + alpha * d, r - alpha * (matrix @ d)
        d, r = r_next + (r_next @ r_next) / (r @ r) * d, r_next
    return x.view_as(b)


def test_the_shared_row_gets_the_sum_of_all_points(monkeypatch):
    training = training_of("autodo-shared")
    given: list[Tensor] = []
    monkeypatch.setattr(training.points.table, "rmsprop_step", lambda index, gradient, lr: given.append(gradient))
    val = evaluate(training.encoder, training.head, training.pipeline, training.val_images, training.val_labels)
    assert training.outer is not None
    training.outer.run(val, torch.arange(training.train_size), 0.1, torch.Generator().manual_seed(7))
    assert [gradient.shape for gradient in given] == [(1, 14)]
    assert given[0].abs().max() > 0
