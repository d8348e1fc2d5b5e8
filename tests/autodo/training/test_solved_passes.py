"""Runs whose head is solved in training: what is written, when, and what it makes of the inner problem."""

import re
from pathlib import Path

import pytest
import torch

from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data.images.device_loader import DeviceLoader
from autodo.errors import ConfigError
from autodo.losses import LOSSES
from autodo.training.trainer import Trainer
from tests.autodo.training.test_mid_epoch import EVERY, STEPS, assert_resumes_bit_for_bit, cut_before, short_run, start

PASSES = {"head.solve": "passes"}
WS = {**PASSES, "head.labels": "learned", "head.balance": "none", "method.loss": "kl"}
POSTERIOR = {"points.soft_label": "posterior", "method.loss": "cross-entropy", "method.images": "train+val"}
STILL = {"augmentation.crop_padding": 0, "augmentation.flip": False, "augmentation.erase_probability": 0}


def gradient_of_the_pass(training: Trainer) -> torch.Tensor:
    """Gradient in W of the inner problem as an outer pass sees it: its images, loss, weights and targets, in float64.

    Shape:
        -> [C, D].
    """
    generator = training.context.generator("outer", 0)
    images: DeviceLoader = training.loaders.train.images
    points = torch.arange(len(images))
    with torch.no_grad():
        training.model.encoder.eval()
        pixels = training.model.pipeline.train_view(images[points], generator)
        z = training.model.encoder(pixels).double()
    view = training.points.view(points)
    head = training.model.head
    weight = head.weight.detach().double().requires_grad_()
    log_p = (z @ weight.T + head.bias.detach().double()).log_softmax(1)
    losses = view.weights.double() * LOSSES[training.config.loss].value(log_p, view.log_targets.double())
    loss = losses.mean() + training.config.training.weight_decay / 2 * weight.square().sum()
    (gradient,) = torch.autograd.grad(loss, weight)
    return gradient


def gradient_before_a_pass(config: RunConfig) -> float:
    """Largest absolute value of the gradient in W when the last outer pass of a training begins."""
    training = start(config)
    found: list[float] = []
    run = training.outer.run

    def watched(epoch, val, solved):
        found.append(float(gradient_of_the_pass(training).abs().max()))
        assert torch.equal(val.logits, training.model.head(val.features)), "val is evaluated with the solved head"
        return run(epoch, val, solved)

    training.outer.run = watched
    list(training)
    return found[-1]


def test_the_inner_gradient_vanishes_before_a_pass_with_the_same_loss_and_the_same_views():
    precise = {"head.tolerance": 1e-4, "head.max_iterations": 500, "head.weight_decay": "training"}
    solved = gradient_before_a_pass(short_run("autodo-exact-ws+solved-head", **WS, **STILL, **precise))
    trained = gradient_before_a_pass(short_run("autodo-exact-ws", **{"method.loss": "kl"}, **STILL))
    posterior = gradient_before_a_pass(
        short_run(
            "autodo-exact-ws+posterior-head",
            **{**PASSES, **POSTERIOR, "head.balance": "none", **STILL, **precise},
        )
    )
    other_views = gradient_before_a_pass(short_run("autodo-exact-ws+solved-head", **WS, **precise))
    other_loss = gradient_before_a_pass(
        short_run("autodo-exact-ws+solved-head", **{**WS, "method.loss": "symmetric-kl"}, **STILL, **precise)
    )
    assert max(solved, posterior) < 0.01 * min(trained, other_views, other_loss)


def test_the_network_trains_on_from_the_solved_head_without_its_momentum():
    training = start(
        short_run("logit-adjustment+posterior-head", **{**PASSES, "head.start_share": 0, "training.ema": 0.9})
    )
    average = training.model.evaluated[1]
    written = []
    replace = training.model.replace_head

    def watched(head):
        before = average.weight.clone()
        replace(head)
        momenta = training.model.optimizer.state_dict()["state"]
        encoder = len(list(training.model.encoder.parameters()))
        assert set(momenta) == set(range(encoder)), "the encoder keeps its momentum"
        assert torch.equal(average.weight, before), "the average follows with the next steps"
        written.append((training.state.epoch, head))

    training.model.replace_head = watched
    training.train_epoch(0)
    (epoch, head) = written[0]
    assert epoch == 0
    for name, value in training.model.head.state_dict().items():
        assert torch.equal(value, head.state_dict()[name])
    again = training.head_solver.run((training.model.encoder, training.model.head)).head
    assert torch.equal(again.weight, head.weight), "it is solved for the encoder that trains"


