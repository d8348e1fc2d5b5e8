"""Runs whose head is solved after the last epoch."""

import re

import pytest
import torch

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data import load, prepare
from autodo.errors import ConfigError
from autodo.results.classifier import Classifier
from autodo.testing.oracles import class_terms, plain_loss
from autodo.training.head_solver import SolvePoints
from autodo.training.trainer import Trainer

SHORT = {"training.epochs": 5, "training.warmup_epochs": 1, "dataset.subsample": 500}


def run_of(method: str, **overrides) -> RunConfig:
    overrides = {**SHORT, **{name.replace("__", "."): value for name, value in overrides.items()}}
    return build_run("digits", method, distortion=DistortionConfig.parse("5-0.3"), overrides=overrides)


def trained(config: RunConfig) -> Trainer:
    training = Trainer(config, prepare(load(config.dataset), config))
    list(training)
    return training


@pytest.mark.parametrize(
    "method", ["ldam-drw+solved-head", "autodo-exact-ws+solved-head", "posterior-head", "crt", "dfr", "autodo"]
)
def test_the_solved_head_is_that_of_the_classifier_and_training_is_as_without_it(method, tmp_path):
    training = trained(run_of(method, **({"head__labels": "learned"} if "exact" in method else {})))
    outcome = training.outcome()
    (row,) = outcome.results.to_pylist()
    assert row["error_last"] == training.state.history[-1]["test_error"]
    assert row["best_val_epoch"] == 4
    assert row["seconds"] > sum(entry["inner_seconds"] for entry in training.state.history)
    outcome.classifier.save(tmp_path / "classifier.pt")
    test = training.context.data.test
    images = training.loaders.test.images[torch.arange(len(test))]
    predicted = Classifier.load(tmp_path / "classifier.pt")(images).argmax(1).numpy()
    assert outcome.predictions["prediction"].to_pylist() == predicted.tolist()
    assert row["error_best_val"] == pytest.approx((predicted != test.labels).mean())
    again = training.outcome()
    assert again.predictions.equals(outcome.predictions), "a solve changes no state"
    soft = outcome.points["soft_label"].null_count == 0
    assert soft == (method in ("posterior-head", "autodo", "autodo-exact-ws+solved-head"))


def test_solving_does_not_change_the_training():
    plain, solved = trained(run_of("ldam-drw")), trained(run_of("ldam-drw+posterior-head"))
    for one, other in zip(plain.model.network.parameters(), solved.model.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_predictions_for_the_posterior_do_not_depend_on_the_label_of_the_point():
    training = trained(run_of("train+val+posterior-head"))
    solver, inner = training.head_solver, training.evaluator.evaluate(training.loaders.train)
    theta, targets = torch.zeros(10, 65), torch.nn.functional.one_hot(inner.labels, 10).float()
    before = solver._held_out_predictions(theta, SolvePoints(inner, targets, torch.ones(len(targets))), 1e-3)
    generator = training.context.generator("folds of the head", 0)
    fold = torch.randperm(len(targets), generator=generator) % 5 == 2
    targets[fold] = targets[fold].roll(1, 1)
    after = solver._held_out_predictions(theta, SolvePoints(inner, targets, torch.ones(len(targets))), 1e-3)
    assert torch.equal(before[fold], after[fold])
    assert not torch.equal(before[~fold], after[~fold])


def test_random_labels_are_solved_with_a_larger_weight_decay_than_correct_ones():
    training = trained(run_of("solved-head"))
    solver, inner = training.head_solver, training.evaluator.evaluate(training.loaders.train)
    clean = torch.from_numpy(training.context.data.train.clean_labels)
    shuffled = clean[torch.randperm(len(clean), generator=torch.Generator().manual_seed(0))]
    chosen = []
    for labels in (clean, shuffled):
        targets = torch.nn.functional.one_hot(labels, 10).float()
        chosen.append(solver._weight_decay(SolvePoints(inner, targets, torch.ones(len(targets)))))
    assert chosen[0] < chosen[1]


def test_the_solve_begins_with_the_labels_of_training():
    training = trained(run_of("autodo", head__rounds=0))
    points = training.outcome().points["soft_label"].to_pylist()
    learned = training.inner.objective.soft_labels()[: len(points)]
    torch.testing.assert_close(torch.tensor(points), learned)


def test_the_last_epoch_can_be_selected():
    run = run_of("baseline", training__selection="last")
    (row,) = trained(run).outcome().results.to_pylist()
    assert (row["best_val_epoch"], row["error_best_val"]) == (4, row["error_last"])


@pytest.mark.parametrize(
    ("method", "overrides", "message"),
    [
        ("dfr", {"head.labels": "posterior"}, "is for train points, and the head is solved on val alone"),
        ("val-only+posterior-head", {}, "is for train points"),
        (
            "solved-head",
            {"training.weight_decay": 0, "head.weight_decay": "training"},
            "'training' needs training.weight_decay above 0",
        ),
        ("solved-head", {"head.tolerance": 0}, "head.tolerance: input should be greater than 0, not 0"),
        ("posterior-head", {"head.folds": 1}, "head.folds: input should be greater than or equal to 2, not 1"),
        (
            "solved-head",
            {"head.balance": "prior"},
            "head.balance: input should be 'shift', 'weights', 'loss' or 'none'",
        ),
        (
            *("solved-head+mixup", {"head.balance": "loss"}),
            "head.balance 'loss' is for the plain train loss and for class-balanced, logit-adjustment, not for "
            "objective 'mixup'",
        ),
        ("autodo", {"method.images": "train"}, "needs method.images=train+val"),
    ],
)
def test_a_head_that_cannot_be_solved_is_refused_in_one_line(method, overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        build_run("digits", method, overrides=overrides)
    assert "\n" not in str(error.value)


def test_a_head_on_val_is_refused_if_val_is_the_test_set():
    with pytest.raises(ConfigError, match=r"head.images 'val' trains on val, which .* the test images"):
        build_run("digits", "dfr", split="test-as-val")


@pytest.mark.parametrize("objective", ["logit-adjustment", "class-balanced"])
def test_a_head_balanced_like_the_loss_is_at_the_minimum_of_the_inner_problem(objective):
    """The gradient of the train loss on plain images vanishes there, and not with another balance.

    KL and cross-entropy have the same gradient in theta.
    """
    settings = {"method__loss": "kl", "head__labels": "learned", "outer__lr": 0.5}
    settings |= {"head__tolerance": 1e-5, "head__max_iterations": 2000, "head__weight_decay": "training"}
    training = trained(run_of(f"autodo-exact-ws+{objective}+solved-head", **settings))
    inner = training.evaluator.evaluate(training.loaders.train)
    view = training.points.view(torch.arange(len(inner.labels)))
    shift, class_weights = (terms.float() for terms in class_terms(training))
    weights, decay = class_weights[inner.labels] * view.weights, training.config.training.weight_decay
    slopes = {}
    for balance in ("loss", "shift", "none"):
        training.head_solver.config = training.config.head.model_copy(update={"balance": balance})
        head = training.head_solver.run().head
        losses = weights * plain_loss("cross-entropy", head(inner.features) + shift, view.log_targets.exp())
        (slope,) = torch.autograd.grad(losses.mean() + decay / 2 * head.weight.square().sum(), head.weight)
        slopes[balance] = float(slope.abs().max())
    assert slopes["loss"] < 0.1 * min(slopes["shift"], slopes["none"]), slopes


def test_settings_of_a_head_do_not_reach_methods_without_one():
    assert build_run("digits", "baseline", overrides={"head.rounds": 3}) == build_run("digits", "baseline")
