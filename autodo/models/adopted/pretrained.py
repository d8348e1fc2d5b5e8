"""A network with pretrained weights, for images as these expect them."""

from typing import Any

import torch
from torch import Tensor, nn

from autodo import plugins
from autodo.errors import ConfigError, DataError
from autodo.models import assemble
from autodo.models.adopted import own_code
from autodo.models.adopted.adapted import Adapted
from autodo.models.adopted.find_head import APPEND
from autodo.models.adopted.weights import IMAGENET, Pretrained, load_into, read
from autodo.models.encoder import Encoder
from autodo.models.names import is_import_path, is_of_plugin


def build_pretrained(
    settings: dict[str, Any],
    sizes: dict[str, Any],
    weights: str | None,
    weights_content: str | None,
    normalisation: str | None,
) -> tuple[Encoder, nn.Linear]:
    """Encoder with its weights and the normalisation that they expect, and head.

    Args:
        settings, sizes: of `autodo.models.assemble`.
        weights, weights_content, normalisation: see `ModelConfig`.
    Raises:
        ConfigError, DataError: see `autodo.models.build`.
    """
    name, in_channels = settings["name"], sizes["in_channels"]
    _check_code(name, settings["code"])
    pretrained = None
    if weights is not None:
        pretrained = read(name, weights)
        if weights_content not in (None, pretrained.content):
            raise DataError(
                f"model.weights {weights}: these weights are not those that the run was planned with "
                f"(model.weights_content was {weights_content}, now it is {pretrained.content}); put the old ones "
                "back, or start the command again, without model.weights_content if it is set, for a new run"
            )
        size = settings["size"] or pretrained.size
        channels = pretrained.channels if in_channels == 1 else None
        settings = {**settings, "channels": channels, "size": None if size == sizes["image_size"] else size}
    encoder, head = assemble(settings, **sizes)
    if pretrained is not None:
        network = encoder.network if isinstance(encoder, Adapted) else encoder
        name_of_head = encoder.settings.get("head")
        load_into(network, pretrained, None if name_of_head == APPEND else name_of_head, f"model.weights {weights}")
    _set_normalisation(encoder, _expected(pretrained, normalisation), in_channels, name)
    return encoder, head


def _check_code(name: str, code: str | None) -> None:
    if is_of_plugin(name):
        plugins.get("model", name, code)
    if code is None or not is_import_path(name) or not code.startswith(own_code.FROM_SOURCE):
        return
    now = own_code.fingerprint(name)
    if now != code:
        raise DataError(
            f"{name}: {own_code.source_file(name)} has changed since this run was planned (model.code was {code}, now "
            f"it is {now}); put the old one back, or start the command again, without model.code if it is set, for a "
            "new run"
        )


def _expected(pretrained: Pretrained | None, normalisation: str | None) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation that the weights expect; None: those of the data."""
    if normalisation == "imagenet":
        return torch.tensor(IMAGENET[0]), torch.tensor(IMAGENET[1])
    if normalisation == "data" or pretrained is None or pretrained.mean is None or pretrained.std is None:
        return None
    return torch.tensor(pretrained.mean), torch.tensor(pretrained.std)


def _set_normalisation(encoder: Encoder, expected: tuple[Tensor, Tensor] | None, in_channels: int, name: str) -> None:
    """Set the normalisation of the images, and for gray ones the rest of it, which the encoder does."""
    if expected is None:
        return
    mean, std = expected
    if len(mean) != in_channels:
        if in_channels != 1 or not isinstance(encoder, Adapted) or encoder.channels != len(mean):
            raise ConfigError(
                f"{name}: its normalisation is that of {len(mean)} channels, and the data has {in_channels}: set "
                "model.normalisation=data"
            )
        gray_mean, gray_std = mean.mean().reshape(1), std.mean().reshape(1)
        encoder.scale.copy_((gray_std / std).view(1, -1, 1, 1))
        encoder.shift.copy_(((gray_mean - mean) / std).view(1, -1, 1, 1))
        mean, std = gray_mean, gray_std
    encoder.normalisation = mean, std
