"""Variants of the outer phase: other settings, and what is no setting of a run, done to its training."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from autodo.bilevel.last_layer import LastLayer
from autodo.bilevel.outer_pass import OuterPass
from autodo.config.run import SplitName
from autodo.data.batches import shuffled_batches
from autodo.data.images.split import stratified_split
from autodo.evaluation import Evaluation
from autodo.points.table import PointTable
from autodo.training import inner_loop
from autodo.training.context import PhaseResult
from autodo.training.trainer import Trainer


class Variant(NamedTuple):
    """Settings, and what else is done to a training before it starts."""

    settings: Mapping[str, Any]
    alter: Callable[[Trainer], None] | None = None
    split: SplitName = "paper"


def replace_outer(training: Trainer, kind: type[OuterPass]) -> None:
    """Outer passes of another kind from now on."""
    assert training.outer is not None
    training.outer.outer_pass.__class__ = kind


def adapt_damping(training: Trainer, share: float) -> None:
    """The damping of each solve is the mean of the diagonal of the Hessian's Gauss-Newton part, times `share`."""

    class Adaptive(LastLayer):
        def solve(
            self, features: Tensor, weights: Tensor, log_targets: Tensor | None, count: int, gradient: Tensor
        ) -> Tensor:
            curvature = 1 - self.head(features).softmax(1).square().sum(1)
            trace = (weights * curvature * features.square().sum(1)).sum() / count
            self.damping = training.config.training.weight_decay + share * float(trace) / gradient.numel()
            return super().solve(features, weights, log_targets, count, gradient)

    assert training.outer is not None
    training.outer.outer_pass.last_layer.__class__ = Adaptive


def damp_by_val(training: Trainer, images: float) -> None:
    """The damping is `images` over the number of val images.

    Val's gradient has a covariance of about H / M: with a Gaussian prior of variance 1 / `images` on the way to val's
    minimum this damping makes u the most probable one.
    """
    assert training.outer is not None
    training.outer.outer_pass.last_layer.damping += images / len(training.context.data.val)


def stop_early(training: Trainer, share: float) -> None:
    """No outer pass after this share of the epochs."""

    class Early(OuterPass):
        def run(self, *arguments: Any) -> None:
            if training.state.epoch < share * training.config.training.epochs:
                super().run(*arguments)

    replace_outer(training, Early)


