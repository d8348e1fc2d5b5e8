"""The networks of a run with their initial weights."""

import torch
from torch import nn

from autodo.config.run import RunConfig
from autodo.data import DataSplits
from autodo.models import build
from autodo.models.encoder import Encoder
from autodo.seeds import derive, initial_weights


def initial_model(
    config: RunConfig, data: DataSplits, device: torch.device, *, stream: str = "network"
) -> tuple[Encoder, nn.Linear]:
    """Encoder and head with initial weights that derive from the run's seed.

    Args:
        stream: name of the random stream; the task model's is `network`.
    """
    images = data.train.images
    with initial_weights(derive(config.seed, stream)):
        encoder, head = build(
            config.model.name,
            in_channels=images.shape[1],
            image_size=images.shape[-1],
            classes=len(data.class_names),
            cosine_scale=config.cosine_scale,
        )
    return encoder.to(device), head.to(device)
