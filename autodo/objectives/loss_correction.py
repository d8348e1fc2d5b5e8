"""Loss correction: predictions go through a matrix of label noise before they are compared with observed labels.

The matrix is T[c, y] = P(observed label y | clean label c), estimated with the help of val. It is the same for all
images: label noise depends on the class only.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autodo.config import objective
from autodo.evaluation import Evaluation
from autodo.losses import one_hot
from autodo.objectives.base import Objective, ObjectiveContext, TrainStep, cross_entropies
from autodo.points.posterior import class_sums, raise_likelihood

ITERATIONS = 5000
"""Steps of expectation maximisation: a quarter of a second for 10 classes. A few hundred leave rows of T unresolved
whose class the network seldom predicts."""


class _LossCorrection(Objective):
    """-log (T' p)_y for train points, and -log p_y for trusted val points, whose labels are right.

    T comes from a first network, which is trained with plain cross-entropy on the train points alone: it learns to
    predict observed labels, and has seen no label of val. The second network begins with the run's initial weights.
    """

    def __init__(self, config: objective.GLC | objective.ForwardCorrection, context: ObjectiveContext) -> None:
        self.train_size, self.group, train = context.train_size, context.group, context.data.train
        self.first = config.first_training(context.config.finetune_start)
        counts = np.zeros((context.classes, context.classes))
        if config.oracle:
            np.add.at(counts, (train.clean_labels, train.labels), 1)
        self.matrix = scaled_rows(torch.from_numpy(counts)).to(context.labels.device)

    def estimate(self, val: Evaluation, train: Callable[[], Iterable[Evaluation]]) -> Tensor:
        """T by the outputs of the first network. Shape: -> [C, C] float64."""
        raise NotImplementedError

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        logits = network(step.pixels)
        plain = cross_entropies(logits, step.labels)
        if self.prepares(step.epoch):
            return plain
        corrected = corrected_cross_entropies(logits, step.labels, self.matrix)
        return torch.where(step.points < self.train_size, corrected, plain)

    def prepares(self, epoch: int) -> bool:
        return epoch < self.first

    def restarts_network(self, epoch: int) -> bool:
        return 0 < self.first == epoch

    def epoch_ended(self, epoch: int, val: Evaluation, train: Callable[[], Iterable[Evaluation]]) -> None:
        if epoch == self.first - 1:
            self.matrix = self.estimate(val, train)

    def confusion(self, val: Evaluation) -> Tensor:
        """Mean prediction over the val images of each class, of all processes. Shape: -> [C, C]; rows sum to 1."""
        return scaled_rows(class_sums(val.logits.double().softmax(1), val.labels, self.group))

    def state_dict(self) -> dict[str, Any]:
        return {"matrix": self.matrix}

    def load(self, rows: dict[str, Tensor], state: dict[str, Any]) -> None:
        self.matrix = state["matrix"].to(self.matrix)


class GoldLossCorrection(_LossCorrection):
    """GLC: row c of T is the mean prediction of the first network over the val images of class c.

    This is T itself if the first network predicts the distribution of observed labels of each image.

    Reference: Hendrycks et al. 2018, section 3 and algorithm 1.
    """

    def estimate(self, val: Evaluation, train: Callable[[], Iterable[Evaluation]]) -> Tensor:
        return self.confusion(val)


class ForwardCorrectionLoss(_LossCorrection):
    """Forward correction: T is the noise with which the confusion K on val explains the predictions on train.

    K[c, k] is the mean probability of class k over the val images of class c, and J[k, y] the sum of the probabilities
    of k over the train points with label y. A network that tends to some classes, or is unsure, does so on val and on
    train alike, which T as a mean of its predictions would take for noise.

    Reference: Patrini et al. 2017, theorem 2; without trusted labels, they take row c of T from the prediction for the
    image that most probably has class c (section 4).
    """

    def estimate(self, val: Evaluation, train: Callable[[], Iterable[Evaluation]]) -> Tensor:
        joint = torch.zeros_like(self.matrix)
        for chunk in train():
            observed = one_hot(chunk.labels, len(joint), torch.float64)
            joint += chunk.logits.double().softmax(1).T @ observed
        return noise_of_confusion(self.confusion(val), self.group.all_reduce(joint))


def noise_of_confusion(confusion: Tensor, joint: Tensor) -> Tensor:
    """Rows of M, scaled to sum to 1, where M is the joint distribution of clean and observed labels, in points.

    If a prediction depends on the clean label alone, J = K' M. M is the most likely one, which minimises
    -sum_ky J[k, y] log (K' M)[k, y] over M >= 0 and exists for a singular K too. Each class then gets one more point,
    with the label shares of all points, so that no row is zero.

    Shape:
        confusion, K in the formulas, [C, C], rows sum to 1; joint, J, [C, C] -> [C, C].
    """
    guess = (joint.sum(0) / len(joint)).repeat(len(joint), 1)
    points = raise_likelihood(guess, confusion, joint, iterations=ITERATIONS)
    return scaled_rows(points + joint.sum(0) / joint.sum())


def scaled_rows(by_class: Tensor) -> Tensor:
    """Rows scaled to sum to 1; a row of zeros, of a class without images, becomes that of right labels.

    Shape:
        by_class [C, C], at least 0 -> [C, C].
    """
    sums = by_class.sum(1, keepdim=True)
    right = torch.eye(len(by_class), dtype=by_class.dtype, device=by_class.device)
    return torch.where(sums > 0, by_class / sums.clamp(min=torch.finfo(sums.dtype).tiny), right)


def corrected_cross_entropies(logits: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """-log (T' p)_y of each point. Shape: logits [b, C], labels [b] int64, matrix [C, C] -> [b]."""
    to_label = matrix.to(logits.dtype).clamp(min=torch.finfo(logits.dtype).tiny).log().T[labels]
    return -(logits.log_softmax(1) + to_label).logsumexp(1)
