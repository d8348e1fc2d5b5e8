"""Classification networks of torchvision and timm."""

from typing import Any

from torch import nn

from autodo.text import first_line

CHANNELS = 3
"""Channels of the images of every network here; pretrained weights have no others."""

# Both return tuples in train mode, unless their auxiliary classifiers are left out.
_OPTIONS: dict[str, dict[str, Any]] = {
    "torchvision:googlenet": {"aux_logits": False, "init_weights": True},
    "torchvision:inception_v3": {"aux_logits": False, "init_weights": True},
}


def make(library: str, name: str, classes: int | None) -> nn.Module:
    """Make a network with initial weights.

    Args:
        classes: number of its outputs; None: as many as its pretrained weights have.
    Raises:
        LookupError: if this version of the library has no such network.
    """
    outputs: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if library == "torchvision":
        from torchvision.models import get_model

        network: nn.Module = get_model(name, weights=None, **outputs, **_OPTIONS.get(f"{library}:{name}", {}))
        return network
    import timm

    if not timm.is_model(name):
        raise LookupError(f"timm {timm.__version__} has no network {name!r}")
    try:
        return timm.create_model(name, pretrained=False, in_chans=CHANNELS, **outputs)
    except RuntimeError as error:  # the part after the dot names no weights
        raise LookupError(f"timm:{name}: {first_line(error)}") from None
