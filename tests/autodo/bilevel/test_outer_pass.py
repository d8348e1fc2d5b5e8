"""Outer passes against plain autograd through the network."""

import pytest
import torch
from torch import Tensor

from autodo.augment import affine
from autodo.bilevel.last_layer import LastLayer
from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.config.run import SplitName
from autodo.data import load, prepare
from autodo.data.batches import epoch_batches
from autodo.points.model import Leaves
from autodo.points.table import PointTable
from autodo.testing.memory import peak_bytes
from autodo.testing.oracles import (
    class_terms,
    dense_fisher,
    dense_hessian,
    double_backward,
    outer_pass_by_autograd,
    plain_loss,
)
from autodo.training.trainer import Trainer

SETTINGS = {
    "dataset.subsample": 60,
    "training.batch_size": 16,
    "training.weight_decay": 0.02,
    "augmentation.crop_padding": 0,
    "training.epochs": 2,
}


def training_of(
    method: str,
    split: SplitName = "paper",
    hessian_points: int | None = None,
    points: dict[str, str | int] | None = None,
    **outer: str | float | None,
) -> Trainer:
    """48 train and 12 val points in float64, with random lam."""
    settings = SETTINGS | ({} if hessian_points is None else {"outer.hessian_points": hessian_points})
    settings |= {f"outer.{key}": value for key, value in outer.items()}
    settings |= {f"points.{key}": value for key, value in (points or {}).items()}
    config = build_run("digits", method, distortion=DistortionConfig(noise_ratio=0.3), split=split, overrides=settings)
    training = Trainer(config, prepare(load(config.dataset), config))
    training.inner.run(0)
    for module in (training.model.encoder, training.model.head):
        module.double()
    generator = torch.Generator().manual_seed(0)
    training.points.table = moved(training.points.table, generator)
    if training.points.shared_table is not None:
        training.points.shared_table = moved(training.points.shared_table, generator)
        training.points._offsets = training.points._offsets.double()
    pipeline = training.model.pipeline
    pipeline.mean, pipeline.std = pipeline.mean.double(), pipeline.std.double()
    return training


def moved(table: PointTable, generator: torch.Generator) -> PointTable:
    start = table.values.double()
    start += torch.randn(start.shape, generator=generator, dtype=torch.float64) / 4
    return PointTable(start.__getitem__, len(start), start.shape[1:], dtype=torch.float64)


class WarpNoise:
    """One draw of the warp noise per point, so that a point has one image in a pass."""

    def __init__(self, training: Trainer) -> None:
        self.training = training
        generator = torch.Generator().manual_seed(5)
        self.draws = affine.draw_noise(len(training.loaders.train.images), generator, torch.float64)

    def features(self, batch: Tensor, augment: Tensor | None, generator: object = None) -> Tensor:
        assert self.training.outer is not None
        # The frozen copy during a pass, else the network.
        pipeline, encoder = self.training.model.pipeline, self.training.outer.outer_pass.encoder
        pixels = self.training.loaders.train.images[batch].double() / 255
        if augment is not None:
            noise = affine.WarpNoise(self.draws.normal[batch], self.draws.logistic[batch])
            pixels = affine.warp(pixels, affine.magnitudes(augment, noise))
        result: Tensor = encoder((pixels - pipeline.mean) / pipeline.std)
        return result


