"""Networks that were given in Python, as objects; they have the name `module:CLASS` and a fingerprint."""

import copy
import hashlib
import inspect
from typing import NamedTuple

import torch
from torch import nn

from autodo.errors import ConfigError
from autodo.models.adopted.weights import state_content
from autodo.models.names import GIVEN

_GIVEN: dict[tuple[str, str], nn.Module] = {}


class GivenName(NamedTuple):
    """Settings of a run with a given network: `model.name` and `model.code`."""

    name: str
    fingerprint: str


def register(module: nn.Module, fingerprint: str | None = None) -> GivenName:
    """Keep a copy of a network for the runs of this process, with its present weights as the initial ones.

    Args:
        module: images [B, C, H, W] -> logits, or features with `model.head=append`; of a `DataParallel` its module.
        fingerprint: text that stands for the module in run ids; None: computed from the source of its classes, its
            structure and its weights.
    Raises:
        ConfigError: if it is no nn.Module, or cannot be copied.
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(f"a network is an nn.Module, not a {type(module).__name__}")
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        module = module.module
    name = f"{GIVEN}:{type(module).__name__}"
    if any(
        isinstance(part, nn.modules.lazy.LazyModuleMixin) and part.has_uninitialized_params()
        for part in module.modules()
    ):
        raise ConfigError(f"{name}: has lazy layers without weights; call it on some images first")
    try:
        kept = copy.deepcopy(module).to("cpu", torch.float32)
    except Exception as error:  # classes decide how they are copied
        raise ConfigError(f"{name}: cannot be copied: {error}") from error
    given = GivenName(name, fingerprint or _fingerprint(kept))
    _GIVEN[given] = kept
    return given


def copy_of(name: str, fingerprint: str | None) -> nn.Module:
    """A copy of a given network.

    Raises:
        ConfigError: if none was given in this process.
    """
    kept = [module for key, module in _GIVEN.items() if key[0] == name and fingerprint in (None, key[1])]
    if not kept:
        raise ConfigError(
            f"{name}: this network was given in Python, and not to this process: give it again, or use an import path "
            "PACKAGE.MODULE:FUNCTION, which all processes can use"
        )
    return copy.deepcopy(kept[-1])


def _fingerprint(module: nn.Module) -> str:
    """16 hex digits of the classes' source, the structure, and the weights."""
    digest = hashlib.blake2b(repr(module).encode(), digest_size=8)
    for kind in dict.fromkeys(type(part) for part in module.modules()):
        if not kind.__module__.startswith("torch."):
            try:
                digest.update(inspect.getsource(kind).encode())
            except (OSError, TypeError):  # typed into an interpreter that keeps no source
                digest.update(kind.__qualname__.encode())
    digest.update(state_content(module.state_dict()).encode())
    return digest.hexdigest()
