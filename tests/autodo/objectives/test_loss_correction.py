"""GLC and forward correction against their formulas, and against what their papers claim."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.errors import ConfigError
from autodo.evaluation import Evaluation
from autodo.objectives.loss_correction import corrected_cross_entropies, noise_of_confusion, scaled_rows
from autodo.training.trainer import Trainer
from tests.autodo.objectives.problem import CLASSES, context_of, network_of, objective_of, probabilities, step_of

SHORT = {"dataset.subsample": 600, "training.warmup_epochs": 1, "training.batch_size": 32}
METHODS = ["glc", "forward-correction"]


def val_outputs() -> Evaluation:
    """Outputs for 40 val images of all classes but the last one, mostly predicted rightly."""
    generator, labels = torch.Generator().manual_seed(5), torch.arange(40) % (CLASSES - 1)
    noise = torch.randn(40, CLASSES, generator=generator, dtype=torch.float64)
    return Evaluation(torch.zeros(40, 1), noise + 6 * F.one_hot(labels, CLASSES), labels, 40)


def confusion_of(val: Evaluation) -> np.ndarray:
    """Mean prediction over the images of each class, image by image."""
    rows = np.zeros((CLASSES, CLASSES))
    for z, label in zip(val.logits.numpy(), val.labels.tolist(), strict=True):
        rows[label] += np.exp(z) / np.exp(z).sum() / (val.labels == label).sum().item()
    rows[-1, -1] = 1  # the class without val images
    return rows


def points_by_label() -> np.ndarray:
    """Numbers of train points by clean and observed label."""
    return np.random.default_rng(0).integers(1, 6, (CLASSES, CLASSES)) + 20 * np.eye(CLASSES, dtype=int)


def train_outputs(val: Evaluation) -> Evaluation:
    """Outputs for train points, which are predicted like the val images of their clean class."""
    rows, count = np.log(confusion_of(val) + 1e-300), points_by_label()
    clean, observed = (np.repeat(labels.ravel(), count.ravel()) for labels in np.indices(count.shape))
    return Evaluation(torch.zeros(len(clean), 1), torch.from_numpy(rows[clean]), torch.from_numpy(observed), len(clean))


def matrix_of(method: str, val: Evaluation) -> np.ndarray:
    """T as it is meant to be."""
    if method == "glc":
        return confusion_of(val)
    counts = points_by_label()
    smoothed = counts + counts.sum(0) / counts.sum()
    return np.array([row / row.sum() for row in smoothed])


def part_of(outputs: Evaluation, part: slice) -> Evaluation:
    return Evaluation(outputs.features[part], outputs.logits[part], outputs.labels[part], outputs.total)


@pytest.mark.parametrize("method", METHODS)
def test_losses_follow_the_formula_in_each_stage(method):
    """10 epochs: plain cross-entropy in 5, of train points; then corrected for train points and plain for val."""
    network, objective, val = network_of(), objective_of(method), val_outputs()
    train, count = train_outputs(val), objective.train_size
    for epoch in (4, 5):
        step = step_of(epoch=epoch, first=count - 7)
        p = probabilities(network, step.pixels)
        expected = [-np.log(p[i, y]) for i, y in enumerate(step.labels)]
        if epoch == 5:
            matrix = matrix_of(method, val)
            expected[:7] = [-np.log(p[i] @ matrix[:, y]) for i, y in enumerate(step.labels[:7])]
        assert objective.losses(network, step).tolist() == pytest.approx(expected, rel=1e-9)
        objective.epoch_ended(epoch, val, lambda: (part_of(train, part) for part in (slice(0, 99), slice(99, None))))
    assert [epoch for epoch in range(10) if objective.prepares(epoch)] == [0, 1, 2, 3, 4]
    assert [epoch for epoch in range(10) if objective.restarts_network(epoch)] == [5]


@pytest.mark.parametrize("method", METHODS)
def test_the_matrix_of_two_workers_is_that_of_one(method):
    val, terms = val_outputs(), []
    train, objective = train_outputs(val), objective_of(method)

    class Summed:
        """Remembers the terms of the first worker and adds them to those of the second."""

        def __init__(self, before):
            self.before = iter(before)

        def all_reduce(self, tensor):
            terms.append(tensor)
            return tensor + next(self.before, 0)

    for part in (slice(None, None, 2), slice(1, None, 2)):
        objective.group = Summed(terms.copy())
        objective.epoch_ended(4, part_of(val, part), lambda part=part: [part_of(train, part)])
    np.testing.assert_allclose(objective.matrix, matrix_of(method, val), rtol=1e-9)


def test_a_singular_confusion_and_a_class_that_nobody_labels_leave_a_matrix_of_noise():
    """Two classes are predicted alike, and the last label does not occur."""
    confusion = torch.tensor([[0.8, 0.2, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    points = torch.tensor([[50, 5, 0], [10, 30, 0], [5, 25, 0]], dtype=torch.float64)
    matrix = noise_of_confusion(confusion, confusion.T @ points)
    torch.testing.assert_close(matrix.sum(1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(matrix[0, :2], torch.tensor([50.6, 5.4]).double() / 56, rtol=0.1, atol=0)
    torch.testing.assert_close(matrix[1], matrix[2])
    assert (matrix[:, :2] > 0).all()
    assert (matrix[:, 2] == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_oracle_takes_the_matrix_of_the_train_points_and_trains_once(method):
    options = {"overrides": {"objective.oracle": True}}
    objective, train = objective_of(method, **options), context_of(method, **options).data.train
    for c in range(CLASSES):
        observed = train.labels[train.clean_labels == c]
        expected = [(observed == y).mean() for y in range(CLASSES)]
        assert objective.matrix[c].tolist() == pytest.approx(expected, rel=1e-9)
    assert not objective.prepares(0)
    assert not objective.restarts_network(0)
    step = step_of()
    p = probabilities(network_of(), step.pixels)
    expected = [-np.log(p[i] @ objective.matrix[:, y].numpy()) for i, y in enumerate(step.labels)]
    assert objective.losses(network_of(), step).tolist() == pytest.approx(expected, rel=1e-9)


def test_a_matrix_without_noise_changes_no_loss():
    generator = torch.Generator().manual_seed(0)
    logits, labels = 5 * torch.randn(8, 4, generator=generator, dtype=torch.float64), torch.arange(8) % 4
    right = scaled_rows(torch.zeros(4, 4, dtype=torch.float64))
    found = corrected_cross_entropies(logits, labels, right)
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, reduction="none"), rtol=1e-9, atol=0)


def test_minimising_the_corrected_loss_on_noisy_labels_gives_the_clean_posterior():
    """Theorem 2 of Patrini et al., enumerated: three images, every label, 60% of labels moved to the next class.

    The minimiser of the plain loss is the posterior of the noisy labels, and prefers the wrong class everywhere.
    """
    clean = torch.tensor([[0.9, 0.06, 0.04], [0.1, 0.8, 0.1], [0.15, 0.15, 0.7]], dtype=torch.float64)
    matrix = 0.4 * torch.eye(3, dtype=torch.float64) + 0.6 * torch.eye(3, dtype=torch.float64).roll(1, 1)
    noisy = clean @ matrix
    found = {}
    for name, through in (("plain", torch.eye(3, dtype=torch.float64)), ("corrected", matrix)):
        logits = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def expected_loss(logits=logits, through=through, optimizer=optimizer):
            optimizer.zero_grad()
            losses = [corrected_cross_entropies(logits, torch.full((3,), y), through) for y in range(3)]
            loss = (noisy * torch.stack(losses, 1)).sum()
            loss.backward()
            return loss

        optimizer.step(expected_loss)
        found[name] = logits.detach().softmax(1)
    torch.testing.assert_close(found["plain"], noisy, rtol=0, atol=1e-7)
    torch.testing.assert_close(found["corrected"], clean, rtol=0, atol=1e-7)
    assert found["corrected"].argmax(1).tolist() == clean.argmax(1).tolist() == [0, 1, 2]
    assert found["plain"].argmax(1).tolist() == [1, 2, 0]


def test_the_first_training_sees_train_points_only_and_yields_no_classifier():
    config = build_run("digits", "glc", overrides={**SHORT, "training.epochs": 4})
    training = Trainer(config, prepare(load(config.dataset), config))
    initial = {name: value.clone() for name, value in training.model.head.state_dict().items()}
    losses, seen, starts = training.inner.objective.losses, {}, []

    def watched(network, step):
        if step.epoch not in seen:
            starts.append(
                all(torch.equal(initial[name], value) for name, value in training.model.head.state_dict().items())
            )
        seen.setdefault(step.epoch, []).extend(step.points.tolist())
        return losses(network, step)

    training.inner.objective.losses = watched
    data = training.context.data
    bests = [training.state.best is not None for _ in training]
    assert bests == [False, False, True, True]
    for epoch, points in seen.items():
        assert sorted(points) == list(range(len(data.train) + (epoch >= 2) * len(data.val)))
    assert starts == [True, False, True, False]
    lrs = [row["lr"] for row in training.state.history]
    assert lrs[1] == lrs[3] == pytest.approx(0, abs=1e-12), "each training has the whole schedule"


def test_corrected_training_learns_clean_classes_though_most_labels_are_wrong():
    """60% of the labels of each class are those of the next one: a plain classifier predicts the next class."""
    errors = {}
    for name, oracle in (("baseline", False), ("glc", True), ("glc", False), ("forward-correction", False)):
        config = build_run("digits", name, overrides={**SHORT, "training.epochs": 12, "objective.oracle": oracle})
        data = prepare(load(config.dataset), config)
        moved = np.random.default_rng(0).random(len(data.train)) < 0.6
        wrong = dataclasses.replace(data.train, labels=(data.train.clean_labels + moved) % CLASSES)
        training = Trainer(config, dataclasses.replace(data, train=wrong))
        errors[name, oracle] = list(training)[-1]["test_error"]
    # Seeds 0 to 2: at least 0.59 for baseline, at most 0.07 for the others.
    assert errors.pop(("baseline", False)) > 0.5
    assert max(errors.values()) < 0.3


def test_settings_that_leave_no_first_training_are_refused():
    with pytest.raises(ConfigError, match=r"objective 'glc' needs method\.images .*, not 'val'"):
        build_run("digits", "glc", overrides={"method.images": "val"})
    with pytest.raises(ConfigError, match="objective 'glc' trains two networks in turn, and has 1 epoch for both"):
        build_run("digits", "glc", overrides={"training.epochs": 1, "training.warmup_epochs": 0})
