"""The loss with posteriors of clean labels, against a loop over points in numpy."""

import dataclasses

import numpy as np
import pytest
import torch

from autodo.models.cosine_head import CosineHead
from autodo.objectives import build_objective
from autodo.points import posterior as posterior_module
from autodo.points.posterior import Confusion, label_joint
from tests.autodo.objectives.problem import CLASSES, context_of, network_of, objective_of, step_of


def objective():
    """Of 25 train points and 15 val points; both are among the 40 of a step."""
    context = context_of("autodo")
    labels = step_of(40).labels
    return build_objective(dataclasses.replace(context, labels=labels, train_size=25))


def softmax(values: np.ndarray) -> np.ndarray:
    p = np.exp(values - values.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize("weighted", [False, True])
def test_losses_are_those_of_ldam_with_soft_labels_and_their_class_sizes(weighted, monkeypatch):
    monkeypatch.setattr(posterior_module, "UNEXPLAINED", 0.0)
    network, posterior = network_of(head=CosineHead(6, CLASSES, 30)), objective()
    first, second = (step_of(40, epoch=epoch) for epoch in (0, 8 if weighted else 1))
    logits = network(first.pixels).detach().numpy()
    posterior.losses(network, first)
    losses = posterior.losses(network, second).tolist()

    # One prediction so far: the running mean is in proportion to it.
    p, y = softmax(logits / 3), first.labels.numpy()
    train, val = torch.from_numpy(p).split([25, 15])
    joint = label_joint(train, first.labels[:25], Confusion.of(val, first.labels[25:])).numpy()
    q = np.eye(CLASSES)[y]
    for i in range(25):
        q[i] = p[i] * joint[:, y[i]] / (p[i] * joint[:, y[i]]).sum()
    sizes = np.maximum(q.sum(0), 1)
    margins = 0.5 * (sizes.min() / sizes) ** 0.25
    weights = sizes.sum() / (CLASSES * sizes) if weighted else np.ones(CLASSES)
    shifted = logits - 30 * margins * q
    expected = -(weights * q * np.log(softmax(shifted))).sum(1)
    assert losses == pytest.approx(expected.tolist(), rel=1e-4)


def test_the_first_epoch_is_that_of_ldam():
    network = network_of(head=CosineHead(6, CLASSES, 30))
    step = step_of(40)._replace(labels=context_of("autodo").labels[:40])
    ldam = objective_of("train+val+ldam-drw").losses(network, step)
    torch.testing.assert_close(objective_of("autodo").losses(network, step), ldam, rtol=1e-5, atol=1e-5)


def test_a_prediction_moves_the_labels_only_from_the_next_epoch_on():
    """A point's labels in an epoch do not depend on the order of the batches."""
    network, posterior = network_of(head=CosineHead(6, CLASSES, 30)), objective()
    network.eval()
    posterior.losses(network, step_of(40))
    later = step_of(40, epoch=1)
    halves = [
        later._replace(points=later.points[part], pixels=later.pixels[part], labels=later.labels[part])
        for part in (slice(25, 40), slice(25))
    ]
    parts = [posterior.losses(network, half) for half in halves]
    other = objective()
    other.losses(network, step_of(40))
    torch.testing.assert_close(torch.cat([parts[1], parts[0]]), other.losses(network, later))
