"""Estimate of a run's duration from a few steps of a network that is discarded."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from autodo.augment.policy_file import PolicyFile
from autodo.config.run import RunConfig
from autodo.data import DataSplits, ImageSet
from autodo.data.images.image_set import Images, Integers
from autodo.data.prepare import TrainSet
from autodo.data.sharding import inner_points
from autodo.errors import UserError
from autodo.progress import Durations
from autodo.text import rough_duration
from autodo.training.trainer import Trainer

FIRST_IMAGES = 8
"""Images of the first timed step: with a large network on one core a whole batch takes a minute."""
STEPS = 4
"""Whole batches that are timed, if there is time for them."""
BUDGET_SECONDS = 1.5
"""Time limit of the timed steps, which determines the number of images."""
SHORT_SECONDS = 20.0
"""A run that is shorter, judging from the first step, is not timed further."""
TINY_LR = 1e-6


def time_steps(
    config: RunConfig, data: DataSplits, *, device: str = "cpu", policy: PolicyFile | None = None
) -> Durations:
    """Seconds for each part of an epoch of the run, including outer passes, and before the first.

    A separate trainer on a few of the images is timed and discarded; it has its own network, lambda and random
    generators, so the run itself does not change. Seconds are scaled by the number of images.

    Args:
        data: data of the run, or of the same run at another `dataset.image_size`: only the time matters.
    """
    batch_size = config.training.batch_size
    first = _timed(config, data, min(FIRST_IMAGES, batch_size), device, policy)
    if first.total(config) < SHORT_SECONDS:
        return first
    longest = max(first.inner, first.features)
    images = min(STEPS * batch_size, int(BUDGET_SECONDS * inner_points(config, data) / longest))
    return _timed(config, data, images, device, policy) if images >= 2 * FIRST_IMAGES else first


def faster_variant(
    variants: Mapping[str, RunConfig],
    seconds: float,
    data: DataSplits,
    *,
    device: str = "cpu",
    policy: PolicyFile | None = None,
) -> str | None:
    """Words on the first variant that takes less than half of these seconds; None if there is none.

    Args:
        variants: runs on the same data, by the words that name them.
    """
    for words, variant in variants.items():
        try:
            needed = time_steps(variant, data, device=device, policy=policy).total(variant)
        except (UserError, RuntimeError):  # this variant cannot be trained here
            continue
        if needed < seconds / 2:
            return f"with {words} about {rough_duration(needed)}"
    return None


def _timed(config: RunConfig, data: DataSplits, images: int, device: str, policy: PolicyFile | None) -> Durations:
    """Durations of an epoch on this many images of each set, after a warm-up epoch."""
    size = config.dataset.image_size
    some = DataSplits(
        train=_some_points(data.train, images, size),
        val=_some_images(data.val, images, size),
        test=_some_images(data.test, images, size),
        class_names=data.class_names,
    )
    few = _two_epochs(config, min(images, config.training.batch_size))
    trainer = Trainer(few, some, device=device, policy=policy)
    rows = list(trainer)
    last, frozen = rows[1], trainer.context.frozen
    inner_ratio = inner_points(config, data) / inner_points(few, some)
    of_all, of_some = (len(each.train) + len(each.val) + len(each.test) for each in (data, some))
    finetune_ratio = len(data.val) / len(some.val)
    return Durations(
        inner=last["inner_seconds"] * inner_ratio,
        evaluation=last["eval_seconds"] * (len(data.val) + len(data.test)) / (len(some.val) + len(some.test)),
        outer=last["outer_seconds"] * inner_ratio if few.outer is not None else 0.0,
        finetune=rows[-1]["inner_seconds"] * finetune_ratio if few.finetune is not None else 0.0,
        features=0.0 if frozen is None else frozen.seconds * of_all / of_some,
    )


def _two_epochs(config: RunConfig, batch_size: int) -> RunConfig:
    """The same work per step, for two epochs with outer passes, and a third if the head is finetuned.

    The learning rates are tiny, so that nothing diverges; compiling the network would take longer than its steps.
    """
    training = config.training.model_copy(
        update={
            "epochs": 2 if config.finetune is None else 3,
            "warmup_epochs": 0,
            "batch_size": batch_size,
            "lr": TINY_LR,
            "compile": False,
            "last_batch": "even",
        }
    )
    outer = config.outer and config.outer.model_copy(update={"start_share": 0.0, "every": 1, "lr": TINY_LR})
    return config.model_copy(update={"training": training, "outer": outer})


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
    """At most `count` positions, evenly spread over `total`."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))


def _resized(images: Images, image_size: int | None) -> Images:
    return images if image_size is None or images.shape[-1] == image_size else images.resized(image_size)
