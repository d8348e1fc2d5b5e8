"""Task models: `build(name, ...)` gives an encoder and a linear head. Names are known without importing torch."""

import importlib
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import nn

    from autodo.models.encoder import Encoder

# Pattern of a name -> module in this package. Its `build_encoder(in_channels, image_size, *numbers in the name)`
# returns an `Encoder` [B, in_channels, H, W] -> [B, features].
MODELS = {
    r"small-cnn": "small_cnn",
    r"resnet-18": "resnet",
    r"wrn-(\d+)-(\d+)": "wide_resnet",
    r"linear": "linear",
}


class ModelName(NamedTuple):
    """Module that builds a model, and the numbers in the name of the model."""

    module: str
    numbers: tuple[int, ...]


def parse_model_name(name: str) -> ModelName | None:
    """Parse `wrn-28-10` to ("wide_resnet", (28, 10)); None if there is no such model."""
    for pattern, module in MODELS.items():
        match = re.fullmatch(pattern, name)
        if match is not None:
            numbers = tuple(int(group) for group in match.groups())
            if module == "wide_resnet" and ((numbers[0] - 4) % 6 or numbers[0] < 10 or numbers[1] < 1):
                return None
            return ModelName(module, numbers)
    return None


def known_model_names() -> list[str]:
    """Names for messages."""
    return ["small-cnn", "resnet-18", "wrn-<depth 6n+4>-<width>, such as wrn-16-2, wrn-28-10", "linear"]


def build(
    name: str, *, in_channels: int, image_size: int, classes: int, cosine_scale: float | None = None
) -> "tuple[Encoder, nn.Linear]":
    """Build encoder [B, C, H, W] -> [B, D] and head [B, D] -> [B, classes] on the CPU, with torch's default init.

    Weights are channels-last, which is fast on CPUs and GPUs; activations follow.

    Args:
        cosine_scale: scale of a `CosineHead`; None: a linear head.
    Raises:
        ValueError: if the name is unknown.
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