@pytest.mark.parametrize("split", ["paper", "union"])
@pytest.mark.parametrize(
    ("method", "hessian_points", "settings"),
    [
        ("autodo-aws", None, {}),
        ("autodo-aw", None, {}),
        ("autodo-exact-ws", None, {}),
        ("autodo-exact-ws", 20, {}),
        ("autodo-exact-aws", 60, {}),
        ("autodo-exact-aws", 20, {}),
        ("autodo-shared", None, {}),
        ("autodo-aw", None, {"covariance": "full"}),
        ("autodo-aws", None, {"mixture": 3, "covariance": "full"}),
        ("autodo-exact-aw", 20, {"mixture": 3}),
        ("autodo-exact-aw", None, {"mixture": 1}),
        ("autodo-aws+class-balanced", None, {}),
        ("autodo-exact-ws+class-balanced", 20, {}),
        ("autodo-aw+logit-adjustment", None, {"mixture": 3}),
        ("autodo-exact-aws+logit-adjustment", 20, {}),
    ],
)
def test_gradients_of_lambda_equal_double_backward(method, hessian_points, settings, split, monkeypatch):
    training = training_of(method, split, hessian_points, settings)
    config, head, points = training.config, training.model.head, training.points
    assert config.outer is not None
    assert training.outer is not None
    outer = training.outer.outer_pass
    noise = WarpNoise(training)
    monkeypatch.setattr(outer, "_features", noise.features)
    # Instead of images, their numbers, which select the noise.
    monkeypatch.setattr(outer.images, "batches", lambda batches, crops: iter(batches))
    given: list[tuple[Tensor, Tensor, Leaves]] = []

    def step(index: Tensor, gradient: Leaves, lr: float, mask: Tensor | None) -> None:
        updated = index if mask is None else index[mask]
        given.append((updated, gradient.rows if mask is None else gradient.rows[mask], gradient))

    monkeypatch.setattr(points, "rmsprop_step", step)
    val = training.evaluator.evaluate(training.loaders.val)
    outer.run(val, 0.1, torch.Generator().manual_seed(7))
    assert outer.encoder is training.model.encoder

    touched = torch.cat([index for index, _, _ in given])
    train_size = training.loaders.train_size
    assert touched.sort().values.tolist() == list(range(train_size)), "every train point once, no val point"
    assert len(given) >= 3, "several batches are needed to detect swapped rows"

    everything = torch.arange(len(training.loaders.train.images))
    damping = config.outer.damping + config.training.weight_decay
    weight = head.weight.detach().clone()

    def val_gradient(chosen: Tensor) -> Tensor:
        leaf = weight.clone().requires_grad_()
        logits = val.features[chosen] @ leaf.T + head.bias.detach()
        (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, val.labels[chosen]), leaf)
        return gradient

    shift, class_weights = class_terms(training)
    # A shift of all classes would change nothing.
    assert (shift.std() > 0.2 or class_weights.std() > 0.2) == ("+" in method)

    def inner_of(batch: Tensor, *lam: Tensor | None):
        view = points.view(batch, *lam)
        features = noise.features(batch, view.augment)

        def inner(w: Tensor) -> Tensor:
            targets = view.log_targets.exp().clamp(min=1e-300)
            losses = plain_loss(config.method.loss, features @ w.T + head.bias + shift, targets)
            weights = class_weights[points.labels[batch]] * view.weights
            return (weights * losses).mean() + damping * w.square().sum() / 2

        return inner

    if config.outer.val_gradient == "full":
        # Nothing is drawn if all points are used.
        generator = torch.Generator().manual_seed(7)
        sampled = hessian_points is not None and hessian_points < len(everything)
        sample = torch.randperm(len(everything), generator=generator)[:hessian_points] if sampled else everything
        view = points.view(sample)
        features = noise.features(sample, view.augment)
        all_of_val = torch.arange(len(val.labels))
        p = (features @ head.weight.T + head.bias + shift).softmax(1).detach()
        weights = class_weights[points.labels[sample]] * view.weights
        u = gauss_newton_cg(features, weights, p, damping, val_gradient(all_of_val), config.outer.iterations)
        shuffled = everything if points.shared_table is not None else everything[:train_size]
        generator = torch.Generator().manual_seed(7)
        if sampled:
            torch.randperm(len(everything), generator=generator)
        in_order = list(epoch_batches(shuffled, config.training.batch_size, generator))
        batches = in_order if points.learns_augmentation else [index for index, _, _ in given]
        solved = [(batch[batch < train_size], batch, u) for batch in batches]
    else:
        # The same draws in the same order: train batches, then val batches.
        generator = torch.Generator().manual_seed(7)
        batches = list(epoch_batches(everything, config.training.batch_size, generator))
        val_batches: list[Tensor] = []
        solved = []
        for batch in batches:
            if not val_batches:
                val_points = torch.arange(len(val.labels))
                val_batches = list(epoch_batches(val_points, config.training.batch_size, generator))
            hessian = dense_hessian(inner_of(batch), weight)
            damped = torch.eye(len(hessian), dtype=torch.float64) - config.outer.step * hessian
            series = sum(torch.linalg.matrix_power(damped, j) for j in range(config.outer.iterations + 1))
            b = val_gradient(val_batches.pop())
            u = (series @ b.reshape(-1)).view_as(weight)
            solved.append((batch[batch < training.loaders.train_size], batch, u))

    for (index, fast, gradient), (expected_index, batch, u) in zip(given, solved, strict=True):
        assert torch.equal(index, expected_index)
        lam = points.leaves(batch)
        if points.has_rows:
            slow = double_backward(inner_of(batch, *lam), weight.clone().requires_grad_(), lam.rows, u)
            slow = slow[batch < train_size]
            assert slow.norm() > 0
            assert (fast - slow).norm() <= 1e-12 * slow.norm()
        if lam.shared is not None:
            assert gradient.shared is not None
            slow = double_backward(inner_of(batch, *lam), weight.clone().requires_grad_(), lam.shared, u)
            assert slow.norm() > 0
            assert (gradient.shared - slow).norm() <= 1e-12 * slow.norm()


