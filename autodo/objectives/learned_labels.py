"""PENCIL and joint optimization: learn a label distribution for each point, in stages."""

import torch
from torch import Tensor, nn

from autodo.config import objective
from autodo.losses import one_hot
from autodo.objectives.base import Objective, ObjectiveContext, TrainStep, cross_entropies

PAPER_EPOCHS = 320  # of a run in both papers (section 4)
MIN_MEAN = 1e-8  # smallest mean prediction of a class, so that its logarithm and its gradient are finite


class PencilLoss(Objective):
    """Label distributions y = softmax(z), with z a parameter of each point that starts at K onehot(observed label).

    Stage 1 trains theta with the cross-entropy of the observed labels. In stage 2, theta and z descend `pencil_losses`
    at the same time: theta with the run's optimizer, z with plain gradient steps on the mean over the batch. Stage 3
    trains theta with KL(p || y) / C and keeps z.

    Reference: Yi and Wu 2019, section 3.
    """

    def __init__(self, config: objective.Pencil, context: ObjectiveContext) -> None:
        self.alpha, self.beta = config.alpha, config.beta
        # A point takes a step in each epoch of stage 2: with fewer epochs it takes longer ones, and moves as far.
        self.lr = config.lr_labels * PAPER_EPOCHS / context.config.finetune_start
        self.label_start, self.last_start = config.stage_starts(context.config.finetune_start)
        self.label_logits = config.scale * one_hot(context.labels, context.classes, torch.float32)

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        logits = network(step.pixels)
        if step.epoch < self.label_start:
            return cross_entropies(logits, step.labels)
        log_p, label_logits = logits.log_softmax(1), self.label_logits[step.points]
        log_y = label_logits.log_softmax(1)
        if step.epoch >= self.last_start:
            return pencil_losses(log_p, log_y, step.labels, alpha=0, beta=0)
        slope = label_gradients(log_p.detach().exp(), log_y.exp(), step.labels, self.alpha)
        moved = label_logits - self.lr / step.size * slope
        self.label_logits[step.points] = moved.to(self.label_logits.dtype)
        return pencil_losses(log_p, log_y, step.labels, alpha=self.alpha, beta=self.beta)

    def rows(self) -> dict[str, Tensor]:
        return {"label_logits": self.label_logits}


class JointOptimizationLoss(Objective):
    """Soft labels y that are the mean of a point's own predictions in recent epochs; observed labels at first.

    In step 1 theta descends the cross-entropy of y, plus alpha KL(class shares || mean of p over the batch) and beta
    times the entropy of p. Step 2 keeps y, and trains from the initial weights with the cross-entropy of y alone.

    Predictions are those of training, of augmented images. A point is visited once in each epoch.

    Reference: Tanaka et al. 2018, section 3.
    """

    def __init__(self, config: objective.JointOptimization, context: ObjectiveContext) -> None:
        self.alpha, self.beta, self.group = config.alpha, config.beta, context.group
        label_start, self.last_start = config.stage_starts(context.config.finetune_start)
        self.label_start = max(label_start, 1)
        counts = context.class_counts(oracle=config.oracle)
        self.prior = (counts / counts.sum()).float()
        window = max(1, round(config.window * context.config.finetune_start))
        self.predictions = torch.zeros(len(context.labels), window, context.classes, device=context.labels.device)

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        log_p = network(step.pixels).log_softmax(1)
        losses = -(self.targets(step) * log_p).sum(1)
        if step.epoch >= self.last_start:
            return losses
        p = log_p.exp()
        latest = step.epoch % self.predictions.shape[1]
        self.predictions[step.points, latest] = p.detach().to(self.predictions.dtype)
        mean = self.group.all_reduce(p.detach().sum(0)) / step.size
        return losses + self.alpha * prior_losses(p, mean, self.prior) + self.beta * entropies(log_p)

    def targets(self, step: TrainStep) -> Tensor:
        """Labels of the batch before this step. Shape: -> [b, C]."""
        predictions = self.predictions[step.points]
        if step.epoch < self.label_start:
            return one_hot(step.labels, predictions.shape[2], predictions.dtype)
        return predictions[:, : min(step.epoch, self.last_start)].mean(1)

    def restarts_network(self, epoch: int) -> bool:
        return epoch == self.last_start

    def rows(self) -> dict[str, Tensor]:
        return {"predictions": self.predictions}


def entropies(log_p: Tensor) -> Tensor:
    """-sum_c p_c log p_c. Shape: [b, C] -> [b]."""
    return -(log_p.exp() * log_p).sum(1)


def pencil_losses(log_p: Tensor, log_y: Tensor, labels: Tensor, *, alpha: float, beta: float) -> Tensor:
    """KL(p || y) / C + alpha (-log y_label) + beta / C entropy(p). Shape: [b, C], [b, C], [b] int64 -> [b].

    The published code takes the cross-entropy of y as if it were logits; here it is the paper's.
    """
    classes = log_p.shape[1]
    divergences = (log_p.exp() * (log_p - log_y)).sum(1)
    compatibility = -log_y.gather(1, labels[:, None]).squeeze(1)
    return divergences / classes + alpha * compatibility + beta / classes * entropies(log_p)


def label_gradients(p: Tensor, y: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """Gradient of `pencil_losses` in the logits of y: (y - p) / C + alpha (y - onehot(label)).

    Shape:
        p, y [b, C], labels [b] int64 -> [b, C].
    """
    classes = p.shape[1]
    return (y - p) / classes + alpha * (y - one_hot(labels, classes, y.dtype))


def prior_losses(p: Tensor, mean: Tensor, prior: Tensor) -> Tensor:
    """KL(prior || mean) for each point, where `mean` is that of p over the batch of all processes.

    The mean of the losses has the gradient of the KL, -sum_c prior_c / mean_c d mean_c, though `mean` has none: so no
    gradient passes between processes.

    Shape:
        p [b, C], with gradient; mean, prior [C] -> [b].
    """
    mean = mean.clamp(min=MIN_MEAN)
    value = (prior * (prior.log() - mean.log())).sum()
    slope = -(p * (prior / mean)).sum(1)
    return value + slope - slope.detach()
