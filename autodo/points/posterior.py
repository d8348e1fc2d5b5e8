"""Posterior of the clean label of a train point, given its image and its observed label.

With predictions P_i under a uniform prior, and the joint distribution M of the clean and the observed label,

    q_i[c] ~ P_i[c] M[c, y_i].

M is estimated from the predictions themselves: on clean val images they show how the classifier confuses classes (K),
and on train points how often it predicts class k where the label is y (J). As E[J] = K' M, M is the non-negative
solution of J = K' M. Lipton et al. 2018 estimate class shares in this way; here it is a joint distribution.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from autodo.losses import one_hot

ITERATIONS = 200
"""Steps of the estimate of M. Classes that look alike would need many more, and stay with their labels."""
FIRST_GUESS = 1e-3
"""Share of train points that have any clean label in the first guess of M; the others have the observed one."""
UNEXPLAINED = 2.0
"""Mean of the squared differences between J and what correct labels would give, in units of their variance, above which
M is estimated. It is about 1 or less if all labels are correct."""


def class_sums(values: Tensor, labels: Tensor, group: ProcessGroup = SINGLE_PROCESS) -> Tensor:
    """Sum of the rows of each label over all processes. Shape: [n, C], [n] int64 -> [C, C] float64."""
    return group.all_reduce(one_hot(labels, values.shape[1], torch.float64).T @ values.double())


class Confusion(NamedTuple):
    """Predictions of clean images by class, with one correct image of each class added.

    Shape:
        mean [C, C] float64: K[c, k], the mean prediction of class k over the images of class c; rows sum to 1.
        variance [C, C] float64: of the predictions of single images. counts [C]: images, the added ones included.
    """

    mean: Tensor
    variance: Tensor
    counts: Tensor

    @classmethod
    def of(cls, predictions: Tensor, labels: Tensor, group: ProcessGroup = SINGLE_PROCESS) -> "Confusion":
        """Confusion of clean images. Shape: predictions [m, C], labels [m] int64."""
        sums, squares = (class_sums(values, labels, group) for values in (predictions, predictions.square()))
        added = torch.eye(len(sums), dtype=sums.dtype, device=sums.device)
        counts = (sums + added).sum(1)
        mean = (sums + added) / counts[:, None]
        return cls(mean, ((squares + added) / counts[:, None] - mean.square()).clamp(min=0), counts)

    def unexplained(self, sums: Tensor, joint: Tensor) -> float:
        """Mean squared difference of J and K' M, over its variance, from train points and from val images.

        What none of n images of a class showed may yet be so for one in n. So no variance is taken to be below 1 / n,
        which is that of a prediction of 1 for one image in n and 0 for the others.

        Shape:
            sums [C, C], the J of train points in numbers of points; joint [C, C], M likewise.
        """
        variance = self.variance.maximum(1 / self.counts[:, None])
        of_points = variance.T @ joint
        of_mean = (variance / self.counts[:, None]).T @ joint.square()
        difference = (sums - self.mean.T @ joint).square() / (of_points + of_mean).clamp(min=1e-12)
        return float(difference.mean())


def label_joint(
    predictions: Tensor, labels: Tensor, confusion: Confusion, group: ProcessGroup = SINGLE_PROCESS
) -> Tensor:
    """Joint distribution M[c, y] of clean and observed labels.

    If correct labels explain the predictions, labels stay as they are: few val images are no evidence against them.
    Otherwise `raise_likelihood` estimates M, from nearly all labels correct. In the end one image of each class is
    added, distributed as if both labels were independent, so that no entry is 0.

    Args:
        predictions: of the train points on this process.
        confusion: of the same classifier.
    Shape:
        predictions [n, C], labels [n] int64 -> [C, C] float64.
    """
    sums = class_sums(predictions, labels, group).T
    total, classes = float(sums.sum()), len(sums)
    counts = torch.diag(sums.sum(0))
    if confusion.unexplained(sums, counts) > UNEXPLAINED:
        guess = counts + FIRST_GUESS * total / classes**2
        counts = raise_likelihood(guess, confusion.mean, sums, iterations=ITERATIONS)
    clean, observed = counts.sum(1) + 1, sums.sum(0) + 1
    independent = clean[:, None] * observed / (clean.sum() * observed.sum())
    return (counts + classes * independent) / (counts.sum() + classes)


def raise_likelihood(joint: Tensor, confusion: Tensor, sums: Tensor, *, iterations: int) -> Tensor:
    """Joint distribution M of clean and observed labels, after steps that raise the likelihood of J under K' M.

    These are the steps of expectation maximisation, by Richardson 1972 and Lucy 1974. They keep M positive, need no
    inverse of K, and end at K^-T J if no entry of it is negative.

    Args:
        joint: first guess of M, positive where M may be.
    Shape:
        joint, confusion (K, rows that sum to 1), sums (J) [C, C] -> [C, C].
    """
    for _ in range(iterations):
        joint = joint * (confusion @ (sums / (confusion.T @ joint).clamp(min=1e-12)))
    return joint


def label_posterior(predictions: Tensor, joint: Tensor, labels: Tensor) -> Tensor:
    """Posterior of the clean label. Shape: predictions [n, C], joint [C, C], labels [n] int64 -> [n, C]."""
    likelihood = predictions * joint.T.to(predictions.dtype)[labels]
    return likelihood / likelihood.sum(1, keepdim=True).clamp(min=torch.finfo(predictions.dtype).tiny)
