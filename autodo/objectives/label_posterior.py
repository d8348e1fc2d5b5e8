"""LDAM-DRW for labels that may be wrong: margins and weights by the posterior of the clean label."""

from typing import Any

import torch
from torch import Tensor, nn

from autodo.config import objective
from autodo.losses import one_hot
from autodo.objectives.base import Objective, ObjectiveContext, TrainStep
from autodo.objectives.imbalance import label_aware_margins
from autodo.points.posterior import Confusion, class_sums, label_joint, label_posterior


class LabelPosteriorLoss(Objective):
    """Cross-entropy of q_i and the logits s (cos_c - m_c q_ic), where q_i is the posterior of the clean label.

    The predictions of the posterior are running means of softmax(logits / temperature) on the augmented images of
    training, P_i <- beta P_i + (1 - beta) p. Before each epoch from `start_epoch` on, the joint distribution of labels
    and the class sizes n_c = sum_i q_ic are estimated again (`autodo.points.posterior`); the margins m_c are those of
    LDAM for these sizes. In the last `deferred_share` of the epochs the terms of class c have weights proportional to
    1 / n_c, with mean 1. Val points keep their labels.
    """

    def __init__(self, config: objective.LabelPosterior, context: ObjectiveContext) -> None:
        self.config, self.group, self.labels, self.classes = config, context.group, context.labels, context.classes
        self.train_size = context.train_size
        self.deferred_start = config.deferred_start(context.config.finetune_start)
        self.predictions = torch.zeros(len(context.labels), context.classes, device=context.labels.device)
        self.joint = torch.ones(context.classes, context.classes, dtype=torch.float64, device=context.labels.device)
        self.sizes = context.class_counts(oracle=False)
        self.estimated_before = 0
        """Epoch before which `joint` and `sizes` were last estimated; 0 for not yet."""

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        config = self.config
        if step.epoch >= config.start_epoch and self.estimated_before < step.epoch:
            self._estimate(step.epoch)
        # The labels come from earlier epochs: the point's own next prediction must not confirm itself.
        targets = self.targets(step.points)
        logits = network(step.pixels)
        with torch.no_grad():
            p = (logits / config.temperature).softmax(1)
            running = config.beta * self.predictions[step.points] + (1 - config.beta) * p
            self.predictions[step.points] = running.to(self.predictions.dtype)
        margins = (config.scale * label_aware_margins(self.sizes, config.max_margin)).to(logits.dtype)
        targets = targets.to(logits.dtype)
        terms = -targets * (logits - margins * targets).log_softmax(1)
        if step.epoch >= self.deferred_start:
            terms = terms * (self.sizes.sum() / (self.classes * self.sizes)).to(logits.dtype)
        return terms.sum(1)

    def soft_labels(self) -> Tensor:
        return self.targets(torch.arange(len(self.labels), device=self.labels.device))

    def targets(self, points: Tensor) -> Tensor:
        """Labels of these points: the posterior for train points, the label for val points. Shape: [b] -> [b, C]."""
        labels = self.labels[points]
        observed = one_hot(labels, self.classes, self.predictions.dtype)
        if self.estimated_before == 0:
            return observed
        posterior = label_posterior(self.predictions[points], self.joint, labels)
        return torch.where((points < self.train_size)[:, None], posterior, observed)

    def _estimate(self, epoch: int) -> None:
        """Estimate the joint distribution of labels and the class sizes from the predictions so far."""
        predictions = self.predictions / self.predictions.sum(1, keepdim=True).clamp(min=1e-12)
        train, val = predictions[: self.train_size], predictions[self.train_size :]
        labels, trusted = self.labels[: self.train_size], self.labels[self.train_size :]
        self.joint = label_joint(train, labels, Confusion.of(val, trusted, self.group), self.group)
        self.estimated_before = epoch
        self.sizes = class_sums(self.soft_labels(), self.labels, self.group).sum(0).clamp(min=1)

    def rows(self) -> dict[str, Tensor]:
        return {"predictions": self.predictions}

    def state_dict(self) -> dict[str, Any]:
        return {"joint": self.joint, "sizes": self.sizes, "estimated_before": self.estimated_before}

    def load(self, rows: dict[str, Tensor], state: dict[str, Any]) -> None:
        super().load(rows, state)
        self.joint.copy_(state["joint"])
        self.sizes = state["sizes"].to(self.sizes)
        self.estimated_before = state["estimated_before"]
