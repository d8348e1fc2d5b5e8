"""The batched policy engine: applies the operations drawn for each image to a whole batch, on its device."""

import torch
from torch import Tensor

from autodo.augment import colour, geometry
from autodo.augment.geometry import counting
from autodo.augment.operations import BLENDING, MOVING, NAMES, OPERATIONS, affine_coefficients, to_float, to_levels
from autodo.augment.policies import Draws
from autodo.config.run import BorderName


def apply_draws(images: Tensor, draws: Draws, border: BorderName = "zeros") -> Tensor:
    """Applies to each image its operations, grouped by operation at each step.

    Computed on whole levels 0..255, as PIL does; uint8 images save the conversion. Images on a GPU may have draws in
    host memory; then the host need not wait for the GPU.

    Args:
        border: what geometric operations move in: zeros, as PIL does, or the nearest pixel of the image.
    Shape:
        images [B, C, H, W] uint8, or float in [0, 1], C = 1 or 3 -> the same.
    """
    if images.dtype != torch.uint8:
        return to_float(apply_draws(to_levels(images), draws, border), images.dtype)
    # No derivatives are needed, and the many small calls are a tenth faster if torch does not prepare for them.
    with torch.inference_mode():
        images, place = _apply_sorted(images, draws, border)
    return images.index_select(0, place)


def _apply_sorted(images: Tensor, draws: Draws, border: BorderName) -> tuple[Tensor, Tensor]:
    """The images after their operations in another order, and the position of each image of the batch in it."""
    # Each step has the batch sorted by operation, so that groups are slices.
    operation, order = draws.operation.T.contiguous().sort(1)
    everywhere = counting(len(images), torch.int64, order.device).expand_as(order)
    place = torch.empty_like(order).scatter_(1, order, everywhere)
    # From the batch's order to that of the first step, and from there to the second's.
    moves = torch.cat([order[:1], place[:-1].gather(1, order[1:])])
    value = draws.value.T.gather(1, order)
    centre = draws.centre.transpose(0, 1).gather(1, order[..., None].expand(-1, -1, 2))
    each = counting(len(NAMES) + 1, torch.int64, order.device).repeat(len(order), 1)
    starts = torch.searchsorted(operation, each).tolist()  # the host waits here if the draws are on a GPU
    moves, place, operation, value, centre = (
        sent(tensor, images.device) for tensor in (moves, place, operation, value, centre)
    )
    for step, move in enumerate(moves):
        images = images.index_select(0, move)
        _one_step(images, starts[step], operation[step], value[step], centre[step], border)
    return images, place[-1]


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor to the device without waiting for the device's queue."""
    return tensor if tensor.device == device else tensor.pin_memory().to(device, non_blocking=True)


def _one_step(
    images: Tensor, starts: list[int], operation: Tensor, value: Tensor, centre: Tensor, border: BorderName
) -> None:
    """Applies one operation to each image, in place.

    Shape:
        images [B, C, H, W] uint8, sorted by operation [B]; starts [operations + 1]: first position of each operation;
        value [B]; centre [B, 2].
    """
    # All geometric operations are one sampling, and all enhancements are one blend.
    moved = slice(starts[MOVING.start], starts[MOVING.stop])
    if moved.stop > moved.start:
        affine = affine_coefficients(MOVING, *images.shape[-2:], images.device)
        affine = affine.index_select(0, operation[moved] - MOVING.start)
        geometry.sample(images[moved], geometry.matrices(affine, value[moved]), border)
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
