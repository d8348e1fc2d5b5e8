"""The operations of a policy with derivatives in the images and in the level, for searches that follow a gradient.

Where an operation has a derivative, that is it: of the geometric ones by bilinear sampling, of the enhancements, of
Invert and of Solarize's pixels; kornia computes these, or code of our own (`implementation`). Elsewhere gradients go
straight through: d output / d image = 1 for AutoContrast, Equalize, Posterize and Cutout, and d pixel / d level = 1 for
Solarize, Posterize and Cutout.
Reference: Hataya et al., ECCV 2020; Li et al., ECCV 2020.
"""

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from autodo.augment.magnitude_ranges import PUBLISHED, OperationSampler
from autodo.augment.operations import NAMES, OPERATIONS, operate
from autodo.augment.policy_file import OPERATION_NAMES, OperationName
from autodo.config.policy import Implementation

SEARCHED = OPERATION_NAMES
"""The 15 operations that a search chooses from."""

Differentiable = Callable[[Tensor, Tensor], Tensor]
"""(images [b, C, H, W] float in [0, 1], value [b] in the operation's units) -> like images."""

_OWN: dict[str, Differentiable] = {
    name: functools.partial(operate, name) for name in SEARCHED if OPERATIONS[name].differentiable
}
# Differentiable in the images, of which `operate` gives whole levels without a derivative.
_OWN |= {
    "Invert": lambda images, value: 1 - images,
    "Solarize": lambda images, value: torch.where(images * 255 < value.view(-1, 1, 1, 1), images, 1 - images),
}


def differentiable(implementation: Implementation) -> Mapping[str, Differentiable]:
    """The operations that have a derivative in the images, by name."""
    if implementation == "own":
        return _OWN
    # Imported here because kornia takes half a second, which a search by our own operations need not pay.
    from autodo.search import kornia_operations

    return kornia_operations.KORNIA_OPERATIONS


class LevelValues:
    """What the levels of the searched operations stand for, and where Cutout cuts: drawn for each image and step."""

    def __init__(self) -> None:
        self._sampler = OperationSampler(PUBLISHED)
        self._positions = torch.tensor([NAMES.index(name) for name in SEARCHED])

    def values(self, operation: Tensor, level: Tensor, generator: torch.Generator) -> Tensor:
        """In the operations' units, with drawn signs, differentiable in the level.

        Shape:
            operation [...] int64: positions in SEARCHED, level [...] -> [...].
        """
        self._positions = self._positions.to(operation.device)
        return self._sampler.draw_values(self._positions[operation], level, generator)


def centres(batch: int, generator: torch.Generator) -> Tensor:
    """Where Cutout cuts each image, as shares of the sides. Shape: -> [B, 2]."""
    return torch.rand(batch, 2, generator=generator, device=generator.device)


def apply_smooth(
    name: OperationName,
    images: Tensor,
    level: Tensor,
    value: Tensor,
    centre: Tensor,
    implementation: Implementation = "own",
) -> Tensor:
    """One operation, with the derivatives that the module's docstring names.

    Args:
        value: what `level` stands for, from `LevelValues.values`.
    Shape:
        images [b, C, H, W] float in [0, 1], level, value [b], centre [b, 2] -> like images.
    """
    operation = OPERATIONS[name]
    smooth = differentiable(implementation).get(name)
    if smooth is not None:
        result = smooth(images, value.to(images.dtype))
    else:
        result = images + (operate(name, images.detach(), value.detach(), centre) - images).detach()
    if operation.has_magnitude and not operation.differentiable:
        # The value stays as it is; every pixel gets the derivative 1 (straight-through).
        result = result + (level - level.detach()).to(images.dtype).view(-1, 1, 1, 1)
    return result


def apply_each(
    images: Tensor,
    operation: Tensor,
    level: Tensor,
    gate: Tensor,
    setting: LevelValues,
    generator: torch.Generator,
    *,
    implementation: Implementation = "own",
    closed_too: bool = False,
) -> Tensor:
    """Each image after its own sequence of operations: x + gate (O(x) - x), step by step, grouped by operation.

    Args:
        closed_too: computes operations whose gate is 0 as well, for their derivative in the gate.
    Shape:
        images [B, C, H, W] float in [0, 1]; operation [B, L] int64: positions in SEARCHED; level, gate [B, L].
    """
    value = setting.values(operation, level, generator)
    for step in range(operation.shape[1]):
        centre = centres(len(images), generator)
        wanted = torch.ones_like(gate[:, step], dtype=torch.bool) if closed_too else gate[:, step] > 0
        rows: list[Tensor] = []
        results: list[Tensor] = []
        for number, name in enumerate(SEARCHED):
            own = ((operation[:, step] == number) & wanted).nonzero().squeeze(1)
            if len(own) == 0:
                continue
            before = images[own]
            after = apply_smooth(name, before, level[own, step], value[own, step], centre[own], implementation)
            rows.append(own)
            results.append(before + gate[own, step].view(-1, 1, 1, 1) * (after - before))
        if rows:
            images = images.index_copy(0, torch.cat(rows), torch.cat(results))
    return images
