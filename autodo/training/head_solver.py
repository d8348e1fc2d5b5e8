"""The head, solved on the features of the frozen encoder: after the last epoch, and before outer passes."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autodo.bilevel.head_solve import HeadProblem, linear_head, solve_head
from autodo.config.head import HeadConfig
from autodo.evaluation import Evaluation
from autodo.losses import one_hot
from autodo.objectives import Objective
from autodo.objectives.plain import PlainLoss
from autodo.points.model import PointModel
from autodo.points.posterior import Confusion, class_sums, label_joint, label_posterior
from autodo.training.context import Loaders, RunContext
from autodo.training.evaluator import Evaluator

WEIGHT_DECAYS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Candidates, in order, of a weight decay that is chosen by a held-out loss."""


class SolvedHead(NamedTuple):
    """A solved head, and the posterior of the clean label of the train points on this process, if it was estimated.

    Shape:
        posterior [n, C].
    """

    head: nn.Linear
    posterior: Tensor | None
    seconds: float
    """Time of the solve, with the features that it needs."""
    weight_decay: float


class SolvePoints(NamedTuple):
    """Features of the points of a solve, their labels and weights; a weight of 0 leaves a point out.

    Shape:
        targets [n, C], weights [n].
    """

    inner: Evaluation
    targets: Tensor
    weights: Tensor


def predictions(theta: Tensor, features: Tensor) -> Tensor:
    """Predictions of a linear head. Shape: theta [C, D + 1], features [n, D] -> [n, C]."""
    return (features @ theta[:, :-1].T + theta[:, -1]).softmax(1)


