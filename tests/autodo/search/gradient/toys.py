"""Small data for policy searches."""

from typing import Any

import numpy as np

from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data.images.image_set import ArrayImages, ImageSet
from autodo.data.prepare import DataSplits, TrainSet


def search_run(algorithm: str, seed: int = 0, **settings: Any) -> RunConfig:
    """A run on digits whose policy is searched, with overrides of the search's settings."""
    search = {f"policy.search.{name}": value for name, value in settings.items()}
    return build_run(
        "digits",
        "baseline",
        seed=seed,
        overrides={"policy.kind": "searched", "policy.search.algorithm": algorithm, **search},
    )


def brightness_classes(count: int) -> DataSplits:
    """Dark and bright noisy images; an inverted one is of the other class. Val and test must not be read: empty."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 2
    level = np.where(labels == 1, 200, 55)[:, None, None, None]
    images = ArrayImages(np.clip(level + generator.normal(0, 25, (count, 1, 8, 8)), 0, 255).astype(np.uint8))
    nothing = ImageSet(images[:0], labels[:0])
    points = TrainSet(images, labels, labels, np.arange(count), None)
    return DataSplits(points, nothing, nothing, ("dark", "bright"))