@pytest.mark.parametrize(
    ("method", "overrides", "epochs"),
    [
        ("solved-head", {}, []),
        ("solved-head", PASSES, [2, 4, 6, 8]),
        ("solved-head", {**PASSES, "head.start_share": 0}, [0, 2, 4, 6, 8]),
        ("solved-head", {**PASSES, "head.every": 3, "head.start_share": 0.2}, [2, 5, 8]),
        ("solved-head", {**PASSES, "head.every": 1, "head.start_share": 0.8}, [8]),
        ("autodo-exact-ws+solved-head", {**PASSES, "outer.start_share": 0.6, "outer.every": 1}, [6, 7, 8, 9]),
        ("autodo-exact-ws+solved-head", {**PASSES, "outer.start_share": 0.6, "outer.every": 2}, [6, 8]),
    ],
)
def test_the_head_is_solved_before_each_pass_or_every_few_epochs(method, overrides, epochs):
    run = build_run("digits", method, overrides={"training.epochs": 10, "training.warmup_epochs": 1, **overrides})
    assert [epoch for epoch in range(10) if run.solves_head(epoch)] == epochs


@pytest.mark.parametrize("solve", ["final", "passes"])
def test_soft_labels_are_posteriors_of_the_head_that_is_solved_before_a_pass(solve):
    overrides = {**POSTERIOR, "head.solve": solve, "outer.every": 1}
    training = start(short_run("autodo-exact-ws+posterior-head", **overrides))
    train_size, points = training.loaders.train_size, torch.arange(training.loaders.train.total)
    observed = torch.nn.functional.one_hot(training.points.labels, training.points.classes).float()
    passes = []
    run = training.outer.run

    def watched(epoch, val, solved):
        targets = training.points.view(points).log_targets.exp()
        assert torch.equal(targets[train_size:], observed[train_size:]), "val points keep their labels"
        trained = training.model.encoder, training.model.head
        torch.testing.assert_close(targets[:train_size], training.head_solver.run(trained).posterior)
        passes.append(targets)
        return run(epoch, val, solved)

    training.outer.run = watched
    assert torch.equal(training.points.view(points).log_targets.exp(), observed), "observed labels at first"
    list(training)
    assert len(passes) == sum(map(training.config.has_outer_pass, range(training.config.training.epochs)))
    assert not torch.equal(passes[-1], passes[0])
    assert training.points.table.values.shape[1] == 1, "lambda has the weight only"


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        ("logit-adjustment+posterior-head", PASSES),
        ("autodo-exact-ws+solved-head", {**WS, "training.ema": 0.9}),
        ("autodo-exact-ws+posterior-head", {**POSTERIOR, "method.images": "train"}),
    ],
)
def test_an_interrupted_run_resumes_bit_for_bit(method, overrides, tmp_path: Path):
    config, path = short_run(method, **overrides), tmp_path / "checkpoint.pt"
    cut_before(2 * STEPS + EVERY + 2, start(config, path, checkpoint_steps=EVERY))
    assert_resumes_bit_for_bit(config, path, 2, EVERY)


@pytest.mark.parametrize(
    ("method", "overrides", "message"),
    [
        ("ldam-drw+solved-head", PASSES, "objective 'ldam-drw' trains a head of cosines: set head.solve=final, or"),
        ("autodo", PASSES, "objective 'label-posterior' trains a head of cosines"),
        ("finetune-head-on-val+solved-head", PASSES, "cannot be combined with finetune"),
        ("solved-head", {"head.every": 3}, "every (3) is only for solve 'passes', not for 'final'"),
        ("solved-head", {**PASSES, "head.every": 0}, "head.every: input should be greater than or equal to 1"),
        ("solved-head", {**PASSES, "head.start_share": 1}, "head.start_share: input should be less than 1"),
        ("autodo-exact-ws+solved-head", {**PASSES, "head.every": 2}, "whose times are those of outer.every"),
        ("autodo-exact-ws+solved-head", {**PASSES, "head.start_share": 0.1}, "are those of outer.start_share"),
        ("autodo-exact-ws+solved-head", POSTERIOR, "takes the posterior from a solved head: set head.labels=posterior"),
        ("autodo-exact-ws", POSTERIOR, "takes the posterior from a solved head: set head.labels=posterior"),
        (
            "autodo-exact-ws+posterior-head",
            {"points.soft_label": "posterior"},
            "needs method.loss=cross-entropy (and no other undistorted_loss), not 'symmetric-kl'",
        ),
        (
            "autodo-aw+posterior-head",
            POSTERIOR,
            "is for learn: [weight, soft-label], [augment, soft-label] or all three, not ['augment', 'weight']",
        ),
        ("autodo-exact-ws", {"points.soft_label": "guessed"}, "points.soft_label: input should be 'learned' or"),
    ],
)
def test_what_cannot_be_solved_in_training_is_refused_in_one_line(method, overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        build_run("digits", method, overrides=overrides)
    assert "\n" not in str(error.value)
