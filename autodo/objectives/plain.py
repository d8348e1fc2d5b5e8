"""Plain loss with per-point weights and targets, and cross-entropy with smoothed labels."""

from torch import Tensor, nn

from autodo.config import objective
from autodo.losses import LOSSES, InnerLoss
from autodo.objectives.base import Objective, ObjectiveContext, TrainStep


class PlainLoss(Objective):
    """v_y w_i loss(q_i, f_i + shift): inner loss of AutoDO; w = 1 and q is the observed label unless lam is learned.

    Args:
        shift, class_weights: see `InnerLoss`.
    """

    def __init__(
        self, context: ObjectiveContext, *, shift: Tensor | None = None, class_weights: Tensor | None = None
    ) -> None:
        self.inner_loss = InnerLoss(LOSSES[context.config.loss], shift, class_weights)
        """The loss that outer passes differentiate."""

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        return self.inner_loss.values(network(step.pixels), step.labels, step.view.weights, step.view.log_targets)


class LabelSmoothingLoss(Objective):
    """-sum_c q_c log p_c with q = (1 - a) onehot(y) + a / C.

    Reference: Szegedy et al. 2016, section 7.
    """

    def __init__(self, config: objective.LabelSmoothing, context: ObjectiveContext) -> None:
        self.smoothing = config.smoothing

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        return smoothed_cross_entropies(network(step.pixels), step.labels, self.smoothing)


def smoothed_cross_entropies(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of (1 - smoothing) onehot + smoothing / C. Shape: [b, C], [b] int64 -> [b]."""
    log_p = logits.log_softmax(1)
    of_label = log_p.gather(1, labels[:, None]).squeeze(1)
    return -(1 - smoothing) * of_label - smoothing * log_p.mean(1)
