"""Every train loss against its formula, computed point by point with numpy."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autodo.config.objective import ObjectiveConfig
from autodo.errors import ConfigError
from autodo.losses import LOSSES
from autodo.models.cosine_head import CosineHead
from autodo.objectives import OBJECTIVES
from autodo.objectives.early_learning import early_learning_losses
from autodo.objectives.imbalance import effective_number_weights, label_aware_margins, with_margins
from autodo.objectives.robust import generalised_cross_entropies
from tests.autodo.objectives.problem import CLASSES, context_of, network_of, objective_of, probabilities, step_of


def losses_of(method: str, step, network, **options) -> list[float]:
    return objective_of(method, **options).losses(network, step).tolist()


def counts_of(labels: np.ndarray) -> list[int]:
    return [max(int((labels == c).sum()), 1) for c in range(CLASSES)]


def test_every_kind_has_a_class():
    union, *_ = get_args(ObjectiveConfig)
    assert [member().kind for member in get_args(union)] == list(OBJECTIVES)


def test_plain_is_the_weighted_loss_of_the_view():
    network, step = network_of(), step_of()
    weighted = step._replace(view=step.view._replace(weights=torch.linspace(0, 2, 12, dtype=torch.float64)))
    log_p = network(step.pixels).log_softmax(1)
    expected = weighted.view.weights * LOSSES["cross-entropy"].value(log_p, step.view.log_targets)
    assert losses_of("baseline", weighted, network) == expected.tolist()


def test_label_smoothing():
    network, step = network_of(), step_of()
    expected = []
    for p, label in zip(probabilities(network, step.pixels), step.labels, strict=True):
        target = np.full(CLASSES, 0.1 / CLASSES)
        target[label] += 0.9
        expected.append(-(target * np.log(p)).sum())
    assert losses_of("label-smoothing", step, network) == pytest.approx(expected, rel=1e-9)


def test_generalised_cross_entropy():
    network, step = network_of(), step_of()
    p = probabilities(network, step.pixels)
    expected = [(1 - p[i, label] ** 0.7) / 0.7 for i, label in enumerate(step.labels)]
    assert losses_of("gce", step, network) == pytest.approx(expected, rel=1e-9)


def test_generalised_cross_entropy_lies_between_cross_entropy_and_absolute_error():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(20, 5, generator=generator, dtype=torch.float64), torch.arange(20) % 5
    nearly = generalised_cross_entropies(logits, labels, 1e-9)
    torch.testing.assert_close(nearly, F.cross_entropy(logits, labels, reduction="none"), rtol=1e-6, atol=0)
    absolute = (logits.softmax(1) - F.one_hot(labels, 5)).abs().sum(1) / 2
    torch.testing.assert_close(generalised_cross_entropies(logits, labels, 1), absolute)


def test_effective_numbers():
    """beta = 0.9: 1, 2 and 10 images count as 1, 1.9 and 6.513 (1 + 0.9 + 0.81 + ...)."""
    effective = [sum(0.9**k for k in range(n)) for n in (1, 2, 10)]
    assert effective == pytest.approx([1, 1.9, 6.5132155990])
    inverse = [1 / number for number in effective]
    expected = [3 * value / sum(inverse) for value in inverse]
    weights = effective_number_weights(torch.tensor([1.0, 2.0, 10.0], dtype=torch.float64), 0.9)
    assert weights.tolist() == pytest.approx(expected)
    assert float(weights.sum()) == pytest.approx(3)


@pytest.mark.parametrize("oracle", [False, True])
@pytest.mark.parametrize("split", ["paper", "union"])
def test_class_balanced(oracle, split):
    options = {"overrides": {"objective.oracle": oracle}, "split": split}
    data = context_of("class-balanced", **options).data
    labels = data.train.clean_labels if oracle else data.train.labels
    counts = counts_of(np.concatenate([labels, data.val.labels]) if split == "union" else labels)
    inverse = [(1 - 0.9999) / (1 - 0.9999**n) for n in counts]
    network, step = network_of(), step_of(40)
    p = probabilities(network, step.pixels)
    expected = [-CLASSES * inverse[y] / sum(inverse) * np.log(p[i, y]) for i, y in enumerate(step.labels)]
    assert losses_of("class-balanced", step, network, **options) == pytest.approx(expected, rel=1e-6)


def test_observed_and_clean_counts_differ_and_val_only_counts_val():
    context = context_of("class-balanced")
    observed, clean = (context.class_counts(oracle=oracle).tolist() for oracle in (False, True))
    assert observed == counts_of(context.data.train.labels)
    assert clean == counts_of(context.data.train.clean_labels) != observed
    val = context_of("val-only+class-balanced")
    assert val.class_counts(oracle=False).tolist() == counts_of(val.data.val.labels)


def test_logit_adjustment():
    counts = counts_of(context_of("logit-adjustment").data.train.labels)
    network, step = network_of(), step_of()
    p = probabilities(network, step.pixels)
    # exp(f + log share) is proportional to p * share.
    expected = [-np.log(p[i, y] * counts[y] / (p[i] * counts).sum()) for i, y in enumerate(step.labels)]
    assert losses_of("logit-adjustment", step, network) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", ["class-balanced", "logit-adjustment"])
def test_with_learned_lambda_the_loss_is_that_of_soft_labels_and_weights(method):
    """Symmetric KL between q and the shifted predictions, times the weights of point and class."""
    method, network, step = f"autodo-exact-ws+{method}", network_of(), step_of()
    generator = torch.Generator().manual_seed(2)
    q = torch.rand(12, CLASSES, generator=generator, dtype=torch.float64).softmax(1)
    w = torch.linspace(0.2, 2, 12, dtype=torch.float64)
    step = step._replace(view=step.view._replace(weights=w, log_targets=q.log()))
    counts = np.array(counts_of(context_of(method).data.train.labels))
    p = probabilities(network, step.pixels)
    v = np.ones(CLASSES)
    if "class-balanced" in method:
        v = (1 - 0.9999) / (1 - 0.9999**counts)
        v *= CLASSES / v.sum()
    else:
        p = p * counts / (p * counts).sum(1, keepdims=True)
    divergence = ((p - q.numpy()) * np.log(p / q.numpy())).sum(1) / 2
    assert losses_of(method, step, network) == pytest.approx(v[step.labels] * w.numpy() * divergence, rel=1e-6)


def test_margins():
    margins = label_aware_margins(torch.tensor([16.0, 1.0, 81.0], dtype=torch.float64), 0.5)
    assert margins.tolist() == pytest.approx([0.25, 0.5, 0.5 / 3])


@pytest.mark.parametrize(("epoch", "reweighted"), [(0, False), (7, False), (8, True), (9, True)])
def test_ldam_drw(epoch, reweighted):
    """Compare with a loop over cosines; the last two of 10 epochs are reweighted."""
    network = network_of(head=CosineHead(6, CLASSES, 30))
    step = step_of(40, epoch=epoch)
    encoder, head = network
    features, rows = encoder(step.pixels).detach().numpy(), head.weight.detach().numpy()
    counts = counts_of(context_of("ldam-drw").data.train.labels)
    margins = [0.5 * (min(counts) / n) ** 0.25 for n in counts]
    inverse = [(1 - 0.9999) / (1 - 0.9999**n) for n in counts]
    mean_weight = sum(n * w for n, w in zip(counts, inverse, strict=True)) / sum(counts)
    expected = []
    for z, y in zip(features, step.labels.tolist(), strict=True):
        cosines = [float(z @ row / np.linalg.norm(z) / np.linalg.norm(row)) for row in rows]
        logits = [30 * (cosine - (margins[y] if c == y else 0)) for c, cosine in enumerate(cosines)]
        loss = np.log(sum(np.exp(value) for value in logits)) - logits[y]
        expected.append(loss * (inverse[y] / mean_weight if reweighted else 1))
    assert losses_of("ldam-drw", step, network) == pytest.approx(expected, rel=1e-5)


def test_margins_lower_only_the_logit_of_the_label():
    logits, shift = torch.zeros(2, 3, dtype=torch.float64), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert with_margins(logits, torch.tensor([2, 0]), shift).tolist() == [[0, 0, -3], [-1, 0, 0]]


def test_elr_targets_and_gradient_follow_the_formula():
    network, objective = network_of(), objective_of("elr")
    objective.targets = objective.targets.double()
    target = np.zeros((12, CLASSES))
    for _ in range(2):
        step = step_of(first=5)
        p = probabilities(network, step.pixels).clip(1e-4, 1 - 1e-4)
        target = 0.7 * target + 0.3 * p / p.sum(1, keepdims=True)
        losses = objective.losses(network, step)
        held = torch.from_numpy(target)
        torch.testing.assert_close(objective.targets[5:17], held)
        gradient = torch.autograd.grad(losses.mean(), list(network.parameters()))
        q = network(step.pixels).softmax(1)
        written = torch.stack(
            [-q[i, y].log() + 3 * (1 - (q[i] * held[i]).sum()).log() for i, y in enumerate(step.labels)]
        )
        torch.testing.assert_close(losses, written)
        for mine, other in zip(gradient, torch.autograd.grad(written.mean(), list(network.parameters())), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-10)
        with torch.no_grad():
            for parameter, slope in zip(network.parameters(), gradient, strict=True):
                parameter.sub_(slope)
    assert not objective.targets[:5].any()
    assert not objective.targets[17:].any()


def test_elr_gradient_in_the_logits_equals_lemma_2():
    """p - y + lambda p_c / (1 - <p, t>) sum_k (t_k - t_c) p_k."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(6, 4, generator=generator, dtype=torch.float64) / 4
    labels = torch.arange(6) % 4
    (gradient,) = torch.autograd.grad(early_learning_losses(logits, labels, targets, 3.0).sum(), logits)
    for p, t, label, mine in zip(logits.softmax(1).detach().numpy(), targets.numpy(), labels, gradient, strict=True):
        expected = p.copy()
        expected[label] -= 1
        for c in range(4):
            expected[c] += 3 * p[c] / (1 - p @ t) * sum((t[k] - t[c]) * p[k] for k in range(4))
        assert mine.tolist() == pytest.approx(expected.tolist(), rel=1e-9)


