"""Trainings inside a search: on a part of the images that the search uses, scored on another part."""

from typing import Any

import numpy as np

from autodo.config.model import ModelConfig
from autodo.config.run import MethodConfig, RunConfig, TrainingConfig
from autodo.data.images.image_set import ArrayImages, ImageSet, Integers, Pixels
from autodo.data.images.split import stratified_split
from autodo.data.prepare import DataSplits, TrainSet
from autodo.errors import DataError
from autodo.search.tasks import search_config
from autodo.seeds import derive

# Fast AutoAugment's configuration of WRN-40-2; its warm-up is 5 of 200 epochs.
WEIGHT_DECAY = 2e-4
WARMUP_SHARE = 1 / 40


def split_held_out(labels: Integers, held_share: float, generator: np.random.Generator) -> tuple[Integers, Integers]:
    """Positions that a network is trained on, and positions that are held out, both sorted.

    Stratified: both sides have at least one image of every class. A class of a single image, as after a strong
    imbalance, is trained on and not held out.

    Shape:
        labels [n] -> [n - m], [m].
    Raises:
        DataError: if fewer than two classes have two images.
    """
    _, dense, counts = np.unique(labels, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts[dense] > 1)
    if np.count_nonzero(counts > 1) < 2:
        raise DataError(
            f"the search has {len(labels)} images of {len(counts)} classes, and fewer than two classes have two of "
            "them: too few to train on one and hold out the other; raise policy.search.images, or dataset.subsample "
            "if it is set, or lower the imbalance ratio"
        )
    _, dense_of_several = np.unique(labels[several], return_inverse=True)
    _, held = stratified_split(dense_of_several, held_share, generator)
    held = several[held]
    return np.setdiff1d(np.arange(len(labels)), held, assume_unique=True), held


def proxy_run(config: RunConfig, name: str, **sections: Any) -> RunConfig:
    """The config of a training inside the search of `config`.

    Args:
        name: unique within the search; networks of different names begin with different weights.
        sections: sections of the RunConfig besides the usual ones.
    """
    search = search_config(config)
    training = TrainingConfig(
        epochs=search.epochs,
        batch_size=search.batch_size,
        lr=search.lr,
        weight_decay=WEIGHT_DECAY,
        warmup_epochs=int(WARMUP_SHARE * search.epochs),
    )
    return RunConfig(
        dataset=config.dataset,
        distortion=config.distortion,
        method=MethodConfig(name=f"{config.search_id}-{name}"),
        model=ModelConfig(name=search.model),
        augmentation=config.augmentation,
        training=training,
        seed=derive(config.seed, "search", "network", name) % 2**31,
        **sections,
    )


def proxy_data(
    images: Pixels, labels: Integers, rest: Integers, held: Integers, class_names: tuple[str, ...]
) -> DataSplits:
    """The data of such a training. Val is the held-out images; test is only the first of them.

    Shape:
        images [n, C, H, W], labels [n]; rest, held: positions, from `split_held_out`.
    """
    points = TrainSet(ArrayImages(images[rest]), labels[rest], labels[rest], np.arange(len(rest)), None)
    out = ImageSet(ArrayImages(images), labels).take(held)
    return DataSplits(points, val=out, test=out.take(np.arange(1)), class_names=class_names)
