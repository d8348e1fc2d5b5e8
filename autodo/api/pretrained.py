"""Settings that pretrained weights bring along, unless somebody has given them."""

import contextlib
from collections.abc import Container, Iterator
from typing import Any

from autodo.config.nested import merge, nest
from autodo.config.run import RunConfig
from autodo.config.validation import parse_model
from autodo.errors import ConfigError, UserError
from autodo.models.weight_names import WEIGHTS_VARIABLE, weights_dir

ENCODER_LR_FACTOR = 0.1
FROZEN: tuple[dict[str, Any], ...] = (
    {"model.freeze": "encoder", "model.cached_views": 5},
    {"model.freeze": "encoder"},
)
"""Settings with which a pretrained network trains in less time, the shortest first."""


def settings_of_weights(run: RunConfig, given: Container[str]) -> dict[str, Any]:
    """Settings by dotted key: the image size that the weights expect, and a lower learning rate of the encoder.

    Images of a dataset that are not resized keep their size. Reads the weights, or downloads them. Empty for a run
    without pretrained weights.

    Args:
        given: keys of settings that somebody has given, which stay.
    Raises:
        ConfigError: if there are no such weights. DataError: if they cannot be read.
    """
    model = run.model
    if model.weights is None:
        return {}
    folder = weights_dir()
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{WEIGHTS_VARIABLE} {folder}: there is no such folder")
    found: dict[str, Any] = {}
    if "training.encoder_lr_factor" not in given:
        found["training.encoder_lr_factor"] = ENCODER_LR_FACTOR
    if run.dataset.image_size is not None and "dataset.image_size" not in given:
        from autodo.models.adopted.weights import read

        side = model.input_size or read(model.name, model.weights).size
        found |= {} if side is None else size_settings(side, given)
    return found


def size_settings(side: int, given: Container[str]) -> dict[str, Any]:
    """Settings for images of this side in pixels; random crops pad an eighth of it, as in the recipe."""
    padding = {} if "augmentation.crop_padding" in given else {"augmentation.crop_padding": side // 8}
    return {"dataset.image_size": side, **padding}


def frozen_variants(run: RunConfig) -> Iterator[tuple[dict[str, Any], RunConfig]]:
    """Variants of a run with pretrained weights that train the head alone, with their settings by dotted key."""
    if run.model.weights is None or run.model.freeze == "encoder":
        return
    for settings in FROZEN:
        tree = merge(run.model_dump(), nest(settings))
        with contextlib.suppress(UserError):  # methods that change the images in every step have no cached views
            yield settings, parse_model(RunConfig, tree, "model.freeze")
