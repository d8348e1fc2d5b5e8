"""The batched policy engine: operations are drawn for each image and applied to a whole batch on its device."""

import torch
from torch import Tensor

from autodo.augment import colour, geometry
from autodo.augment.geometry import counting
from autodo.augment.operations import BLENDING, MOVING, NAMES, OPERATIONS, affine_coefficients, to_float, to_levels
from autodo.augment.policies import Draws


def apply_draws(images: Tensor, draws: Draws) -> Tensor:
    """The images after their operations, grouped by operation at each step.

    Computed on whole levels 0..255, as PIL does; uint8 images save the conversion.

    Draws in host memory do for images on a GPU: then the host need not wait for it.

    Shape:
        images [B, C, H, W] uint8, or float in [0, 1], C = 1 or 3 -> the same.
    """
    if images.dtype != torch.uint8:
        return to_float(apply_draws(to_levels(images), draws), images.dtype)
    # Nobody asks for derivatives, and the many small calls are a tenth faster if torch does not prepare for them.
    with torch.inference_mode():
        images, place = _apply_sorted(images, draws)
    return images.index_select(0, place)


def _apply_sorted(images: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """The images after their operations, and where in them each image of the batch is."""
    # Each step has the batch sorted by operation, so that groups are slices.
    operation, order = draws.operation.T.contiguous().sort(1)
    everywhere = counting(len(images), torch.int64, order.device).expand_as(order)
    place = torch.empty_like(order).scatter_(1, order, everywhere)
    # From the batch's order to that of the first step, and from there to the second's.
    moves = torch.cat([order[:1], place[:-1].gather(1, order[1:])])
    value = draws.value.T.gather(1, order)
    centre = draws.centre.transpose(0, 1).gather(1, order[..., None].expand(-1, -1, 2))
    each = counting(len(NAMES) + 1, torch.int64, order.device).repeat(len(order), 1)
    starts = torch.searchsorted(operation, each).tolist()  # the host waits here for draws that a GPU made
    moves, place, operation, value, centre = (
        _sent(tensor, images.device) for tensor in (moves, place, operation, value, centre)
    )
    for step, move in enumerate(moves):
        images = images.index_select(0, move)
        _one_step(images, starts[step], operation[step], value[step], centre[step])
    return images, place[-1]


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for what that is at work on."""
    return tensor if tensor.device == device else tensor.pin_memory().to(device, non_blocking=True)


def _one_step(images: Tensor, starts: list[int], operation: Tensor, value: Tensor, centre: Tensor) -> None:
    """One operation on each image, in place.

    Shape:
        images [B, C, H, W] uint8, sorted by operation [B]; starts [operations + 1]: where those of each begin;
        value [B]; centre [B, 2].
    """
    # Whatever moves pixels is one sampling, and all enhancements are one blend.
    moved = slice(starts[MOVING.start], starts[MOVING.stop])
    if moved.stop > moved.start:
        affine = affine_coefficients(MOVING, *images.shape[-2:], images.device)
        affine = affine.index_select(0, operation[moved] - MOVING.start)
        geometry.sample(images[moved], geometry.matrices(affine, value[moved]))
    first, end = starts[BLENDING.start], starts[BLENDING.stop]
    if end > first:
        bases = [
            (base, slice(start - first, stop - first))
            for each, start, stop in zip(OPERATIONS.values(), starts, starts[1:], strict=False)
            if (base := each.base) and stop > start
        ]
        colour.blend(images[first:end], value[first:end], bases)
    for single, start, stop in zip(OPERATIONS.values(), starts, starts[1:], strict=False):
        if single.exact is not None and stop > start:
            single.exact(images[start:stop], value[start:stop], centre[start:stop])