def test_sop_follows_its_equations():
    """Compare u, v and the gradient of theta point by point, for noise s of relevant size."""
    network, objective = network_of(), objective_of("sop", overrides={"objective.deviation": 0.3})
    objective.u, objective.v = objective.u.double(), objective.v.double()
    before_u, before_v = objective.u.clone(), objective.v.clone()
    size, first = 12, 5
    for visit in range(3):
        step = step_of(size, first=first, seed=visit)
        u, v = objective.u.clone(), objective.v.clone()
        losses = objective.losses(network, step)
        p = network(step.pixels).softmax(1)
        written = []
        for i, y in enumerate(step.labels.tolist()):
            row_u, row_v = (table[first + i].clone().requires_grad_() for table in (u, v))
            one_hot = torch.eye(CLASSES, dtype=torch.float64)[y]
            s = row_u * row_u * one_hot - row_v * row_v * (1 - one_hot)
            phi = torch.maximum(p[i] + s.detach(), torch.tensor(1e-4))
            written.append(-torch.log(phi[y] / phi.sum()))

            phi = torch.maximum(p[i].detach() + s, torch.tensor(1e-4))
            (slope_u,) = torch.autograd.grad(-torch.log(phi[y] / phi.sum()), row_u, retain_graph=True)
            predicted = torch.eye(CLASSES, dtype=torch.float64)[p[i].argmax()]
            (slope_v,) = torch.autograd.grad(((predicted + s - one_hot) ** 2).sum(), row_v)
            torch.testing.assert_close(objective.u[first + i], (row_u - 10 * slope_u / size).clamp(-1, 1).detach())
            torch.testing.assert_close(objective.v[first + i], (row_v - 10 * slope_v / size).clamp(-1, 1).detach())
        torch.testing.assert_close(losses, torch.stack(written))
        mine, other = (torch.autograd.grad(loss.sum(), list(network.parameters())) for loss in (losses, sum(written)))
        for one, two in zip(mine, other, strict=True):
            torch.testing.assert_close(one, two)
    moved = (objective.u != before_u).squeeze(1)
    assert moved.nonzero().squeeze(1).tolist() == list(range(first, first + size)), "only those of the batch"
    assert ((objective.v != before_v).any(1) == moved).all()


