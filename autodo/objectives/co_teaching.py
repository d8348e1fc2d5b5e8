"""Co-teaching: two networks, each of which learns from the points with a small loss in the other."""

from typing import Any

import torch
from torch import Tensor, nn

from autodo.config import objective
from autodo.objectives.base import Objective, ObjectiveContext, TrainStep, cross_entropies


class CoTeachingLoss(Objective):
    """Mean cross-entropy over the points of a batch that `small_losses` selects by the losses of a second network.

    The second network, the peer, sees the same images and takes its steps on the points that the first one selects.
    It has other initial weights, and the optimizer settings and learning rate of the first. The share that is left out
    rises linearly with the epochs that are done, from 0 to `forget_rate`. Trusted val points are never left out; the
    paper has none. Each process selects within its own part of a batch.

    Reference: Han et al. 2018, section 3 and algorithm 1.
    """

    def __init__(self, config: objective.CoTeaching, context: ObjectiveContext) -> None:
        self.train_size, self.group, train = context.train_size, context.group, context.data.train
        wrong = float((train.labels != train.clean_labels).mean())
        self.forget_rate = wrong if config.forget_rate is None else config.forget_rate
        self.rise = max(1, round(config.gradual * context.config.finetune_start))
        self.encoder, self.head, self.peer, self.optimizer = context.second_network()
        self.peer.train()

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        own, others = (cross_entropies(model(step.pixels), step.labels) for model in (network, self.peer))
        trusted = step.points >= self.train_size
        rate = self.forget_rate * min(1.0, step.epoch / self.rise)
        by_own, by_others = (
            mean_weights(small_losses(losses.detach(), trusted, rate), own.dtype) for losses in (own, others)
        )
        self.optimizer.lr = step.lr
        self.optimizer.zero_grad()
        # Gradients are averaged over the processes, as those of the first network are.
        ((by_own * others).sum() * self.group.size / step.size).backward()
        self.optimizer.step()
        return by_others * own

    def state_dict(self) -> dict[str, Any]:
        return {
            "encoder": self.encoder.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, rows: dict[str, Tensor], state: dict[str, Any]) -> None:
        self.encoder.load_state_dict(state["encoder"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])


def small_losses(losses: Tensor, trusted: Tensor, rate: float) -> Tensor:
    """Whether a point is trusted or among the floor((1 - rate) n) smallest losses of the n others; at least one is.

    Shape:
        losses [b], trusted [b] bool -> [b] bool.
    """
    places = losses.masked_fill(trusted, -torch.inf).argsort(stable=True).argsort()
    kept = trusted.sum() + ((1 - rate) * (~trusted).sum().double()).floor()
    return places < kept.clamp(min=1)


def mean_weights(selected: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights with a mean of 1: equal for the selected points, 0 for others. Shape: [b] bool -> [b] of `dtype`."""
    chosen = selected.to(dtype)
    return chosen * (len(chosen) / chosen.sum())
