"""Task models: `build(name, ...)` gives an encoder and a linear head. Names are known without importing torch."""

import importlib
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import nn

    from autodo.models.encoder import Encoder

# name pattern -> module of this package; its `build_encoder(in_channels, image_size, *numbers of the name)`
# returns an `Encoder` [B, in_channels, H, W] -> [B, D] with an attribute `features` = D.
MODELS = {
    r"small-cnn": "small_cnn",
    r"resnet-18": "resnet",
    r"wrn-(\d+)-(\d+)": "wide_resnet",
}


class ModelName(NamedTuple):
    """A parsed model name: the module that builds it and the numbers in the name."""

    module: str
    numbers: tuple[int, ...]


def parse_model_name(name: str) -> ModelName | None:
    """`wrn-28-10` as ("wide_resnet", (28, 10)); None if there is no such model."""
    for pattern, module in MODELS.items():
        match = re.fullmatch(pattern, name)
        if match is not None:
            numbers = tuple(int(group) for group in match.groups())
            if module == "wide_resnet" and ((numbers[0] - 4) % 6 or numbers[0] < 10 or numbers[1] < 1):
                return None
            return ModelName(module, numbers)
    return None


def known_model_names() -> list[str]:
    """Names to show a person."""
    return ["small-cnn", "resnet-18", "wrn-<depth 6n+4>-<width>, such as wrn-16-2, wrn-28-10"]


def build(
    name: str, *, in_channels: int, image_size: int, classes: int, cosine_scale: float | None = None
) -> "tuple[Encoder, nn.Linear]":
    """Encoder [B, C, H, W] -> [B, D] and linear head [B, D] -> [B, classes], on the CPU, torch's default init.

    Weights have channels last, which suits convolutions on CPUs and GPUs alike; from the weights on everything follows.

    Args:
        cosine_scale: if given, the head's logits are cosines times this (`CosineHead`).
    Raises:
        ValueError: if no model has this name.
    """
    import torch
    from torch import nn

    from autodo.models.cosine_head import CosineHead

    parsed = parse_model_name(name)
    if parsed is None:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(known_model_names())}")
    module = importlib.import_module(f"autodo.models.{parsed.module}")
    encoder = module.build_encoder(in_channels, image_size, *parsed.numbers).to(memory_format=torch.channels_last)
    if cosine_scale is not None:
        return encoder, CosineHead(encoder.features, classes, cosine_scale)
    return encoder, nn.Linear(encoder.features, classes)
