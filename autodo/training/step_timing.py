"""How long a run will take, from a few steps of a network that is thrown away."""

import dataclasses

import numpy as np

from autodo.augment.policy_file import PolicyFile
from autodo.config.run import RunConfig
from autodo.data import DataSplits, ImageSet
from autodo.data.images.image_set import Images, Integers
from autodo.data.prepare import TrainSet
from autodo.progress import Durations
from autodo.training.trainer import Trainer

FIRST_IMAGES = 8
"""Images of the first timed step: of a large network on one core a step of a whole batch takes a minute."""
STEPS = 4
"""Whole batches that are timed, if there is time for them."""
BUDGET_SECONDS = 1.5
"""How long the timed steps may take: as many images are used as there is time for."""
SHORT_SECONDS = 20.0
"""A run that the first step finds shorter is not timed further."""
TINY_LR = 1e-6


def time_steps(
    config: RunConfig, data: DataSplits, *, device: str = "cpu", policy: PolicyFile | None = None
) -> Durations:
    """Seconds that each part of an epoch of the run will take, outer passes included.

    A training on a few of the images is built, timed and thrown away. Its network, its lambda and its random generators
    are its own, so the run itself is the same as without. Seconds are scaled by the number of images.

    Args:
        data: of the run, or of the same run at another `dataset.image_size`: only the time counts.
    """
    batch_size = config.training.batch_size
    first = _timed(config, data, min(FIRST_IMAGES, batch_size), device, policy)
    if first.left(config) < SHORT_SECONDS:
        return first
    images = min(STEPS * batch_size, int(BUDGET_SECONDS * _inner_points(config, data) / first.inner))
    return _timed(config, data, images, device, policy) if images >= 2 * FIRST_IMAGES else first


def _timed(config: RunConfig, data: DataSplits, images: int, device: str, policy: PolicyFile | None) -> Durations:
    """Durations from an epoch on this many images of each set, after one that warms up."""
    size = config.dataset.image_size
    some = DataSplits(
        train=_some_points(data.train, images, size),
        val=_some_images(data.val, images, size),
        test=_some_images(data.test, images, size),
        class_names=data.class_names,
    )
    few = _two_epochs(config, min(images, config.training.batch_size))
    rows = list(Trainer(few, some, device=device, policy=policy))
    last = rows[1]
    inner_ratio = _inner_points(config, data) / _inner_points(few, some)
    finetune_ratio = len(data.val) / len(some.val)
    return Durations(
        inner=last["inner_seconds"] * inner_ratio,
        evaluation=last["eval_seconds"] * (len(data.val) + len(data.test)) / (len(some.val) + len(some.test)),
        outer=last["outer_seconds"] * inner_ratio if few.outer is not None else 0.0,
        finetune=rows[-1]["inner_seconds"] * finetune_ratio if few.finetune is not None else 0.0,
    )


def _two_epochs(config: RunConfig, batch_size: int) -> RunConfig:
    """The same work a step, for two epochs with outer passes, and a third if the head is trained alone at the end.

    Nothing is learned, so that nothing can diverge; a compiled network would take longer to build than its steps.
    """
    training = config.training.model_copy(
        update={
            "epochs": 2 if config.finetune is None else 3,
            "warmup_epochs": 0,
            "batch_size": batch_size,
            "lr": TINY_LR,
            "compile": False,
        }
    )
    outer = config.outer and config.outer.model_copy(update={"start_share": 0.0, "every": 1, "lr": TINY_LR})
    return config.model_copy(update={"training": training, "outer": outer})


def _inner_points(config: RunConfig, data: DataSplits) -> int:
    """Points of the inner problem."""
    return len(data.train) * config.trains_on_train + len(data.val) * config.trains_on_val


def _some_points(points: TrainSet, count: int, image_size: int | None) -> TrainSet:
    rows = _spread(len(points), count)
    return TrainSet(
        images=_resized(points.images[rows], image_size),
        labels=points.labels[rows],
        clean_labels=points.clean_labels[rows],
        index=points.index[rows],
        sources=None,
    )


def _some_images(images: ImageSet, count: int, image_size: int | None) -> ImageSet:
    some = images.take(_spread(len(images), count))
    return dataclasses.replace(some, images=_resized(some.images, image_size))


def _spread(total: int, count: int) -> Integers:
    """`count` positions, or all, evenly spread over `total`."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))


def _resized(images: Images, image_size: int | None) -> Images:
    return images if image_size is None or images.shape[-1] == image_size else images.resized(image_size)
