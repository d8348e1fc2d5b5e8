"""Posterior of the clean label of a train point, given its image and its observed label.

With predictions P_i under a uniform prior, and the joint distribution M of the clean and the observed label,

    q_i[c] ~ P_i[c] M[c, y_i].

M is estimated from the predictions themselves: on clean val images they show how the classifier confuses classes (K),
and on train points how often it predicts class k where the label is y (J). As E[J] = K' M, M is the non-negative
solution of J = K' M. Lipton et al. 2018 estimate class shares in this way; here it is a joint distribution.
"""

import torch
from torch import Tensor

from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from autodo.losses import one_hot

ITERATIONS = 20
"""Steps of the estimate of M. Classes that look alike would need many more, and stay with their labels."""
PRIOR_SHARE = 1e-3
"""Share of train points in the first guess of M that have any clean label, as likely as any other."""


def class_sums(values: Tensor, labels: Tensor, group: ProcessGroup = SINGLE_PROCESS) -> Tensor:
    """Sum of the rows of each label over all processes. Shape: [n, K], [n] int64 -> [K classes, K] float64."""
    classes = values.shape[1]
    return group.all_reduce(one_hot(labels, classes, torch.float64).T @ values.double())


def confusion(predictions: Tensor, labels: Tensor, group: ProcessGroup = SINGLE_PROCESS) -> Tensor:
    """K[c, k]: mean prediction of class k over the images of class c, with one correct image added to each class.

    A class without images is thus taken to be predicted correctly.

    Shape:
        predictions [m, C], labels [m] int64 -> [C, C] float64, rows that sum to 1.
    """
    sums = class_sums(predictions, labels, group)
    sums = sums + torch.eye(len(sums), dtype=sums.dtype, device=sums.device)
    return sums / sums.sum(1, keepdim=True)


def label_joint(
    predictions: Tensor,
    labels: Tensor,
    confused: Tensor,
    group: ProcessGroup = SINGLE_PROCESS,
    *,
    iterations: int = ITERATIONS,
) -> Tensor:
    """Joint distribution M[c, y] of clean and observed labels.

    Steps of Richardson 1972 and Lucy 1974 raise the likelihood of J under K' M and keep M positive. They start with
    nearly all labels correct, and so leave the labels of classes that the classifier cannot tell apart as they are. One
    image for each class is added at the end, distributed as if both labels were independent, so that no entry is 0.

    Args:
        predictions: of the train points on this process.
        confused: from `confusion`, of the same classifier.
    Shape:
        predictions [n, C], labels [n] int64, confused [C, C] -> [C, C] float64.
    """
    sums = class_sums(predictions, labels, group).T
    total, classes = float(sums.sum()), len(sums)
    counts = torch.diag(sums.sum(0)) + PRIOR_SHARE * total / classes**2
    for _ in range(iterations):
        counts = counts * (confused @ (sums / (confused.T @ counts).clamp(min=1e-12)))
    clean, observed = counts.sum(1) + 1, sums.sum(0) + 1
    independent = clean[:, None] * observed / (clean.sum() * observed.sum())
    return (counts + classes * independent) / (total + classes)


def label_posterior(predictions: Tensor, joint: Tensor, labels: Tensor) -> Tensor:
    """Posterior of the clean label. Shape: predictions [n, C], joint [C, C], labels [n] int64 -> [n, C]."""
    likelihood = predictions * joint.T.to(predictions.dtype)[labels]
    return likelihood / likelihood.sum(1, keepdim=True).clamp(min=torch.finfo(predictions.dtype).tiny)