def halves_of(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of two stratified halves. Shape: labels [M] -> about [M / 2] each."""
    generator = np.random.default_rng(seed)
    names = tuple(str(name) for name in range(int(labels.max()) + 1))
    one, other = stratified_split(labels.numpy(), 0.5, generator, class_names=names, where="val")
    return torch.from_numpy(one), torch.from_numpy(other)


def take_halves(training: Trainer) -> None:
    """One half of val gives the gradient of a pass, the other that of the next."""
    halves = halves_of(training.loaders.val.labels, training.config.seed)

    class Halves(OuterPass):
        def run(self, val: Evaluation, *arguments: Any) -> None:
            super().run(part_of(val, halves[training.state.epoch % 2]), *arguments)

    replace_outer(training, Halves)


def part_of(val: Evaluation, chosen: Tensor) -> Evaluation:
    """Of some of the images."""
    return Evaluation(val.features[chosen], val.logits[chosen], val.labels[chosen], len(chosen))


def cross_fit(training: Trainer) -> None:
    """Union split: the half of val that gives an epoch's gradient is not among the points that this epoch trains on.

    Until the outer phase starts all of them are.
    """
    take_halves(training)
    halves = halves_of(training.loaders.val.labels, training.config.seed)

    def held_out(points: Tensor, total: int, batch_size: int, generator: torch.Generator, workers: Any) -> Any:
        if training.state.epoch >= training.config.outer_start:
            held = training.loaders.train_size + halves[training.state.epoch % 2]
            points = points[~torch.isin(points, held)]
        return shuffled_batches(points, len(points), batch_size, generator, workers)

    original = training.inner.run

    def run_without_half(epoch: int) -> PhaseResult:
        with mock.patch.object(inner_loop, "shuffled_batches", held_out):
            return original(epoch)

    training.inner.run = run_without_half  # type: ignore[method-assign]


Rule = Callable[[Tensor, Tensor, float], Tensor]


def replace_rule(training: Trainer, descent: Rule) -> None:
    """Rows go down by what `descent` says of their gradients, in place of RMSprop's step."""
    table = training.points.table

    def step(index: Tensor, gradient: Tensor, lr: float, mask: Tensor | None) -> None:
        assert mask is None
        table.steps += 1
        values = table.rows(index).sub_(descent(index, gradient, lr))
        table._update_sum += values.sum()
        table._last_read = None
        last = torch.full((len(index),), table.steps, dtype=torch.int32)
        table._store.write(index, {"values": values, "last_touched": last})

    table.rmsprop_step = step  # type: ignore[method-assign]


def take_signs(training: Trainer) -> None:
    """Rows go down by the learning rate, along the signs of their gradients."""
    replace_rule(training, lambda index, gradient, lr: lr * gradient.sign())


def take_adam(training: Trainer) -> None:
    """Rows go down by Adam's step."""
    replace_rule(training, Adam(training.points.table))


class Adam:
    """Adam on rows, which count their own steps. Kingma and Ba 2015; betas 0.9 and 0.999."""

    def __init__(self, table: PointTable) -> None:
        self.mean, self.square = torch.zeros_like(table.values), torch.zeros_like(table.values)
        self.count = torch.zeros(len(table), 1)

    def __call__(self, index: Tensor, gradient: Tensor, lr: float) -> Tensor:
        """The descent. Shape: index [B], gradient [B, K] -> [B, K]."""
        self.count[index] += 1
        self.mean[index] = 0.9 * self.mean[index] + 0.1 * gradient
        self.square[index] = 0.999 * self.square[index] + 0.001 * gradient.square()
        mean = self.mean[index] / (1 - 0.9 ** self.count[index])
        square = self.square[index] / (1 - 0.999 ** self.count[index])
        return lr * mean / (square.sqrt() + 1e-12)


def passes(start: float = 0.25, every: int = 1, lr: float = 0.05, damping: float = 0.01) -> Variant:
    """Outer passes after every so many epochs from a share of the epochs on, with steps of the learning rate `lr`."""
    settings = {"outer.start_share": start, "outer.every": every, "outer.lr": lr / every, "outer.damping": damping}
    return Variant(settings)


BEFORE = {
    **{"outer.start_share": 0.25, "outer.every": 1, "outer.lr": 0.05, "outer.damping": 0.01},
    **{"outer.schedule": "shared", "distortion.minority": "class"},
}
"""What runs of the exact solver had when its presets were studied; each variant changes something of it."""
DEFAULT = "75% of the epochs"
SCHEDULES = {
    DEFAULT: Variant({}),
    "100%": passes(start=0.0),
    "50%": passes(start=0.5),
    "25%": passes(start=0.75),
    "every 2nd": passes(every=2),
    "every 4th": passes(every=4),
    "every 2nd, lr 0.1": passes(every=2, lr=0.1),
    "every 4th, lr 0.2": passes(every=4, lr=0.2),
    "100%, every 2nd": passes(start=0.0, every=2),
    "100%, every 2nd, lr 0.1": passes(start=0.0, every=2, lr=0.1),
    "100%, every 4th, lr 0.2": passes(start=0.0, every=4, lr=0.2),
    "100%, every 3rd, lr 0.15": passes(start=0.0, every=3, lr=0.15),
    "first half": Variant(passes(start=0.0).settings, partial(stop_early, share=0.5)),
    "first half, every 2nd, lr 0.1": Variant(
        passes(start=0.0, every=2, lr=0.1).settings, partial(stop_early, share=0.5)
    ),
    "first 70%, every 2nd, lr 0.1": Variant(
        passes(start=0.0, every=2, lr=0.1).settings, partial(stop_early, share=0.7)
    ),
}
SETTINGS = {
    **{f"damping {damping:g}": Variant({"outer.damping": damping}) for damping in (1e-1, 1e-3, 1e-4)},
    "damping: mean of H's diagonal": Variant({"outer.damping": 0.0}, partial(adapt_damping, share=1.0)),
    "damping: a tenth of it": Variant({"outer.damping": 0.0}, partial(adapt_damping, share=0.1)),
    **{f"lr {lr:g}": Variant({"outer.lr": lr}) for lr in (0.025, 0.1, 0.2)},
    "halves of val in turn": Variant({}, take_halves),
    "sign, lr 0.3": Variant({"outer.lr": 0.3}, take_signs),
    "Adam, lr 0.3": Variant({"outer.lr": 0.3}, take_adam),
    "Adam, lr 0.1": Variant({"outer.lr": 0.1}, take_adam),
    "union": Variant({}, split="union"),
    "union, cross-fitted halves": Variant({}, cross_fit, split="union"),
}
COMBINED = {
    "every 2nd, lr 0.1, damping 0.003": passes(every=2, lr=0.1, damping=3e-3),
    "every 2nd, lr 0.1, damping 0.001": passes(every=2, lr=0.1, damping=1e-3),
    "every 2nd, lr 0.1, damping 0.0001": passes(every=2, lr=0.1, damping=1e-4),
}
RESTARTED = {
    f"{name}, restart": Variant({**_of.settings, "outer.schedule": "restart"})
    for name, _of in ((name, SCHEDULES[name]) for name in ("50%", "25%", DEFAULT))
}
"""With a schedule of the outer optimizer's own."""
SHARED = "shared"
PRESENT = {name: Variant({"outer.schedule": name}) for name in (SHARED, "restart")}
"""Of the presets as they are now."""
PLAIN = "plain training"
_ALL = {**SCHEDULES, **COMBINED, **SETTINGS}
SMALL = {
    DEFAULT: _ALL[DEFAULT],
    "damping 0.003": passes(damping=3e-3),
    **{name: _ALL[name] for name in ("damping 0.001", "every 2nd, lr 0.1", *list(COMBINED)[:2])},
}
"""For sets of a thousand images."""
BY_VAL = {
    "every 2nd, lr 0.1, damping 2.4 / M": Variant(
        passes(every=2, lr=0.1, damping=0.0).settings, partial(damp_by_val, images=2.4)
    ),
}
"""M: number of val images."""
VARIANTS = {PLAIN: Variant({}), **_ALL, **RESTARTED, **BY_VAL, **SMALL, **PRESENT}
