"""Outputs of the task model on a set of images, and the scores derived from them."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup


@dataclass(frozen=True)
class Scores:
    """Predictions and losses of each image of a set.

    Shape:
        labels, predictions [M] int64, probabilities (of the predictions), losses (cross-entropy of the labels) [M].
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
    """Outputs of the model on this process's shard of a set of `total` images.

    Shape:
        features [m, D], logits [m, C], labels [m] int64.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor
    total: int

    def scores(self, group: ProcessGroup = SINGLE_PROCESS) -> Scores:
        """Scores of all images on every process; only these are exchanged, not the logits."""
        probabilities, predictions = self.logits.softmax(1).amax(1), self.logits.argmax(1)
        losses = F.cross_entropy(self.logits, self.labels, reduction="none")
        columns = (self.labels, predictions, probabilities, losses)
        return Scores(*(group.all_gather(column, self.total) for column in columns))

    def top(self, count: int) -> tuple[Tensor, Tensor]:
        """The most probable classes of each image and their probabilities, in decreasing order.

        Shape:
            -> [m, k] int64, [m, k] with k = min(count, C).
        """
        logits, classes = self.logits.topk(min(count, self.logits.shape[1]))
        # log p = logit - logsumexp: no second array of all classes' probabilities.
        return classes, (logits - self.logits.logsumexp(1, keepdim=True)).exp()


def per_class_accuracy(predictions: Tensor, labels: Tensor, classes: int) -> list[float | None]:
    """Share of correct predictions for each class; None for a class without images.

    Shape:
        predictions, labels [M] int64 -> `classes` numbers.
    """
    total = torch.bincount(labels, minlength=classes).tolist()
    right = torch.bincount(labels[predictions == labels], minlength=classes).tolist()
    return [hit / count if count else None for hit, count in zip(right, total, strict=True)]


def group_errors(predictions: Tensor, labels: Tensor, minority: Collection[int]) -> tuple[float | None, float | None]:
    """Error over the images of the minority classes and over all others; None where there are no such images.

    Args:
        minority: labels of the minority classes; if empty, both errors are None.
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
