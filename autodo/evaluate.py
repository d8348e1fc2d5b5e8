"""The task model on a set of images, untouched: features, logits, and the figures derived from them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autodo.augment.pipeline import Pipeline


@dataclass(frozen=True)
class Evaluation:
    """Shape: features [M, D], logits [M, C], labels [M] int64."""

    features: Tensor
    logits: Tensor
    labels: Tensor

    @property
    def losses(self) -> Tensor:
        """Cross-entropy of each image. Shape: [M]."""
        return F.cross_entropy(self.logits, self.labels, reduction="none")

    @property
    def predictions(self) -> Tensor:
        """Most probable class of each image. Shape: [M] int64."""
        return self.logits.argmax(1)

    @property
    def probabilities(self) -> Tensor:
        """Probability of each image's prediction. Shape: [M]."""
        return self.logits.softmax(1).amax(1)

    @property
    def error(self) -> float:
        """Share of images whose prediction is wrong."""
        return 1 - int((self.predictions == self.labels).sum()) / len(self.labels)


@torch.no_grad()
def evaluate(
    encoder: nn.Module, head: nn.Module, pipeline: Pipeline, images: Tensor, labels: Tensor, *, batch_size: int
) -> Evaluation:
    """Runs the model in eval mode.

    Args:
        batch_size: images a forward pass; what fits in training fits here, where no graph is kept.
    Shape:
        images [M, C, H, W] uint8, labels [M] int64, both on the training device.
    """
    encoder.eval()
    features = torch.cat([encoder(pipeline.test_view(batch)) for batch in images.split(batch_size)])
    return Evaluation(features, head(features), labels)


def per_class_accuracy(predictions: Tensor, labels: Tensor, classes: int) -> list[float | None]:
    """Share of each class's images that are recognised; None for a class without images.

    Shape:
        predictions, labels [M] int64 -> `classes` numbers.
    """
    total = torch.bincount(labels, minlength=classes).tolist()
    right = torch.bincount(labels[predictions == labels], minlength=classes).tolist()
    return [hit / count if count else None for hit, count in zip(right, total, strict=True)]


def group_errors(predictions: Tensor, labels: Tensor, classes: int) -> tuple[float | None, float | None]:
    """Error over the minority classes (labels C//2..C-1) and over the majority classes; None without such images.

    Shape:
        predictions, labels [M] int64.
    """
    wrong = (predictions != labels).double()
    minority = labels >= classes // 2
    groups = (wrong[minority], wrong[~minority])
    minority_error, majority_error = (float(group.mean()) if len(group) else None for group in groups)
    return minority_error, majority_error
