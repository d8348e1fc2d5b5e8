"""The head, solved on the features of the frozen encoder: after the last epoch, and before outer passes."""

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


class SolvedHead(NamedTuple):
    """A solved head, and the posterior of the clean label of the train points on this process, if it was estimated.

    Shape:
        posterior [n, C].
    """

    head: nn.Linear
    posterior: Tensor | None
    seconds: float
    """Time of the solve, with the features that it needs."""


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
        self.weight_decay = config.weight_decay or context.config.training.weight_decay
        self.classes = len(context.data.class_names)

    def run(self, model: tuple[nn.Module, nn.Module] | None = None) -> SolvedHead:
        """Solve the head; all processes must call this, and get the head of the first one.

        Args:
            model: encoder and head in place of the run's `evaluated` ones.
        """
        started = self.context.clock()
        config, on_val = self.config, self.config.images == "val"
        val = self.evaluator.evaluate(self.loaders.val, model)
        inner = val if on_val else self.evaluator.evaluate(self.loaders.train, model)
        train_size = 0 if on_val else self.loaders.train_size
        targets, weights = one_hot(inner.labels, self.classes, inner.features.dtype), torch.ones_like(inner.labels)
        weights = weights.to(targets.dtype)
        theta = None
        if config.labels == "learned" or self.points.posterior is not None:
            view = self.points.view_on_host(range(len(inner.labels)))
            weights = view.weights.to(weights)
        if config.labels == "learned":
            targets = view.log_targets.exp().to(targets)
        elif config.labels == "posterior":
            estimated = self.objective.soft_labels()
            if estimated is not None:
                targets = estimated.to(targets)
            for _ in range(config.rounds):
                theta = self._solve(inner, targets, weights, theta)
                targets[:train_size] = self._posterior(theta, inner, targets, weights, val)
        theta = self.context.group.broadcast(self._solve(inner, targets, weights, theta))
        seconds = self.context.clock() - started
        return SolvedHead(linear_head(theta), targets[:train_size] if config.labels == "posterior" else None, seconds)

    def _solve(self, inner: Evaluation, targets: Tensor, weights: Tensor, start: Tensor | None) -> Tensor:
        """One solve, balanced by the class sizes of these labels or as in training.

        Args:
            weights: of the points; 0 for those that are left out.
        Shape:
            -> [C, D + 1].
        """
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
        problem = HeadProblem(inner.features, targets, weights, shift, self.weight_decay, inner.total)
        return solve_head(
            problem,
            tolerance=self.config.tolerance,
            max_iterations=self.config.max_iterations,
            start=start,
            group=group,
        )

    def _posterior(self, theta: Tensor, inner: Evaluation, targets: Tensor, weights: Tensor, val: Evaluation) -> Tensor:
        """Posterior of the clean label of the train points, with predictions by heads that have not seen their labels.

        Shape:
            theta [C, D + 1], targets [n, C], weights [n] -> [train points, C].
        """
        group, train_size = self.context.group, self.loaders.train_size
        held_out = self._held_out_predictions(theta, inner, targets, weights)
        if self.context.config.trains_on_val:
            trusted, trusted_labels = held_out[train_size:], inner.labels[train_size:]
        else:
            trusted, trusted_labels = predictions(theta, val.features), val.labels
        train, labels = held_out[:train_size], inner.labels[:train_size]
        joint = label_joint(train, labels, Confusion.of(trusted, trusted_labels, group), group)
        return label_posterior(train, joint, labels)

    def _held_out_predictions(self, theta: Tensor, inner: Evaluation, targets: Tensor, weights: Tensor) -> Tensor:
        """Predictions for each point by a head that is solved on the other folds. Shape: -> [n, C]."""
        folds = self.config.folds
        generator = self.context.generator("folds of the head", 0)
        fold = torch.randperm(len(targets), generator=generator, device=targets.device) % folds
        held_out = torch.empty_like(targets)
        for number in range(folds):
            of_fold = fold == number
            others = self._solve(inner, targets, weights * ~of_fold, theta)
            held_out[of_fold] = predictions(others, inner.features[of_fold])
        return held_out
