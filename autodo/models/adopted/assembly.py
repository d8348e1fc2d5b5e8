"""An adopted network as encoder and head."""

from typing import Any

from torch import nn

from autodo import plugins
from autodo.errors import ConfigError
from autodo.models import given
from autodo.models.adopted import libraries, own_code
from autodo.models.adopted.adapted import Adapted, with_fast_averages, without_layer
from autodo.models.adopted.find_head import APPEND, Split, check_encoder, split_of
from autodo.models.names import is_given, is_of_plugin, library_of


def adopt(
    settings: dict[str, Any], in_channels: int, image_size: int, classes: int, network: nn.Module | None = None
) -> tuple[Adapted, nn.Linear | None, dict[str, Any]]:
    """Encoder, the head of the network if it fits the classes, and the settings that build the same again.

    Args:
        settings: `name`, and if known `head`, `code`, `channels` and `size`; see `autodo.models.assemble`.
        network: in place of that of this name.
    Raises:
        ConfigError: if the network cannot be made or used.
    """
    name, head, size = settings["name"], settings.get("head"), settings.get("size")
    library = library_of(name)
    if network is None:
        network = _make(settings, in_channels, size or image_size, classes)
    channels = settings.get("channels")
    if library is not None:
        options = [libraries.CHANNELS]
    else:
        options = [channels or in_channels, libraries.CHANNELS] if in_channels == 1 else [in_channels]
    split = split_of(network, name, head, options, size or image_size)
    if in_channels not in (split.channels, 1):
        raise ConfigError(f"{name}: takes images of {split.channels} channels, and the data has {in_channels}")
    old_head = None
    if split.head != APPEND:
        layer = network.get_submodule(split.head)
        assert isinstance(layer, nn.Linear)
        if type(layer) is nn.Linear and layer.out_features == classes and layer.bias is not None:
            old_head = layer
        network = without_layer(network, split.head)
        check_encoder(network, layer, split, name, size or image_size)
    if library is not None:
        network = with_fast_averages(network)
    adapted = Adapted(network, split.features, channels=split.channels, size=size, opaque=True)
    return adapted, old_head, _again(settings, split)


def _make(settings: dict[str, Any], in_channels: int, image_size: int, classes: int) -> nn.Module:
    name = settings["name"]
    library, _, of_library = name.partition(":")
    if is_given(name):
        return given.copy_of(name, settings.get("code"))
    if library_of(name) is None:
        function = plugins.get("model", name).plugin.make if is_of_plugin(name) else own_code.find(name)
        return own_code.make(name, function, in_channels=in_channels, image_size=image_size, classes=classes)
    try:
        return libraries.make(library, of_library, None if settings.get("head") == APPEND else classes, image_size)
    except LookupError as error:
        raise ConfigError(str(error)) from None


def _again(settings: dict[str, Any], split: Split) -> dict[str, Any]:
    return {
        "name": settings["name"],
        "head": split.head,
        "code": settings.get("code"),
        "channels": split.channels,
        "size": settings.get("size"),
    }
