"""Slow, obviously correct versions of fast functions."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autodo.bilevel.inverse_hessian import build_solver
from autodo.config.objective import ClassBalanced, LogitAdjustment
from autodo.data.batches import epoch_batches
from autodo.points.model import PointView
from autodo.training.trainer import Trainer

Objective = Callable[[Tensor], Tensor]


def plain_loss(name: str, logits: Tensor, target: Tensor) -> Tensor:
    """Loss per point by its definition. Shape: logits, target (probabilities) [B, C] -> [B]."""
    p = torch.softmax(logits, 1)
    if name == "cross-entropy":
        return -(target * torch.log(p)).sum(1)
    forward = (target * torch.log(target / p)).sum(1)
    if name == "kl":
        return forward
    return (forward + (p * torch.log(p / target)).sum(1)) / 2


def double_backward(inner: Objective, weight: Tensor, lam: Tensor, u: Tensor) -> Tensor:
    """-(d2 inner / dlam dW) u, by differentiating the gradient of autograd in W again.

    Args:
        inner: W -> the inner loss, through the whole network, with lam in its graph.
    """
    (gradient,) = torch.autograd.grad(inner(weight), weight, create_graph=True)
    (result,) = torch.autograd.grad(-(gradient * u).sum(), lam)
    return result


def dense_hessian(inner: Objective, weight: Tensor) -> Tensor:
    """Hessian in W as a matrix. Shape: weight [C, D] -> [C*D, C*D]."""
    size = weight.numel()
    hessian = torch.autograd.functional.hessian(inner, weight)
    assert isinstance(hessian, Tensor)
    return hessian.reshape(size, size)


def dense_fisher(losses: Objective, weight: Tensor) -> Tensor:
    """Empirical Fisher information in W as a matrix: the mean of the outer products of the points' scores.

    Args:
        losses: W -> the (weighted) loss of each point, [B].
    Shape:
        weight [C, D] -> [C*D, C*D].
    """
    scores = torch.autograd.functional.jacobian(losses, weight)
    assert isinstance(scores, Tensor)
    scores = scores.flatten(1)
    return scores.T @ scores / len(scores)


def equation_7(losses: Callable[[Tensor, Tensor], Tensor], weight: Tensor, lam: Tensor, u: Tensor) -> Tensor:
    """The paper's equation (7) for row i of lam: 1/B <u, s_i> dlog p_i/dlam_i, where s_i is the score of point i.

    It differs from the solver `fisher`, which only replaces H: (7) also replaces the mixed derivative d2L/(dtheta dlam)
    by the mean of the outer products s_i (dlog p_i/dlam_i)'. The two are equal in expectation over labels drawn
    from the model, for parameters of the distribution p(y | x; theta, lam). A loss weight is no such parameter: for
    lam^W the result is w_i loss_i times that of the solver. Soft labels are none either.

    Args:
        losses: (W, lam) -> the weighted loss -log p_i of each point, [B], through the whole network.
        u: I^-1 times the mean score of the val points, which is I^-1 (-dL_v/dW).
    Shape:
        weight, u [C, D], lam [B, K] -> [B, K]: the gradient of the val loss.
    """
    scores = -torch.autograd.functional.jacobian(lambda w: losses(w, lam), weight)
    points = range(len(lam))
    # The loss of a point depends on its own row only.
    gradients = torch.autograd.functional.jacobian(lambda rows: losses(weight, rows), lam)
    rows = torch.stack([-gradients[i, i] for i in points])
    return (scores * u).flatten(1).sum(1)[:, None] * rows / len(lam)


def solve_inner(inner: Objective, start: Tensor, tolerance: float = 1e-11) -> Tensor:
    """Minimum of a (locally) convex inner loss in W, by damped Newton steps."""
    weight = start.clone()
    for _ in range(100):
        point = weight.clone().requires_grad_()
        value = inner(point)
        (gradient,) = torch.autograd.grad(value, point)
        if gradient.abs().max() < tolerance:
            return weight
        step = torch.linalg.solve(dense_hessian(inner, weight), gradient.reshape(-1)).view_as(weight)
        size = 1.0
        while size > 1e-6 and not inner(weight - size * step) <= value:
            size /= 2
        weight = weight - size * step
    raise AssertionError(f"Newton did not converge: {gradient.abs().max()}")


def tiny_encoder(seed: int = 0, channels: int = 1, features: int = 5) -> nn.Module:
    """A frozen C1 network in float64 with batch norm in eval mode. Shape: [B, channels, 8, 8] -> [B, features]."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.CELU(),
            nn.AvgPool2d(2),
            nn.Conv2d(4, features, 3, padding=1),
            nn.CELU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ).double()
    return network.eval().requires_grad_(False)


