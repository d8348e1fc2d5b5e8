"""The gradient of the val loss after one train step, in the parameters of the train loss other than theta (DARTS).

With theta' = theta - lr grad_theta L_train(theta, phi) and v = grad L_val(theta'),

    d L_val(theta') / d phi = -lr d/dphi <v, grad_theta L_train(theta, phi)>
                            = -lr |v| d/dphi (L_train(theta + r u, phi) - L_train(theta - r u, phi)) / 2r + O(r^2),

u = v / |v|. The first equality is exact, with v held fixed on its right; the second replaces a derivative of second
order by a central difference. If the train loss is a mean over images, there is one number for each image.
Reference: Liu et al., ICLR 2019, eq. (7) and (8), where epsilon = r / |v| with r = 0.01.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

Parameters = Mapping[str, Tensor]
RADIUS = 0.01


class Direction(NamedTuple):
    """The unit vector and the length of v, and the val loss L_val(theta')."""

    unit: dict[str, Tensor]
    length: Tensor
    loss: Tensor


def val_direction(
    parameters: Parameters, gradient: Parameters, lr: float, val_loss: Callable[[Parameters], Tensor]
) -> Direction:
    """v = grad L_val at theta' = theta - lr gradient; does not change `parameters`."""
    moved = _moved(parameters, gradient, -lr)
    for value in moved.values():
        value.requires_grad_()
    loss = val_loss(moved)
    found = torch.autograd.grad(loss, list(moved.values()))
    length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in found]))
    # A val loss of exactly zero has no direction; then nothing moves.
    length = length.clamp_min(torch.finfo(length.dtype).tiny)
    return Direction(dict(zip(moved, (part / length for part in found), strict=True)), length, loss.detach())


def derivative_along(
    unit: Parameters, parameters: Parameters, train_losses: Callable[[Parameters], Tensor], radius: float = RADIUS
) -> Tensor:
    """<u, grad_theta loss_i(theta)> of each image by a central difference, with the graph to all but theta.

    Shape:
        train_losses: parameters -> [B]; -> [B].
    """

    def at(distance: float) -> Tensor:
        return train_losses(_moved(parameters, unit, distance))

    return (at(radius) - at(-radius)) / (2 * radius)


def _moved(parameters: Parameters, direction: Parameters, distance: float) -> dict[str, Tensor]:
    # In place on a copy, which keeps the strides: those of a sum say channels first of a convolution of one channel.
    return {name: value.detach().clone().add_(direction[name], alpha=distance) for name, value in parameters.items()}
