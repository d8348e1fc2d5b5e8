"""Co-teaching against a loop over points, and against what its paper claims."""

import copy

import numpy as np
import pytest
import torch

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.objectives.co_teaching import CoTeachingLoss, small_losses
from autodo.results.classifier import Classifier
from autodo.training.trainer import Trainer
from tests.autodo.objectives.problem import context_of, network_of, objective_of, probabilities, step_of


def with_peer(**settings) -> CoTeachingLoss:
    """The objective of a run of 10 epochs, with a peer in float64 that takes plain gradient steps."""
    overrides = {f"objective.{name}": value for name, value in settings.items()}
    overrides |= {"training.momentum": 0, "training.weight_decay": 0}
    objective = objective_of("co-teaching", overrides=overrides)
    for module in (objective.encoder, objective.head):
        module.double()
    return objective


def kept_by_hand(losses: np.ndarray, rate: float, train: int) -> list[int]:
    """Positions of a batch whose first `train` points are train points, and the others trusted."""
    order = sorted(range(train), key=lambda i: losses[i])
    return [*order[: int((1 - rate) * train)], *range(train, len(losses))]


@pytest.mark.parametrize(("epoch", "rate"), [(0, 0.0), (1, 0.15), (2, 0.3), (9, 0.3)])
def test_both_networks_learn_from_the_points_that_the_other_selects(epoch, rate):
    """A rate of 0.3 that rises over 2 of 10 epochs; the last 3 points of the batch are trusted."""
    objective, network = with_peer(forget_rate=0.3, gradual=0.2), network_of()
    step = step_of(epoch=epoch, first=objective.train_size - 9)
    peer = copy.deepcopy(objective.peer)
    losses = [
        np.array([-np.log(p[y]) for p, y in zip(probabilities(model, step.pixels), step.labels.tolist(), strict=True)])
        for model in (network, peer)
    ]
    by_own, by_peer = (kept_by_hand(values, rate, 9) for values in losses)
    expected = [12 / len(by_peer) * losses[0][i] if i in by_peer else 0 for i in range(12)]
    assert objective.losses(network, step).tolist() == pytest.approx(expected, rel=1e-9)
    assert len(by_own) == {0.0: 12, 0.15: 10, 0.3: 9}[rate]

    mean = sum(-peer(step.pixels).log_softmax(1)[i, step.labels[i]] for i in by_own) / len(by_own)
    slopes = torch.autograd.grad(mean, list(peer.parameters()))
    for before, slope, after in zip(peer.parameters(), slopes, objective.peer.parameters(), strict=True):
        torch.testing.assert_close(after, before - step.lr * slope, rtol=1e-9, atol=1e-12)


def test_at_least_one_point_stays():
    losses, nobody = torch.tensor([3.0, 1.0, 2.0]), torch.zeros(3, dtype=torch.bool)
    assert small_losses(losses, nobody, 0.9).tolist() == [False, True, False]
    assert small_losses(losses, nobody, 0.5).tolist() == [False, True, False]
    assert small_losses(losses, nobody, 0.0).tolist() == [True, True, True]
    assert small_losses(losses, torch.tensor([True, False, False]), 0.5).tolist() == [True, True, False]


def test_the_rate_is_by_default_the_share_of_wrong_labels():
    data = context_of("co-teaching").data.train
    assert objective_of("co-teaching").forget_rate == pytest.approx((data.labels != data.clean_labels).mean())


def training_of(**overrides) -> Trainer:
    distortion = DistortionConfig(noise_ratio=0.4)
    values = {"training.epochs": 8, "training.warmup_epochs": 1, "training.batch_size": 32, **overrides}
    config = build_run("digits", "co-teaching", distortion=distortion, overrides=values)
    return Trainer(config, prepare(load(config.dataset), config))


def test_selected_points_have_right_labels_more_often_than_the_data():
    """Label precision in the last epoch (Han et al. 2018, section 4) of both networks."""
    training = training_of(**{"dataset.subsample": 800})
    objective, train = training.inner.objective, training.context.data.train
    right = torch.from_numpy(train.labels == train.clean_labels)
    losses, chosen = objective.losses, []

    def watched(network, step):
        result = losses(network, step)
        if step.epoch == 7:
            chosen.append(right[step.points[result > 0]])
        return result

    objective.losses = watched
    list(training)
    assert right.float().mean() < 0.65
    assert torch.cat(chosen).float().mean() > 0.85  # seeds 0 to 2: at least 0.93


def test_the_saved_classifier_is_the_first_network(tmp_path):
    training = training_of(**{"training.epochs": 2, "dataset.subsample": 300})
    list(training)
    objective, model = training.inner.objective, training.model
    assert not torch.equal(objective.head.weight, model.head.weight)
    outcome = training.outcome()
    outcome.classifier.save(tmp_path / "classifier.pt")
    images = torch.from_numpy(training.context.data.test.images.read())
    predictions = Classifier.load(tmp_path / "classifier.pt")(images).argmax(1)
    assert torch.equal(predictions, training.state.best.predictions)
    head = training.state.best.head["weight"]
    assert torch.equal(outcome.classifier.head.weight, head)
