"""The posterior of the clean label, on a population whose distribution is known."""

import torch

from autodo.points.posterior import confusion, label_joint, label_posterior

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


def test_the_joint_distribution_and_the_posterior_are_those_of_bayes():
    truth = SHARES[:, None] * FLIPS
    kinds, labels = population(IMAGES.T @ truth)
    val_kinds, val_labels = population(IMAGES.T / CLASSES)
    confused = confusion(PREDICTIONS[val_kinds], val_labels)
    joint = label_joint(PREDICTIONS[kinds], labels, confused, iterations=5000)
    torch.testing.assert_close(joint, truth, rtol=0, atol=1e-4)
    # P(clean | kind, observed): independent of the kind given the clean label.
    kind, label = torch.arange(4).repeat_interleave(CLASSES), torch.arange(CLASSES).repeat(4)
    bayes = IMAGES.T[kind] * truth.T[label]
    expected = bayes / bayes.sum(1, keepdim=True)
    torch.testing.assert_close(label_posterior(PREDICTIONS[kind], joint, label), expected, rtol=0, atol=5e-3)


def test_few_val_images_and_classes_that_look_alike_give_a_distribution():
    predictions = torch.full((5, CLASSES), 1 / CLASSES)
    labels = torch.tensor([0, 0, 1, 1, 1])
    for val_labels in (torch.tensor([0]), torch.tensor([0, 1, 2]), torch.empty(0, dtype=torch.int64)):
        confused = confusion(predictions[: len(val_labels)], val_labels)
        joint = label_joint(predictions, labels, confused)
        posterior = label_posterior(predictions, joint, labels)
        assert (joint > 0).all()
        torch.testing.assert_close(posterior.sum(1), torch.ones(5))
    torch.testing.assert_close(confusion(predictions[:0], torch.empty(0, dtype=torch.int64)), torch.eye(3).double())


def test_labels_of_classes_that_look_alike_stay_as_they_are():
    """All images have the same predictions, so nothing is known about the labels."""
    predictions, labels = torch.full((1000, CLASSES), 1 / CLASSES), torch.arange(1000) % CLASSES
    joint = label_joint(predictions, labels, torch.full((CLASSES, CLASSES), 1 / CLASSES, dtype=torch.float64))
    assert joint.diag().sum() > 0.99
    posterior = label_posterior(predictions, joint, labels)
    assert (posterior.argmax(1) == labels).all()


def test_without_confusion_the_joint_distribution_is_the_count_of_predictions_and_labels():
    """One image of each class is added, distributed by the sums of rows and columns."""
    predictions = torch.eye(3, dtype=torch.float64)[[0, 0, 0, 1, 1, 2]]
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    joint = label_joint(predictions, labels, torch.eye(3, dtype=torch.float64))
    counts = torch.tensor([[2, 1, 0], [0, 2, 0], [0, 0, 1]], dtype=torch.float64)
    rows, columns = counts.sum(1) + 1, counts.sum(0) + 1
    expected = (counts + 3 * rows[:, None] * columns / (rows.sum() * columns.sum())) / 9
    torch.testing.assert_close(joint, expected, rtol=1e-12, atol=0)
