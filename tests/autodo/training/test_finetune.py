"""Epochs in which only the head is trained."""

import pytest
import torch

from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.errors import ConfigError
from autodo.training.trainer import Trainer

SHORT = {"training.epochs": 6, "training.warmup_epochs": 1, "dataset.subsample": 400}


def start(method: str = "finetune-head-on-val", **overrides) -> Trainer:
    overrides = {
        **SHORT,
        "finetune.share": 0.34,
        **{name.replace("__", "."): value for name, value in overrides.items()},
    }
    config = build_run("digits", method, overrides=overrides)
    return Trainer(config, prepare(load(config.dataset), config))


def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("method", ["finetune-head-on-val", "class-balanced-finetune-on-val"])
def test_only_the_head_moves_and_only_in_the_last_epochs(method):
    training = start(method)
    assert training.config.finetune_start == 4
    encoder, head = copied(training.model.encoder), copied(training.model.head)
    for row in training:
        moved = [
            name for name, value in training.model.encoder.state_dict().items() if not torch.equal(value, encoder[name])
        ]
        assert bool(moved) == (row["epoch"] < 4), "batch norm's statistics included"
        assert not torch.equal(training.model.head.weight, head["weight"])
        images = 4 * 80 if row["epoch"] < 4 else 80
        assert row["images_per_second"] * row["inner_seconds"] == pytest.approx(images)
        encoder, head = copied(training.model.encoder), copied(training.model.head)


def test_the_first_epochs_are_a_shorter_run_and_finetuning_has_its_own_cosine():
    rows = list(start(finetune__lr=0.02))
    config = build_run("digits", "baseline", overrides={**SHORT, "training.epochs": 4})
    shorter = list(Trainer(config, prepare(load(config.dataset), config)))
    for column in ("train_loss", "val_loss", "test_error", "lr"):
        assert [row[column] for row in rows[:4]] == [row[column] for row in shorter]
    assert [row["lr"] for row in rows[4:]] == pytest.approx([0.01, 0], abs=1e-12)


def test_one_step_is_sgd_of_the_mean_cross_entropy():
    training = start(training__batch_size=1000, augmentation__crop_padding=0, finetune__lr=0.3)
    for row in training:
        if row["epoch"] == 3:
            break
    weight, bias = (value.detach().double().requires_grad_() for value in training.model.head.parameters())
    with torch.no_grad():
        images = training.loaders.val.images[torch.arange(len(training.loaders.val.labels))]
        features = training.model.encoder.eval()(training.model.pipeline.test_view(images)).double()
    loss = torch.nn.functional.cross_entropy(features @ weight.T + bias, training.loaders.val.labels)
    slopes = torch.autograd.grad(loss, (weight, bias))
    result = training.finetune.run(4)
    lr = result.lr
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    assert lr == pytest.approx(0.15)
    for parameter, before, slope in zip(training.model.head.parameters(), (weight, bias), slopes, strict=True):
        # Nesterov's first step goes 1.9 times as far.
        expected = before - lr * 1.9 * (slope + 1e-4 * before)
        torch.testing.assert_close(parameter.double(), expected, rtol=1e-4, atol=1e-6)


def test_class_balanced_draws_every_class_equally_often():
    training = start("class-balanced-finetune-on-val")
    finetune = training.finetune
    labels = torch.arange(5).repeat_interleave(torch.tensor([2000, 500, 100, 20, 5]))
    finetune.val = finetune.val._replace(labels=labels)
    drawn = finetune._draw(torch.Generator().manual_seed(0))
    assert len(drawn) == len(labels)
    counts = torch.bincount(labels[drawn])
    assert (counts - 525).abs().max() < 4 * (2625 * 0.2 * 0.8) ** 0.5, "four deviations"
    assert len(set(drawn[labels[drawn] == 0].tolist())) > 300, "all over the class"


def test_a_finetune_that_leaves_no_epoch_after_the_warm_up_is_refused():
    with pytest.raises(ConfigError, match=r"finetune.share \(0.9\) leaves 1 epochs before .*warmup_epochs \(1\)"):
        start(finetune__share=0.9)


def test_the_optimizer_of_the_head_can_be_restored():
    training = start()
    list(training)
    fresh = start().finetune
    fresh.optimizer.load_state_dict(training.finetune.optimizer.state_dict())
    ours, theirs = (tune.optimizer.state_dict()["state"] for tune in (fresh, training.finetune))
    assert ours.keys() == theirs.keys() == {0, 1}, "the head's weight and bias"
    assert all(torch.equal(ours[i]["momentum_buffer"], theirs[i]["momentum_buffer"]) for i in ours)
