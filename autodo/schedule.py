"""The learning-rate schedule that both optimizers follow."""

import math


def learning_rate_factor(progress: float, epochs: int, warmup_epochs: int) -> float:
    """Linear warm-up from 0 to 1, then half a cosine from 1 to 0.

    Args:
        progress: epochs gone by, in [0, epochs]; a fraction within an epoch.
    """
    if progress < warmup_epochs:
        return progress / warmup_epochs
    return (1 + math.cos(math.pi * (progress - warmup_epochs) / (epochs - warmup_epochs))) / 2
