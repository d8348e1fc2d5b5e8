"""The task model on a set of images, untouched: features, logits, and the figures derived from them."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autodo.augment.pipeline import Pipeline
from autodo.data.device_loader import DeviceLoader
from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup


@dataclass(frozen=True)
class Scores:
    """How well the model does on each of a set of images.

    Shape:
        labels, predictions [M] int64, probabilities, losses [M]: of the prediction, and cross-entropy of the label.
    """

    labels: Tensor
    predictions: Tensor
    probabilities: Tensor
    losses: Tensor

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return float(self.losses.mean())

    @property
    def error(self) -> float:
        """Share of images whose prediction is wrong."""
        return 1 - int((self.predictions == self.labels).sum()) / len(self.labels)


@dataclass(frozen=True)
class Evaluation:
    """What the model makes of a worker's images of a set of `total`.

    Shape:
        features [m, D], logits [m, C], labels [m] int64.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor
    total: int

    def scores(self, group: ProcessGroup = SINGLE_PROCESS) -> Scores:
        """Of the images of all workers, on each of them: a few numbers an image, where the logits stay."""
        probabilities, predictions = self.logits.softmax(1).amax(1), self.logits.argmax(1)
        losses = F.cross_entropy(self.logits, self.labels, reduction="none")
        columns = (self.labels, predictions, probabilities, losses)
        return Scores(*(group.all_gather(column, self.total) for column in columns))

    def top(self, count: int) -> tuple[Tensor, Tensor]:
        """The most probable classes of each image and their probabilities, most probable first; all if there are fewer.

        Shape:
            -> [m, k] int64, [m, k] with k = min(count, C).
        """
        logits, classes = self.logits.topk(min(count, self.logits.shape[1]))
        # log p = logit - logsumexp: no second array of all classes' probabilities.
        return classes, (logits - self.logits.logsumexp(1, keepdim=True)).exp()


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


def per_class_accuracy(predictions: Tensor, labels: Tensor, classes: int) -> list[float | None]:
    """Share of each class's images that are recognised; None for a class without images.

    Shape:
        predictions, labels [M] int64 -> `classes` numbers.
    """
    total = torch.bincount(labels, minlength=classes).tolist()
    right = torch.bincount(labels[predictions == labels], minlength=classes).tolist()
    return [hit / count if count else None for hit, count in zip(right, total, strict=True)]


def group_errors(predictions: Tensor, labels: Tensor, minority: Collection[int]) -> tuple[float | None, float | None]:
    """Error over the images of the minority classes and over the others; None without such images.

    Args:
        minority: labels of the minority classes; without any, both errors are None.
    Shape:
        predictions, labels [M] int64.
    """
    if not minority:
        return None, None
    wrong = (predictions != labels).double()
    rare = torch.isin(labels, torch.tensor(sorted(minority), device=labels.device))
    groups = (wrong[rare], wrong[~rare])
    minority_error, majority_error = (float(group.mean()) if len(group) else None for group in groups)
    return minority_error, majority_error
