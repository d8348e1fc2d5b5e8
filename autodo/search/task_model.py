"""The small trainings inside a search: a task model on a part of the train points, an epoch at a time."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autodo.augment.pipeline import Pipeline, channel_statistics
from autodo.augment.policy import Policy
from autodo.config import AugmentationConfig
from autodo.data.batches import epoch_batches
from autodo.models import build
from autodo.schedule import learning_rate_factor

MOMENTUM = 0.9
WEIGHT_DECAY = 2e-4
WARMUP_SHARE = 0.025
"""Of the epochs; the paper's recipe has 5 of 200."""


class TaskModel:
    """A model that is trained as `autodo.train` trains one: SGD with Nesterov momentum, warm-up, cosine.

    Args:
        images: that it is trained on, on the training device. Shape: [n, C, H, W] uint8.
        labels: Shape: [n] int64.
        seed: of the initial weights.
    """

    def __init__(
        self,
        name: str,
        images: Tensor,
        labels: Tensor,
        *,
        classes: int,
        augmentation: AugmentationConfig,
        epochs: int,
        batch_size: int,
        lr: float,
        seed: int,
    ) -> None:
        self.images, self.labels = images, labels
        self.epochs, self.batch_size, self.lr = epochs, batch_size, lr
        device = images.device
        # Layers draw their initial weights from torch's global generator; the fork leaves it as it was.
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            encoder, head = build(name, in_channels=images.shape[1], image_size=images.shape[-1], classes=classes)
        self.network = nn.Sequential(encoder, head).to(device).to(memory_format=torch.channels_last)
        mean, std = channel_statistics(images)
        self.pipeline = Pipeline(augmentation, mean.to(device), std.to(device))
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
        )
        self.epoch = 0

    def train_epoch(self, generator: torch.Generator, policy: Policy | None = None) -> float:
        """One pass over the images; returns the mean cross-entropy."""
        points = torch.arange(len(self.images), device=self.images.device)
        batches = list(epoch_batches(points, self.batch_size, generator))
        self.pipeline.policy = policy
        self.network.train()
        total = torch.zeros((), device=points.device)
        for step, batch in enumerate(batches, start=1):
            warmup = math.ceil(WARMUP_SHARE * self.epochs) if self.epochs > 1 else 0
            factor = learning_rate_factor(self.epoch + step / len(batches), self.epochs, warmup)
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * factor
            pixels = self.pipeline.train_view(self.images[batch], generator)
            loss = F.cross_entropy(self.network(pixels), self.labels[batch])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * len(batch)
        self.epoch += 1
        return float(total) / len(points)

    @torch.no_grad()
    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Share of the images that are recognised, untouched. Shape: [m, C, H, W] uint8, [m] int64."""
        self.network.eval()
        parts = images.split(self.batch_size), labels.split(self.batch_size)
        hits = [(self.network(self.pipeline.test_view(x)).argmax(1) == y).sum() for x, y in zip(*parts, strict=True)]
        return int(torch.stack(hits).sum()) / len(labels)

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer and epoch, as tensors and numbers."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over the state of a model of the same kind."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch = int(state["epoch"])
