"""Classification networks of torchvision and timm."""

from typing import Any

from torch import nn

from autodo.text import first_line

CHANNELS = 3
"""Channels of the images of every network here; pretrained weights have no others."""

# Both return tuples in train mode, unless their auxiliary classifiers are left out.
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def make(library: str, name: str, classes: int | None, image_size: int) -> nn.Module:
    """Make a network with initial weights.

    Args:
        classes: number of its outputs; None: as many as its pretrained weights have.
        image_size: of the images; torchvision's vision transformers are made for one size.
    Raises:
        LookupError: if this version of the library has no such network, or not for this size.
    """
    outputs: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if library == "torchvision":
        from torchvision.models import get_model

        options = {"image_size": image_size} if name.startswith("vit_") else _OPTIONS.get(name, {})
        try:
            network: nn.Module = get_model(name, weights=None, **outputs, **options)
        except AssertionError:  # an image is not a whole number of patches
            patch = int(name.rpartition("_")[2])
            raise LookupError(
                f"torchvision:{name}: needs images whose side is a multiple of {patch}, not {image_size} pixels; "
                "model.input_size sets the size to which they are resized"
            ) from None
        return network
    import timm

    if not timm.is_model(name):
        raise LookupError(f"timm {timm.__version__} has no network {name!r}")
    try:
        return timm.create_model(name, pretrained=False, in_chans=CHANNELS, **outputs)
    except RuntimeError as error:  # the part after the dot names no weights
        raise LookupError(f"timm:{name}: {first_line(error)}") from None