class HeadSolver:
    """Solves a plain linear head for the features of images without augmentation; the encoder is in eval mode.

    All features of this process's images are in memory at once, in n x D numbers.
    """

    def __init__(
        self,
        config: HeadConfig,
        context: RunContext,
        loaders: Loaders,
        points: PointModel,
        objective: Objective,
        evaluator: Evaluator,
    ) -> None:
        self.config = config
        self.context = context
        self.loaders = loaders
        self.points = points
        self.objective = objective
        self.evaluator = evaluator
        self.classes = len(context.data.class_names)

    def run(self, model: tuple[nn.Module, nn.Module] | None = None) -> SolvedHead:
        """Solve the head; all processes must call this, and get the head of the first one.

        Args:
            model: encoder and head in place of the run's `evaluated` ones.
        """
        started = self.context.clock()
        config, on_val = self.config, self.config.images == "val"
        inner = self.evaluator.evaluate(self.loaders.val if on_val else self.loaders.train, model)
        train_size = 0 if on_val else self.loaders.train_size
        targets, weights = one_hot(inner.labels, self.classes, inner.features.dtype), torch.ones_like(inner.labels)
        weights = weights.to(targets.dtype)
        theta: Tensor | None = None
        if config.labels == "learned" or self.points.posterior is not None:
            view = self.points.view_on_host(range(len(inner.labels)))
            weights = view.weights.to(weights)
        if config.labels == "learned":
            targets = view.log_targets.exp().to(targets)
        elif config.labels == "posterior":
            estimated = self.objective.soft_labels()
            if estimated is not None:
                targets = estimated.to(targets)
            # Val images that the head is not solved on show how it confuses classes; others are among the points.
            val = None
            if not self.context.config.trains_on_val:
                val = self.evaluator.evaluate(self.loaders.val, model)
            for _ in range(config.rounds):
                points = SolvePoints(inner, targets, weights)
                decay = self._weight_decay(points)
                theta = self._solve(points, decay, theta)
                targets[:train_size] = self._posterior(theta, points, val, decay)
        points = SolvePoints(inner, targets, weights)
        decay = self._weight_decay(points)
        theta = self.context.group.broadcast(self._solve(points, decay, theta))
        seconds = self.context.clock() - started
        posterior = targets[:train_size] if config.labels == "posterior" else None
        return SolvedHead(linear_head(theta), posterior, seconds, decay)

    def _problem(self, points: SolvePoints, weight_decay: float) -> HeadProblem:
        """The problem of one solve, balanced by the class sizes of these labels or as in training."""
        inner, targets, weights = points
        group, balance = self.context.group, self.config.balance
        sizes = class_sums(targets * weights[:, None], inner.labels, group).sum(0).clamp(min=1)
        shift = targets.new_zeros(self.classes)
        if balance == "shift":
            shift = (sizes / sizes.sum()).log().to(targets.dtype)
        elif balance == "weights":
            weights = weights * (targets @ (sizes.sum() / (self.classes * sizes)).to(targets.dtype))
        elif balance == "loss":
            assert isinstance(self.objective, PlainLoss)
            loss = self.objective.inner_loss
            shift, weights = loss.shifted(shift), loss.weighted(weights, inner.labels)
        return HeadProblem(inner.features, targets, weights, shift, weight_decay, inner.total)

    def _solve(self, points: SolvePoints, weight_decay: float, start: Tensor | None) -> Tensor:
        """The head of the lowest loss. Shape: -> [C, D + 1]."""
        return self._minimum(self._problem(points, weight_decay), start)

    def _minimum(self, problem: HeadProblem, start: Tensor | None) -> Tensor:
        config, group = self.config, self.context.group
        return solve_head(
            problem, tolerance=config.tolerance, max_iterations=config.max_iterations, start=start, group=group
        )

    def _weight_decay(self, points: SolvePoints) -> float:
        """The weight decay of a solve: as given, or the last of WEIGHT_DECAYS before the held-out loss rises.

        A part of the points is held out. Their labels may be wrong, but they are as wrong for every weight decay. It is
        no fold of the posterior: that would prefer the weight decay whose heads have estimated its labels.
        """
        given = self.config.weight_decay
        if given == "training":
            return self.context.config.training.weight_decay
        if given != "held-out":
            return given
        held_out = self._fold(len(points.targets), "choice of the weight decay") == 0
        problem = self._problem(points, weight_decay=0.0)
        kept, left_out = (problem._replace(weights=problem.weights * part) for part in (~held_out, held_out))
        theta, lowest, chosen = None, math.inf, WEIGHT_DECAYS[0]
        for weight_decay in WEIGHT_DECAYS:
            theta = self._minimum(kept._replace(weight_decay=weight_decay), theta)
            loss = float(left_out.value_and_gradient(theta, self.context.group)[0])
            if loss >= lowest:
                break
            lowest, chosen = loss, weight_decay
        return chosen

    def _fold(self, count: int, purpose: str) -> Tensor:
        """Number of the part that each point belongs to. Shape: -> [count] int64."""
        generator = self.context.generator(purpose, 0)
        return torch.randperm(count, generator=generator, device=self.context.device) % self.config.folds

    def _posterior(self, theta: Tensor, points: SolvePoints, val: Evaluation | None, weight_decay: float) -> Tensor:
        """Posterior of the clean label of the train points, with predictions by heads that have not seen their labels.

        Args:
            val: the val images; None if they are the last points.
        Shape:
            theta [C, D + 1] -> [train points, C].
        """
        group, train_size, observed = self.context.group, self.loaders.train_size, points.inner.labels
        held_out = self._held_out_predictions(theta, points, weight_decay)
        if val is None:
            trusted, trusted_labels = held_out[train_size:], observed[train_size:]
        else:
            trusted, trusted_labels = predictions(theta, val.features), val.labels
        train, labels = held_out[:train_size], observed[:train_size]
        joint = label_joint(train, labels, Confusion.of(trusted, trusted_labels, group), group)
        return label_posterior(train, joint, labels)

    def _held_out_predictions(self, theta: Tensor, points: SolvePoints, weight_decay: float) -> Tensor:
        """Predictions for each point by a head that is solved on the other folds. Shape: -> [n, C]."""
        fold, held_out = self._fold(len(points.targets), "folds of the head"), torch.empty_like(points.targets)
        for number in range(self.config.folds):
            of_fold = fold == number
            others = self._solve(points._replace(weights=points.weights * ~of_fold), weight_decay, theta)
            held_out[of_fold] = predictions(others, points.inner.features[of_fold])
        return held_out
