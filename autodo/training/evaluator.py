"""Evaluation of the task model on sets of images, without augmentation."""

import torch
from torch import Tensor, nn

from autodo.augment.pipeline import Pipeline
from autodo.data.images.device_loader import DeviceLoader
from autodo.evaluation import Evaluation


@torch.no_grad()
def evaluate(
    encoder: nn.Module,
    head: nn.Module,
    pipeline: Pipeline,
    images: DeviceLoader,
    labels: Tensor,
    *,
    total: int,
    batch_size: int,
) -> Evaluation:
    """Runs the model in eval mode.

    Args:
        total: how many images the set has over all workers.
        batch_size: images a forward pass; what fits in training fits here, where no graph is kept.
    Shape:
        images of m, labels [m] int64 on the training device.
    """
    encoder.eval()
    features = torch.cat([encoder(pipeline.test_view(batch)) for batch in images.in_order(batch_size)])
    return Evaluation(features, head(features), labels, total)
