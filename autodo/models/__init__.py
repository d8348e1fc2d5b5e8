"""Task models: `build(name, ...)` gives an encoder and a linear head. Names are known without importing torch."""

import importlib
from typing import TYPE_CHECKING, Any

from autodo.errors import ConfigError
from autodo.models.names import ModelName, known_model_names, normalised, parse_model_name, problem_with

if TYPE_CHECKING:
    from torch import nn

    from autodo.models.encoder import Encoder

__all__ = ["assemble", "build", "known_model_names", "normalised", "parse_model_name", "problem_with"]


def build(
    name: str,
    *,
    in_channels: int,
    image_size: int,
    classes: int,
    cosine_scale: float | None = None,
    head: str | None = None,
    code: str | None = None,
    weights: str | None = None,
    weights_content: str | None = None,
    freeze: str = "none",
    input_size: int | None = None,
    normalisation: str | None = None,
) -> "tuple[Encoder, nn.Linear]":
    """Build encoder [B, C, H, W] -> [B, D] and head [B, D] -> [B, classes] on the CPU, with initial weights.

    Weights are channels-last, which is fast on CPUs and GPUs; activations follow.

    Args:
        in_channels, image_size: of the images of the data.
        cosine_scale: scale of a `CosineHead`; None: a linear head.
        head, code, weights, weights_content, freeze, input_size, normalisation: see `ModelConfig`.
    Raises:
        ConfigError: if there is no such network, or it cannot be used. DataError: if its weights cannot be used, or
            they or its source are not those that are expected.
    """
    settings = {"name": name, "head": head, "code": code, "size": input_size}
    problem = problem_with(name)
    if problem is not None:
        raise ConfigError(problem)
    sizes: dict[str, Any] = {
        "in_channels": in_channels,
        "image_size": image_size,
        "classes": classes,
        "cosine_scale": cosine_scale,
    }
    if parse_model_name(name) is not None and weights is None and normalisation is None:
        encoder, linear = assemble(settings, **sizes)
    else:
        from autodo.models.adopted.pretrained import build_pretrained

        encoder, linear = build_pretrained(settings, sizes, weights, weights_content, normalisation)
    return encoder.frozen(freeze), linear


def assemble(
    settings: dict[str, Any],
    *,
    in_channels: int,
    image_size: int,
    classes: int,
    cosine_scale: float | None = None,
    network: "nn.Module | None" = None,
) -> "tuple[Encoder, nn.Linear]":
    """Build encoder and head as `build` does, from settings that need no files of weights.

    Args:
        settings: `name`, and for networks that are not built in, or expect other images than those of the data, `head`,
            `channels` and `size`.
        network: in place of the network that the name means, if that is not built in; it is used itself.
    """
    import torch
    from torch import nn

    from autodo.models.cosine_head import CosineHead

    name = settings["name"]
    problem = problem_with(name)
    if problem is not None:
        raise ConfigError(problem)
    parsed = parse_model_name(name)
    old_head: nn.Linear | None = None
    if parsed is not None:
        encoder, settings = _built_in(parsed, settings, in_channels, image_size)
    else:
        from autodo.models.adopted.assembly import adopt

        encoder, old_head, settings = adopt(settings, in_channels, image_size, classes, network)
    encoder.settings = settings
    encoder = encoder.to(memory_format=torch.channels_last)
    if cosine_scale is not None:
        return encoder, CosineHead(encoder.features, classes, cosine_scale)
    return encoder, old_head or nn.Linear(encoder.features, classes)


def _built_in(
    parsed: ModelName, settings: dict[str, Any], in_channels: int, image_size: int
) -> "tuple[Encoder, dict[str, Any]]":
    """Encoder of this package, and the settings that build it again."""
    name, channels, size = (settings.get(key) for key in ("name", "channels", "size"))
    if settings.get("head") is not None:
        raise ConfigError(f"{name}: model.head {settings['head']!r}: is for networks that are not built in")
    module = importlib.import_module(f"autodo.models.{parsed.module}")
    encoder = module.build_encoder(channels or in_channels, size or image_size, *parsed.numbers)
    if channels in (None, in_channels) and size in (None, image_size):
        return encoder, {"name": name}
    from autodo.models.adopted.adapted import Adapted

    channels = channels or in_channels
    adapted = Adapted(encoder, encoder.features, channels=channels, size=size, opaque=False)
    return adapted, {"name": name, "channels": channels, "size": size}
