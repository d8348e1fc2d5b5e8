"""The unrolled gradient by central differences against differentiating through the step."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from autodo.search.gradient.unrolled_step import Parameters, derivative_along, val_direction

DTYPE = torch.float64
LR = 0.3


def test_unrolled_gradient_agrees_with_double_backward_in_scale_too() -> None:
    generator = torch.Generator().manual_seed(0)
    images, val_images = torch.randn(2, 12, 5, generator=generator, dtype=DTYPE)
    labels, val_labels = torch.randint(3, (2, 12), generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).to(DTYPE)
    theta: Parameters = dict(network.named_parameters())
    phi = torch.linspace(0.5, 1.5, 5, dtype=DTYPE, requires_grad=True)  # scales the train images' columns

    def logits(parameters: Parameters, images: Tensor) -> Tensor:
        result: Tensor = functional_call(network, dict(parameters), (images,))
        return result

    def val_loss(parameters: Parameters) -> Tensor:
        return F.cross_entropy(logits(parameters, val_images), val_labels)

    def train_losses(parameters: Parameters) -> Tensor:
        return F.cross_entropy(logits(parameters, images * phi), labels, reduction="none")

    gradient = torch.autograd.grad(train_losses(theta).mean(), list(theta.values()), create_graph=True)
    moved = {name: value - LR * part for (name, value), part in zip(theta.items(), gradient, strict=True)}
    (exact,) = torch.autograd.grad(val_loss(moved), phi)

    fixed = {name: part.detach() for name, part in zip(theta, gradient, strict=True)}
    before = {name: value.clone() for name, value in theta.items()}
    direction = val_direction(theta, fixed, LR, val_loss)
    along = derivative_along(direction.unit, theta, train_losses)
    assert along.shape == (12,)
    (found,) = torch.autograd.grad(-LR * direction.length * along.mean(), phi)

    assert exact.norm() > 1e-3
    assert torch.allclose(found, exact, rtol=1e-4, atol=1e-4 * float(exact.norm()))
    assert torch.allclose(direction.loss, val_loss(moved).detach())
    assert all(torch.equal(theta[name], value) for name, value in before.items())
