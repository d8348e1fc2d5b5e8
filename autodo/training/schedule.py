"""The learning-rate schedules: of the inner optimizer, and of outer passes that have one of their own."""

import math

WARMUP_SHARE = 1 / 5
"""Longest warm-up of the outer optimizer's own schedule, as a share of the epochs from the outer start on."""


def learning_rate_factor(progress: float, epochs: int, warmup_epochs: float) -> float:
    """Linear warm-up from 0 to 1, then half a cosine from 1 to 0.

    Args:
        progress: epochs gone by, in [0, epochs]; a fraction within an epoch.
    """
    if progress < warmup_epochs:
        return progress / warmup_epochs
    return (1 + math.cos(math.pi * (progress - warmup_epochs) / (epochs - warmup_epochs))) / 2


def restarted_factor(epoch: int, *, start: int, epochs: int, warmup_epochs: int, every: int = 1) -> float:
    """Learning-rate factor of an outer pass whose schedule restarts at the outer start: warm-up, then a cosine to 0.

    A pass has the factor in the middle of the epochs that it stands for, so that neither the first pass nor the last
    one is for nothing.

    Args:
        epoch: that the pass follows, counted from 0; start <= epoch < epochs.
        start: first epoch that an outer pass follows.
        warmup_epochs: of the inner schedule; the warm-up is no longer than a fifth of the epochs that are left.
        every: epochs that a pass stands for.
    Reference: published code of Gudovskiy et al. 2021, whose warm-up begins at 1/10 and whose cosine ends at 1/1000.
    """
    left = epochs - start
    middle = (epoch + min(epoch + every, epochs)) / 2 - start
    return learning_rate_factor(middle, left, min(warmup_epochs, WARMUP_SHARE * left))