def test_sop_learns_the_noise_of_a_wrong_label():
    """For a confident prediction of another class, s converges to onehot(label) - onehot(predicted)."""
    objective = objective_of("sop")
    objective.u, objective.v = objective.u.double(), objective.v.double()
    step = step_of(2)._replace(labels=torch.tensor([0, 3]), size=128)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)).double()
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(5 * F.one_hot(torch.tensor(3), CLASSES))
    for _ in range(200):
        losses = objective.losses(network, step)
    assert losses[0] < 0.3, "it starts at 5"
    assert objective.u[0].square().item() > 0.5
    assert objective.v[0].square().round(decimals=2).tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert objective.u[1].abs() < 1e-3
    assert objective.v[1].abs().max() < 1e-3


def with_stages(method: str, **settings):
    """Objective of a run of 10 epochs, whose stages begin at epochs 0, 2 and 6, with tables in float64."""
    overrides = {f"objective.{name}": value for name, value in settings.items()}
    objective = objective_of(method, overrides=overrides)
    for name, table in objective.rows().items():
        setattr(objective, name, table.double())
    assert (objective.label_start, objective.last_start) == (2, 6)
    return objective


def gradients(losses: torch.Tensor, network: nn.Module) -> torch.Tensor:
    """Gradient of the mean loss in all parameters, flat."""
    found = torch.autograd.grad(losses.mean(), list(network.parameters()), retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in found])


def entropy(p: torch.Tensor) -> torch.Tensor:
    return -sum(value * value.log() for value in p)


