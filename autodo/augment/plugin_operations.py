"""Operations of plug-ins in policies."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from autodo import plugins
from autodo.augment.magnitude_ranges import PUBLISHED, MagnitudeRange, MagnitudeRanges
from autodo.augment.operations import NAMES, OPERATIONS, Operation
from autodo.augment.policy_file import PolicyFile
from autodo.errors import ConfigError


def ranges_of(policy: PolicyFile) -> MagnitudeRanges:
    """Ranges of the operations that a policy may have; those of plug-ins become entries of `OPERATIONS`.

    Raises:
        ConfigError: if a plug-in is missing, or not as it was when the policy was read.
    """
    ranges = dict(PUBLISHED)
    for name, code in policy.operations.items():
        plugin: plugins.OperationPlugin = plugins.get("operation", name, code).plugin
        if name not in OPERATIONS:
            NAMES.append(name)
        exact = functools.partial(_apply, name, plugin.apply)
        OPERATIONS[name] = Operation(plugin.low, plugin.high, plugin.signed, exact=exact)
        ranges[name] = MagnitudeRange(plugin.low, plugin.high, 0.0 if plugin.signed else None)
    return ranges


def _apply(
    name: str, apply: Callable[[Tensor, Tensor, Tensor], object], images: Tensor, value: Tensor, centre: Tensor
) -> None:
    result = apply(images, value, centre)
    if isinstance(result, Tensor) and result is not images:
        if result.shape != images.shape or result.dtype != torch.uint8:
            raise ConfigError(
                f"operation {name!r}: returned {result.dtype} {tuple(result.shape)} for images uint8 "
                f"{tuple(images.shape)}, and must return the same, or change them in place"
            )
        images.copy_(result)