def outer_pass_by_autograd(training: Trainer, generator: torch.Generator) -> None:
    """The paper's outer pass by plain autograd through the whole network; it draws in the same order as `OuterPass`."""
    config, encoder, head, points = training.config, training.model.encoder, training.model.head, training.points
    assert config.outer is not None
    encoder.eval()
    weight = head.weight
    everything = torch.arange(len(training.loaders.train.images), device=training.context.device)
    val = torch.arange(len(training.loaders.val.images), device=training.context.device)
    val_batches: list[Tensor] = []
    for batch in epoch_batches(everything, config.training.batch_size, generator):
        if not val_batches:
            val_batches = list(epoch_batches(val, config.training.batch_size, generator))
        chosen = val_batches.pop()
        logits = head(encoder(training.model.pipeline.test_view(training.loaders.val.images[chosen])))
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, training.loaders.val.labels[chosen]), weight)

        rows = points.table.rows(batch).requires_grad_()
        view = points.view(batch, rows)
        features = encoder(
            training.model.pipeline.train_view(training.loaders.train.images[batch], generator, view.augment)
        )

        inner = partial(_inner_loss, training, points.labels[batch], view, features)
        (slope,) = torch.autograd.grad(inner(weight), weight, create_graph=True)
        product = partial(_hessian_product, slope, weight)
        u = build_solver(config.outer, size=weight.numel())(product, gradient)
        points.table.rmsprop_step(batch, double_backward(inner, weight, rows, u), config.outer.lr)


def class_terms(training: Trainer) -> tuple[Tensor, Tensor]:
    """Shift of the logits and weight of each class in the train loss; zeros and ones for the plain loss.

    Both are rounded to float32, like those of the run.

    Shape:
        -> [C], [C], float64.
    """
    config, data = training.config, training.context.data
    labels = [*data.train.labels, *(data.val.labels if config.trains_on_val else ())]
    counts = torch.tensor([max(1, labels.count(c)) for c in range(len(data.class_names))], dtype=torch.float64)
    shift, class_weights = torch.zeros_like(counts), torch.ones_like(counts)
    if isinstance(config.objective, LogitAdjustment):
        shift = config.objective.tau * torch.log(counts / sum(counts))
    elif isinstance(config.objective, ClassBalanced):
        effective = (1 - config.objective.beta**counts) / (1 - config.objective.beta)
        class_weights = len(counts) / effective / sum(1 / effective)
    return shift.float().double(), class_weights.float().double()


def _inner_loss(training: Trainer, labels: Tensor, view: PointView, features: Tensor, weight: Tensor) -> Tensor:
    """Mean loss of a batch and weight decay, as functions of the last layer's weight."""
    config = training.config
    assert config.outer is not None
    shift, class_weights = class_terms(training)
    losses = plain_loss(config.loss, features @ weight.T + training.model.head.bias + shift, view.log_targets.exp())
    decay = config.outer.damping + config.training.weight_decay
    return (class_weights[labels] * view.weights * losses).mean() + decay * weight.square().sum() / 2


def _hessian_product(slope: Tensor, weight: Tensor, direction: Tensor) -> Tensor:
    """Hessian times direction of a loss with this gradient in the weight; the graph is kept."""
    return torch.autograd.grad(slope, weight, direction, retain_graph=True)[0]
