"""The posterior of the clean label, on a population whose distribution is known."""

import pytest
import torch

from autodo.points import posterior as module
from autodo.points.posterior import Confusion, label_joint, label_posterior

# P(image | clean label): 4 kinds of images, 3 classes. Then the clean labels' shares, and P(observed | clean).
IMAGES = torch.tensor([[0.7, 0.2, 0.1, 0.0], [0.1, 0.2, 0.6, 0.1], [0.0, 0.3, 0.1, 0.6]], dtype=torch.float64)
SHARES = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
FLIPS = torch.tensor([[0.8, 0.1, 0.1], [0.3, 0.7, 0.0], [0.2, 0.0, 0.8]], dtype=torch.float64)
CLASSES = 3
PREDICTIONS = (IMAGES / IMAGES.sum(0)).T  # of each kind of image, under a uniform prior
COUNT = 1_000_000


def population(joint: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Kinds and labels of images in proportion to joint[kind, label]."""
    numbers = (COUNT * joint).round().long().flatten()
    index = torch.repeat_interleave(torch.arange(len(numbers)), numbers)
    return index // joint.shape[1], index % joint.shape[1]


def test_the_joint_distribution_and_the_posterior_are_those_of_bayes(monkeypatch):
    monkeypatch.setattr(module, "ITERATIONS", 5000)
    truth = SHARES[:, None] * FLIPS
    kinds, labels = population(IMAGES.T @ truth)
    val_kinds, val_labels = population(IMAGES.T / CLASSES)
    joint = label_joint(PREDICTIONS[kinds], labels, Confusion.of(PREDICTIONS[val_kinds], val_labels))
    torch.testing.assert_close(joint, truth, rtol=0, atol=1e-4)
    # P(clean | kind, observed): independent of the kind given the clean label.
    kind, label = torch.arange(4).repeat_interleave(CLASSES), torch.arange(CLASSES).repeat(4)
    bayes = IMAGES.T[kind] * truth.T[label]
    expected = bayes / bayes.sum(1, keepdim=True)
    torch.testing.assert_close(label_posterior(PREDICTIONS[kind], joint, label), expected, rtol=0, atol=5e-3)


def drawn(flips: torch.Tensor, val_size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, Confusion]:
    """Predictions and labels of 3,000 train points, and the confusion of val images, all drawn at random."""
    generator = torch.Generator().manual_seed(seed)

    def draw(chances: torch.Tensor) -> torch.Tensor:
        return torch.multinomial(chances, 1, generator=generator)[:, 0]

    clean, val_labels = draw(SHARES.expand(3000, -1)), torch.arange(val_size) % CLASSES
    val = Confusion.of(PREDICTIONS[draw(IMAGES[val_labels])], val_labels)
    return PREDICTIONS[draw(IMAGES[clean])], draw(flips[clean]), val


def test_correct_labels_are_found_unexplained_once_on_average():
    values = []
    for seed in range(20):
        predictions, labels, val = drawn(torch.eye(CLASSES, dtype=torch.float64), 300, seed)
        sums = module.class_sums(predictions, labels).T
        values.append(val.unexplained(sums, torch.diag(sums.sum(0))))
    assert 0.5 < sum(values) / 20 < 1.5


def test_a_confusion_that_val_never_showed_is_no_evidence_against_rare_classes():
    """Ten classes, confident predictions, 4 points in each rare class, so that one image can outweigh all others."""
    centres = 1.2 * torch.randn(10, 6, generator=torch.Generator().manual_seed(7))
    labels = torch.arange(10).repeat_interleave(torch.tensor([400] * 5 + [4] * 5))
    val_labels = torch.arange(1000) % 10
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        images = [centres[kind] + torch.randn(len(kind), 6, generator=generator) for kind in (val_labels, labels)]
        val, train = ((-1.5 * torch.cdist(x, centres).square()).softmax(1).double() for x in images)
        sums = module.class_sums(train, labels).T
        assert Confusion.of(val, val_labels).unexplained(sums, torch.diag(sums.sum(0))) < module.UNEXPLAINED


@pytest.mark.parametrize("val_size", [0, 1, 3, 300])
def test_correct_labels_stay(val_size):
    predictions, labels, val = drawn(torch.eye(CLASSES, dtype=torch.float64), val_size, 0)
    joint = label_joint(predictions, labels, val)
    assert (joint > 0).all()
    assert joint.diag().sum() > 0.99


def test_wrong_labels_are_found_with_enough_val_images_only():
    wrong = 1 - float((SHARES[:, None] * FLIPS).diag().sum())
    few, many = (1 - float(label_joint(*drawn(FLIPS, size, 0)).diag().sum()) for size in (3, 300))
    assert few < 0.01
    assert many == pytest.approx(wrong, abs=0.05)


def test_labels_of_classes_that_look_alike_stay():
    """All images have the same predictions, so nothing is known about the labels."""
    predictions, labels = torch.full((1000, CLASSES), 1 / CLASSES), torch.arange(1000) % CLASSES
    joint = label_joint(predictions, labels, Confusion.of(predictions, labels))
    assert (label_posterior(predictions, joint, labels).argmax(1) == labels).all()


def test_without_confusion_the_joint_distribution_is_the_count_of_predictions_and_labels():
    """One image of each class is added, distributed by the sums of rows and columns."""
    predictions = torch.eye(3, dtype=torch.float64)[[0, 0, 0, 1, 1, 2]]
    labels, val = torch.tensor([0, 0, 1, 1, 1, 2]), torch.arange(3).repeat(1000)
    joint = label_joint(predictions, labels, Confusion.of(torch.eye(3)[val], val))
    counts = torch.tensor([[2, 1, 0], [0, 2, 0], [0, 0, 1]], dtype=torch.float64)
    rows, columns = counts.sum(1) + 1, counts.sum(0) + 1
    expected = (counts + 3 * rows[:, None] * columns / (rows.sum() * columns.sum())) / 9
    torch.testing.assert_close(joint, expected, rtol=1e-9, atol=0)
