"""The batched policy engine: operations are drawn for each image and applied to a whole batch on its device."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autodo.augment import geometry
from autodo.augment import policies as of
from autodo.augment.draws import Draws, Policy
from autodo.augment.operations import MOVING, NAMES, OPERATIONS, to_float, to_levels
from autodo.augment.policy_file import PolicyFile
from autodo.augment.ranges import COLOUR, ORIGINAL, PAPER, Ranges
from autodo.policy_config import OperationSet, PolicyConfig

__all__ = ["Draws", "Policy", "apply", "build_policy"]


def apply(images: Tensor, draws: Draws) -> Tensor:
    """The images after their operations, grouped by operation at each step.

    Computed on whole levels 0..255, as PIL does; uint8 images save the conversion.

    Shape:
        images [B, C, H, W] uint8, or float in [0, 1], C = 1 or 3 -> the same.
    """
    if images.dtype != torch.uint8:
        return to_float(apply(to_levels(images), draws), images.dtype)
    # Each step has the batch sorted by operation, so that groups are slices; `place` says where each image is.
    operation, order = draws.operation.sort(0)
    counts = torch.zeros(len(NAMES), operation.shape[1], dtype=torch.int64, device=operation.device)
    counts.scatter_add_(0, operation, torch.ones_like(operation))
    everywhere = torch.arange(len(images), device=images.device)
    place = everywhere
    for step, sizes in enumerate(counts.T.tolist()):  # the only point where the host waits for a GPU
        if sizes[0] == len(images):
            continue  # Identity
        chosen = order[:, step]
        value, centre = draws.value[:, step].index_select(0, chosen), draws.centre[:, step].index_select(0, chosen)
        images = _one_step(images.index_select(0, place.index_select(0, chosen)), sizes, value, centre)
        place = torch.empty_like(place).scatter_(0, chosen, everywhere)
    return images.index_select(0, place)


def _one_step(images: Tensor, sizes: list[int], value: Tensor, centre: Tensor) -> Tensor:
    """One operation on each image. Shape: images sorted by operation, of `sizes` images each."""
    columns = (images, value, centre, geometry.identity(len(images), images.device))
    groups = list(zip(OPERATIONS.values(), sizes, *(column.split(sizes) for column in columns), strict=True))
    first, end = sum(sizes[: MOVING.start]), sum(sizes[: MOVING.stop])
    done = [images[:first]]
    if end > first:
        # Whatever moves pixels is one sampling.
        for operation, size, _, values, _, matrix in groups[MOVING.start : MOVING.stop]:
            if size:
                assert operation.matrix is not None
                operation.matrix(matrix, values, *images.shape[-2:])
        done.append(geometry.nearest(images[first:end], columns[-1][first:end]))
    for operation, size, group, values, centres, _ in groups[MOVING.stop :]:
        if size:
            assert operation.exact is not None
            done.append(operation.exact(group, values, centres))
    return torch.cat(done)


_OPERATION_SETS: dict[OperationSet, Ranges] = {"paper": PAPER, "original": ORIGINAL}


def _from_data(found: PolicyFile | None) -> Policy:
    assert found is not None, "the policy's file was not read, or the search was not run, before the training"
    return of.Schedule(found.schedule) if found.schedule else of.SubPolicies(found.sub_policies)


_BUILDERS: Mapping[str, Callable[[Any, PolicyFile | None], Policy]] = {
    "randaugment": lambda c, _: of.RandAugment(_OPERATION_SETS[c.operations], c.draws, c.magnitude, c.fixed),
    "colour": lambda c, _: of.RandAugment(COLOUR, c.draws, c.magnitude, fixed=False),
    "autoaugment": lambda c, _: of.autoaugment(c.table),
    "trivialaugment": lambda c, _: of.TrivialAugment(),
    "uniformaugment": lambda c, _: of.UniformAugment(c.draws),
    "file": lambda c, found: _from_data(found),
    "searched": lambda c, found: _from_data(found),
}


def build_policy(config: PolicyConfig, found: PolicyFile | None = None) -> Policy:
    """The policy that a config describes.

    Args:
        found: what a file or a search gave, for the kinds `file` and `searched`.
    """
    return _BUILDERS[config.kind](config, found)