def test_pencil_follows_its_equations_in_each_stage():
    """Compare losses, the gradient of theta and the learned labels with autograd through the batch's mean loss."""
    network, objective = network_of(), with_stages("pencil", alpha=0.3, beta=0.7, lr_labels=2, scale=2)
    expected = 2 * F.one_hot(torch.from_numpy(context_of("pencil").data.train.labels), CLASSES).double()
    assert torch.equal(objective.label_logits, expected)
    for epoch in (1, 2, 5, 6, 9):
        step = step_of(first=5, seed=epoch, epoch=epoch)
        rows = expected[5:17].clone().requires_grad_()
        p, y = network(step.pixels).softmax(1), rows.softmax(1)
        written = []
        for i, label in enumerate(step.labels.tolist()):
            loss = sum(p[i, c] * (p[i, c] / y[i, c]).log() for c in range(CLASSES)) / CLASSES
            if 2 <= epoch < 6:
                loss = loss - 0.3 * y[i, label].log() + 0.7 / CLASSES * entropy(p[i])
            written.append(-p[i, label].log() if epoch < 2 else loss)
        mean = torch.stack(written).mean()
        losses = objective.losses(network, step)
        torch.testing.assert_close(losses, torch.stack(written))
        torch.testing.assert_close(gradients(losses, network), gradients(mean, network))
        if 2 <= epoch < 6:
            (slope,) = torch.autograd.grad(mean, rows)
            expected[5:17] -= 2 * 320 / 10 * slope
        torch.testing.assert_close(objective.label_logits, expected)


def test_pencil_corrects_a_label_that_contradicts_a_sure_prediction():
    """Where alpha is small, y moves from the observed label to the prediction; a label that agrees stays."""
    objective = with_stages("pencil", alpha=0.01)
    step = step_of(2, epoch=3)._replace(labels=torch.tensor([0, 3]), size=128)
    objective.label_logits[:2] = 10 * F.one_hot(step.labels, CLASSES)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)).double()
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(8 * F.one_hot(torch.tensor(3), CLASSES))
    for _ in range(20):
        objective.losses(network, step)
    y = objective.label_logits[:2].softmax(1)
    assert y.argmax(1).tolist() == [3, 3]
    assert y[0, 3] > 0.85
    assert y[1, 3] > 0.95


def test_joint_optimization_follows_its_equations_in_each_stage():
    """Compare with a list of all predictions of a point, over 8 epochs with a window of 3."""
    objective = with_stages("joint-optimization", alpha=0.9, beta=0.4, window=0.3)
    counts = counts_of(context_of("joint-optimization").data.train.labels)
    past, labels = [], step_of().labels
    for epoch in range(8):
        network, step = network_of(epoch), step_of(first=5, seed=epoch, epoch=epoch)._replace(labels=labels)
        p = network(step.pixels).softmax(1)
        seen = past[:6][-3:]
        targets = F.one_hot(labels, CLASSES).double() if epoch < 2 else torch.stack(seen).mean(0)
        written = -(targets * p.log()).sum() / 12
        if epoch < 6:
            shares = [n / sum(counts) for n in counts]
            written = written + 0.4 * sum(entropy(row) for row in p) / 12
            written = written + 0.9 * sum(q * (q / p[:, c].mean()).log() for c, q in enumerate(shares))
        losses = objective.losses(network, step)
        assert losses.mean().item() == pytest.approx(written.item(), rel=1e-6)
        torch.testing.assert_close(gradients(losses, network), gradients(written, network), rtol=1e-5, atol=1e-9)
        past.append(p.detach())
    assert [epoch for epoch in range(10) if objective.restarts_network(epoch)] == [6]


def test_joint_optimization_takes_the_mean_prediction_over_all_workers():
    """Two shards, with the sum over both, have the losses and the gradient of the whole batch."""
    whole, step = objective_of("joint-optimization"), step_of()
    flat, bias = nn.Flatten(), nn.Linear(64, CLASSES).double()  # no batch norm, so that shards are independent
    network = nn.Sequential(flat, bias)
    losses = whole.losses(network, step)

    class Summed:
        def all_reduce(self, tensor):
            return network(step.pixels).softmax(1).sum(0).detach()

    parts = []
    for shard in (slice(0, 12, 2), slice(1, 12, 2)):
        one = objective_of("joint-optimization")
        one.group = Summed()
        fields = {name: getattr(step, name)[shard] for name in ("points", "pixels", "labels")}
        parts.append(one.losses(network, step._replace(**fields)))
    torch.testing.assert_close(torch.cat(parts).sum(), losses.sum())
    torch.testing.assert_close(gradients(torch.cat(parts), network), gradients(losses, network))


@pytest.mark.parametrize("method", ["pencil", "joint-optimization"])
def test_labels_are_learned_before_they_are_kept(method):
    with pytest.raises(ConfigError, match=r"objective.*label_start \(0\.7\) must be below last_start \(0\.625\)"):
        context_of(method, overrides={"objective.label_start": 0.7})
