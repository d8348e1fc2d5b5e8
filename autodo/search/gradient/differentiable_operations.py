"""The operations of a policy with derivatives in the images and in the level, for searches that follow a gradient.

The geometric operations (by bilinear sampling), the enhancements, Invert and Solarize's pixels have true derivatives,
computed by kornia or by our own code. Elsewhere gradients go straight through: d output / d image = 1 for AutoContrast,
Equalize, Posterize and Cutout, and d pixel / d level = 1 for Solarize, Posterize and Cutout.
Reference: Hataya et al., ECCV 2020; Li et al., ECCV 2020.
"""

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from autodo.augment import colour, geometry
from autodo.augment.apply_draws import sent
from autodo.augment.magnitude_ranges import PUBLISHED, OperationSampler
from autodo.augment.operations import NAMES, OPERATIONS, affine_coefficients, to_float, to_levels
from autodo.augment.policy_file import OPERATION_NAMES, OperationName
from autodo.config.policy import Implementation

SEARCHED = OPERATION_NAMES
"""The 15 operations that a search chooses from."""

Differentiable = Callable[[Tensor, Tensor], Tensor]
"""(images [b, C, H, W] float in [0, 1], value [b] in the operation's units) -> like images."""


def _own_operation(name: OperationName) -> Differentiable | None:
    operation = OPERATIONS[name]
    if operation.matrix is not None:
        return functools.partial(_resample, name)
    if operation.base is not None:
        return functools.partial(colour.blend_smooth, base=operation.base)
    return None


def _resample(name: OperationName, images: Tensor, value: Tensor) -> Tensor:
    position = NAMES.index(name)
    affine = affine_coefficients(range(position, position + 1), *images.shape[-2:], images.device)
    return geometry.bilinear(images, geometry.matrices(affine, value))


_OWN: dict[str, Differentiable] = {name: own for name in SEARCHED if (own := _own_operation(name))}
_OWN |= {
    "Invert": lambda images, value: 1 - images,
    "Solarize": lambda images, value: torch.where(images * 255 < value.view(-1, 1, 1, 1), images, 1 - images),
}


def differentiable(implementation: Implementation) -> Mapping[str, Differentiable]:
    """The operations that have a derivative in the images, by name."""
    if implementation == "own":
        return _OWN
    # Imported here because kornia takes half a second, which a search by our own operations need not pay.
    from autodo.search.gradient import kornia_operations

    return kornia_operations.KORNIA_OPERATIONS


def random_centres(batch: int, generator: torch.Generator) -> Tensor:
    """Centres of Cutout's squares, as shares of the sides. Shape: -> [B, 2]."""
    return torch.rand(batch, 2, generator=generator, device=generator.device)


def discrete(name: OperationName, images: Tensor, value: Tensor, centre: Tensor) -> Tensor:
    """Applies an operation to whole levels 0..255, without a derivative. Shape: as for `apply`."""
    exact = OPERATIONS[name].exact
    assert exact is not None
    with torch.no_grad():
        levels = to_levels(images)
        exact(levels, value, centre)
        return to_float(levels, images.dtype)


def on_host(tensor: Tensor) -> Tensor:
    """A copy in host memory, for which the host waits."""
    return tensor.detach().cpu()


class DifferentiableOperations:
    """The searched operations by one implementation, and the values of their levels.

    Where operations are numbers, these are positions in SEARCHED.
    """

    def __init__(self, implementation: Implementation = "own") -> None:
        self._differentiable = differentiable(implementation)
        self._sampler = OperationSampler(PUBLISHED)
        self._positions = torch.tensor([NAMES.index(name) for name in SEARCHED])

    def draw_values(self, operation: Tensor, level: Tensor, generator: torch.Generator) -> Tensor:
        """Values in the operations' units, with drawn signs, differentiable in the level.

        Shape:
            operation [...] int64, level [...] -> [...].
        """
        self._positions = self._positions.to(operation.device)
        return self._sampler.draw_values(self._positions[operation], level, generator)

    def apply(self, name: OperationName, images: Tensor, level: Tensor, value: Tensor, centre: Tensor) -> Tensor:
        """Applies one operation, with the derivatives that the module's docstring names.

        Args:
            value: the value of `level`, from `draw_values`.
        Shape:
            images [b, C, H, W] float in [0, 1], level, value [b], centre [b, 2] -> like images.
        """
        operation = OPERATIONS[name]
        smooth = self._differentiable.get(name)
        if smooth is not None:
            result = smooth(images, value.to(images.dtype))
        else:
            result = images + (discrete(name, images.detach(), value.detach(), centre) - images).detach()
        if operation.has_magnitude and operation.exact is not None:
            # The value stays as it is; every pixel gets the derivative 1 (straight-through).
            result = result + (level - level.detach()).to(images.dtype).view(-1, 1, 1, 1)
        return result

    def apply_each(
        self,
        images: Tensor,
        operation: Tensor,
        level: Tensor,
        gate: Tensor,
        generator: torch.Generator,
        *,
        closed_too: bool = False,
    ) -> Tensor:
        """Applies to each image its own sequence of operations: x + gate (O(x) - x), step by step.

        Args:
            closed_too: computes operations whose gate is 0 as well, for their derivative in the gate.
        Shape:
            images [B, C, H, W] float in [0, 1]; operation [B, L] int64; level, gate [B, L] -> like images.
        """
        value = self.draw_values(operation, level, generator)
        # All choices at once, so that the host waits for the device once; -1 is left out.
        chosen = on_host(operation if closed_too else operation.where(gate > 0, -1))
        for step in range(operation.shape[1]):
            centre = random_centres(len(images), generator)
            rows: list[Tensor] = []
            results: list[Tensor] = []
            for number, name in enumerate(SEARCHED):
                group = (chosen[:, step] == number).nonzero().squeeze(1)
                if len(group) == 0:
                    continue
                group = sent(group, images.device)
                before = images[group]
                after = self.apply(name, before, level[group, step], value[group, step], centre[group])
                rows.append(group)
                results.append(before + gate[group, step].view(-1, 1, 1, 1) * (after - before))
            if rows:
                images = images.index_copy(0, torch.cat(rows), torch.cat(results))
        return images