def gauss_newton_cg(features, weights, p, damping, b, iterations) -> Tensor:
    """Textbook conjugate gradients with the dense Gauss-Newton matrix at these predictions."""
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


def test_a_pass_reads_few_rows_at_a_time(monkeypatch):
    training = training_of("autodo-exact-ws")
    monkeypatch.setattr("autodo.points.model.ROW_CHUNK_SIZE", 20)
    table, asked = training.points.table, []
    rows = table.rows
    monkeypatch.setattr(table, "rows", lambda index: asked.append(len(index)) or rows(index))
    val = training.evaluator.evaluate(training.loaders.val)
    assert training.outer is not None
    training.outer.outer_pass.run(val, 0.1, torch.Generator().manual_seed(7))
    assert asked == [20, 20, 8, 16, 16, 16], "chunks of weights for the solve, then one step per batch"


@pytest.mark.parametrize("val_gradient", ["batch", "full"])
@pytest.mark.parametrize("solver", ["fisher", "quasi-newton"])
@pytest.mark.parametrize("method", ["autodo-aws", "autodo-aws+class-balanced", "autodo-aws+logit-adjustment"])
def test_a_pass_with_another_solver_solves_its_own_equation(method, solver, val_gradient, monkeypatch):
    training = training_of(method, solver=solver, step=None, damping=0.1, val_gradient=val_gradient)
    assert training.outer is not None
    layer = training.outer.outer_pass.last_layer
    errors = []

    shift, class_weights = class_terms(training)

    def solve(features, labels, weights, log_targets, count, gradient) -> Tensor:
        u = LastLayer.solve(layer, features, labels, weights, log_targets, count, gradient)
        head, targets = training.model.head, log_targets.exp().clamp(min=1e-300)

        def losses(w: Tensor) -> Tensor:
            unweighted = plain_loss("symmetric-kl", features @ w.T + head.bias + shift, targets)
            return class_weights[labels] * weights * unweighted

        with torch.enable_grad():
            weight = head.weight.detach()
            matrix = (
                dense_fisher(losses, weight)
                if solver == "fisher"
                else dense_hessian(lambda w: losses(w).mean(), weight)
            )
        solved = matrix @ u.reshape(-1) + (0.1 + 0.02) * u.reshape(-1)
        errors.append(float((solved - gradient.reshape(-1)).norm() / gradient.norm()))
        return u

    monkeypatch.setattr(layer, "solve", solve)
    before = training.points.table.values.clone()
    training.outer.outer_pass.run(
        training.evaluator.evaluate(training.loaders.val), 0.1, torch.Generator().manual_seed(7)
    )
    assert len(errors) == {"batch": 3, "full": 1}[val_gradient]
    assert max(errors) < 0.01, errors
    assert (training.points.table.values != before).any(1).all()


def test_the_gradient_of_the_shared_row_is_a_sum_over_the_batch(monkeypatch):
    training = training_of("autodo-shared")
    given: list[Tensor] = []
    table = training.points.shared_table
    monkeypatch.setattr(table, "rmsprop_step", lambda index, gradient, lr: given.append(gradient))
    val = training.evaluator.evaluate(training.loaders.val)
    assert training.outer is not None
    training.outer.outer_pass.run(val, 0.1, torch.Generator().manual_seed(7))
    assert [gradient.shape for gradient in given] == [(1, 14)] * 3
    assert all(gradient.abs().max() > 0 for gradient in given)


@pytest.mark.parametrize("method", ["autodo-aws", "autodo-aws+class-balanced", "autodo-aws+logit-adjustment"])
def test_the_pass_by_autograd_updates_lambda_like_the_pass(method):
    fast, slow = training_of(method), training_of(method)
    assert fast.outer is not None
    val = fast.evaluator.evaluate(fast.loaders.val)
    before = fast.points.table.values.clone()
    assert fast.config.outer is not None
    fast.outer.outer_pass.run(val, fast.config.outer.lr, torch.Generator().manual_seed(7))
    outer_pass_by_autograd(slow, torch.Generator().manual_seed(7))
    # Compare the squares too, because the first step of RMSprop depends only on the signs of gradients.
    torch.testing.assert_close(fast.points.table.square_average, slow.points.table.square_average, rtol=1e-9, atol=0)
    torch.testing.assert_close(fast.points.table.values, slow.points.table.values, rtol=0, atol=1e-9)
    assert (fast.points.table.values != before).any(1).all()


def test_peak_bytes_is_memory_held_at_once():
    def three_but_two_at_once() -> None:
        for _ in range(3):
            first = torch.empty(1000, 1000)
            second = torch.empty(2000, 1000)
            del first, second

    peak = peak_bytes(three_but_two_at_once, torch.device("cpu"))
    assert 12e6 <= peak <= 12.1e6
