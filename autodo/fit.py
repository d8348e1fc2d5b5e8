"""One call from a config to a trained classifier, for use as a library."""

from collections.abc import Callable
from pathlib import Path

import torch

from autodo.config import RunConfig
from autodo.data import load, prepare
from autodo.outcome import Outcome
from autodo.train import Row, Training


def default_device() -> str:
    """`cuda` if torch finds a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fit(
    config: RunConfig,
    *,
    data_dir: Path | None = None,
    device: str | None = None,
    on_epoch: Callable[[Row], None] | None = None,
) -> Outcome:
    """Loads the data, trains one run to its end and returns its tables and the classifier; keeps nothing on disk.

    Args:
        on_epoch: called with each epoch's row.
    Raises:
        DataError: if the images cannot be read. TrainingDiverged: if the loss is not finite.
    """
    data = prepare(load(config.dataset, data_dir=data_dir), config)
    training = Training(config, data, device=device or default_device())
    for row in training:
        if on_epoch is not None:
            on_epoch(row)
    return training.outcome()
