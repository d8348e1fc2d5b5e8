"""Learning-rate schedules of the inner loop and of the outer passes."""

import math
from collections.abc import Callable

from autodo.config.run import RunConfig, ScheduleName

WARMUP_SHARE = 1 / 5
"""Longest warm-up of the restarted outer schedule, as a share of the epochs from the outer start on."""
WARMUP_FROM = 1 / 10
COSINE_TO = 1 / 1000
"""First and last factor of the published schedule."""


def inner_factor(config: RunConfig, progress: float) -> float:
    """Learning-rate factor of the inner loop after `progress` epochs, a fraction within an epoch."""
    epochs, warmup_epochs = config.finetune_start, config.training.warmup_epochs
    stages = None if config.objective is None else config.objective.early_stages(epochs)
    if stages is None:
        first = 0 if config.objective is None else config.objective.first_training(epochs)
        return SCHEDULES[config.training.schedule](repeated(progress, first, epochs), epochs, warmup_epochs)
    start, early = stages
    return staged_factor(progress, start=start, epochs=epochs, warmup_epochs=warmup_epochs, early=early)


def outer_factor(config: RunConfig, epoch: int) -> float:
    """Learning-rate factor of the outer pass after an epoch, by `outer.schedule`."""
    assert config.outer is not None
    if config.outer.schedule == "shared":
        return inner_factor(config, epoch)
    return restarted_factor(
        epoch,
        start=config.outer_start,
        epochs=config.finetune_start,
        warmup_epochs=config.training.warmup_epochs,
        every=config.outer.every,
        schedule=config.training.schedule,
    )


def learning_rate_factor(progress: float, epochs: int, warmup_epochs: float) -> float:
    """Linear warm-up from 0 to 1, then half a cosine from 1 to 0.

    Args:
        progress: epochs that have passed, in [0, epochs]; a fraction within an epoch.
    """
    if progress < warmup_epochs:
        return progress / warmup_epochs
    return (1 + math.cos(math.pi * (progress - warmup_epochs) / (epochs - warmup_epochs))) / 2


def staged_factor(progress: float, *, start: int, epochs: int, warmup_epochs: float, early: float) -> float:
    """Linear warm-up from 0 to `early`, which stays until `start`; then 1, 1/10 and 1/100 for a third of the rest each.

    Args:
        progress: epochs that have passed, in (0, epochs]; the step that ends an epoch belongs to it.
        start: first epoch of the last stage.
    Reference: Tanaka et al. 2018 and Yi and Wu 2019, section 4, whose stages have no warm-up.
    """
    if progress <= start:
        return early * min(1.0, progress / warmup_epochs if warmup_epochs else 1.0)
    third = math.ceil(3 * (progress - start) / (epochs - start))
    return 10.0 ** (1 - third)


def repeated(progress: float, first: int, epochs: int) -> float:
    """Progress in a schedule of `epochs` epochs that two trainings follow, each compressed to its own epochs.

    Args:
        progress: epochs that have passed, in (0, epochs]; the step that ends an epoch belongs to it.
        first: epochs of the first training; 0 if there is one training.
    """
    if not first:
        return progress
    begin, length = (0, first) if progress <= first else (first, epochs - first)
    return (progress - begin) * epochs / length


def published_factor(progress: float, epochs: int, warmup_epochs: float) -> float:
    """Half a cosine from 1 to 1/1000 over all epochs, replaced by a linear warm-up from 1/10 to 1 in the first ones.

    Args:
        progress: as of `learning_rate_factor`.
    Reference: published code of Gudovskiy et al. 2021.
    """
    if progress < warmup_epochs:
        return WARMUP_FROM + (1 - WARMUP_FROM) * progress / warmup_epochs
    return COSINE_TO + (1 - COSINE_TO) * (1 + math.cos(math.pi * progress / epochs)) / 2


SCHEDULES: dict[ScheduleName, Callable[[float, int, float], float]] = {
    "to-zero": learning_rate_factor,
    "published": published_factor,
}
"""Factor of the learning rate as a function of (progress, epochs, warmup_epochs), by `training.schedule`."""


def restarted_factor(
    epoch: int, *, start: int, epochs: int, warmup_epochs: int, every: int = 1, schedule: ScheduleName = "to-zero"
) -> float:
    """Learning-rate factor of an outer pass whose schedule restarts at the outer start.

    A pass has the factor in the middle of the epochs that it covers, so that neither the first nor the last pass has
    a factor of zero.

    Args:
        epoch: the epoch before the pass, counted from 0; start <= epoch < epochs.
        start: first epoch that an outer pass follows.
        warmup_epochs: of the inner schedule; with `to-zero`, the warm-up is no longer than a fifth of the epochs that
            are left.
        every: epochs that a pass covers.
    Reference: published code of Gudovskiy et al. 2021.
    """
    left = epochs - start
    middle = (epoch + min(epoch + every, epochs)) / 2 - start
    warmup = warmup_epochs if schedule == "published" else min(warmup_epochs, WARMUP_SHARE * left)
    return SCHEDULES[schedule](middle, left, warmup)
