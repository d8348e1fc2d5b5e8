"""Meta gradients against finite differences, and against double backward through the virtual step."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from autodo.errors import ConfigError
from autodo.objectives.base import cross_entropies
from autodo.objectives.meta import losses_along
from autodo.testing.process_groups import FakeGroup
from tests.autodo.objectives.problem import context_of, network_of, objective_of, step_of


def fresh(step, seed=4):
    """Copy of a step with a fresh generator, so that the same val images are drawn again."""
    return step._replace(generator=torch.Generator().manual_seed(seed))


def val_loss_after(network, objective, step, weights):
    """L_val(theta - lr / B sum_i w_i d l_i) with its graph, for the published double backward."""
    setting_val = objective.images, objective.labels
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    parameters = {name: value.detach().requires_grad_() for name, value in network.named_parameters()}
    losses = cross_entropies(functional_call(network, (parameters, dict(buffers)), (step.pixels,)), step.labels)
    descent = torch.autograd.grad((weights(losses) * losses).mean(), list(parameters.values()), create_graph=True)
    ahead = {name: value - step.lr * slope for (name, value), slope in zip(parameters.items(), descent, strict=True)}
    chosen = torch.randperm(len(setting_val[1]), generator=fresh(step).generator)[: len(step.points)]
    pixels = objective.pipeline.test_view(setting_val[0][chosen])
    return cross_entropies(functional_call(network, (ahead, dict(buffers)), (pixels,)), setting_val[1][chosen]).mean()


@pytest.fixture
def meta_weight_net():
    objective = objective_of("meta-weight-net")
    objective.weight_network.double()
    return objective


def test_gradient_of_meta_weight_net_equals_double_backward(meta_weight_net):
    network, step = network_of(), step_of()._replace(lr=0.5)
    losses = cross_entropies(network(step.pixels), step.labels)
    mine = meta_weight_net.meta_gradient(network, fresh(step), losses)
    naive = val_loss_after(network, meta_weight_net, step, meta_weight_net.weights)
    for one, other in zip(
        mine, torch.autograd.grad(naive, list(meta_weight_net.weight_network.parameters())), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-14)
        assert other.abs().max() > 0


def test_gradient_of_meta_weight_net_equals_finite_differences(meta_weight_net):
    network, step = network_of(), step_of()._replace(lr=0.5)
    losses = cross_entropies(network(step.pixels), step.labels)
    mine = meta_weight_net.meta_gradient(network, fresh(step), losses)
    for parameter, gradient in zip(meta_weight_net.weight_network.parameters(), mine, strict=True):
        place = gradient.flatten().abs().argmax()
        values = []
        for sign in (1, -1):
            parameter.data.view(-1)[place] += sign * 1e-4
            values.append(val_loss_after(network, meta_weight_net, step, meta_weight_net.weights).item())
            parameter.data.view(-1)[place] -= sign * 1e-4
        assert (values[0] - values[1]) / 2e-4 == pytest.approx(gradient.view(-1)[place].item(), rel=1e-5)


class Attention(nn.Module):
    """Attention over the rows of pixels, and a linear layer."""

    def __init__(self, step):
        super().__init__()
        self.head = nn.Linear(step.pixels[0].numel(), 10)

    def forward(self, pixels):
        rows = pixels.flatten(1, 2)
        return self.head(nn.functional.scaled_dot_product_attention(rows, rows * self.head.bias.sum(), rows).flatten(1))


def test_networks_with_attention_have_a_forward_mode_derivative():
    step = step_of()
    torch.manual_seed(0)
    network = Attention(step).double()
    direction = {name: torch.randn_like(value) for name, value in network.named_parameters()}
    objective_of("l2rw")  # imports what forward mode needs
    along = losses_along(network, direction, step)
    for loss, expected in zip(cross_entropies(network(step.pixels), step.labels), along, strict=True):
        slopes = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
        found = sum((slope * direction[name]).sum() for slope, name in zip(slopes, direction, strict=True))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_meta_weight_net_takes_a_step_of_adam_before_weighting(meta_weight_net):
    network, step = network_of(), step_of()
    before = [parameter.clone() for parameter in meta_weight_net.weight_network.parameters()]
    losses = meta_weight_net.losses(network, step)
    for old, new in zip(before, meta_weight_net.weight_network.parameters(), strict=True):
        assert (new - old).abs().max() <= 1.0001e-3, "the first step of Adam is at most its learning rate"
        assert (new != old).any()
    plain = cross_entropies(network(step.pixels), step.labels)
    torch.testing.assert_close(losses, meta_weight_net.weights(plain) * plain)
    gradient, expected = (
        torch.autograd.grad(loss.sum(), list(network.parameters()), retain_graph=True)
        for loss in (losses, meta_weight_net.weights(plain).detach() * plain)
    )
    for one, other in zip(gradient, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_l2rw_weights_equal_double_backward():
    """Published form: zero weights, a virtual step, and the negative gradient in the weights, clamped and scaled."""
    network, step, objective = network_of(), step_of()._replace(lr=0.5), objective_of("l2rw")
    zero = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(val_loss_after(network, objective, step, lambda losses: zero), zero)
    wanted = (-gradient).clamp(min=0)
    assert 0 < (wanted > 0).sum() < 12
    weights = objective.weights(network, fresh(step))
    torch.testing.assert_close(weights, wanted / wanted.sum(), rtol=1e-9, atol=1e-14)
    losses = objective.losses(network, fresh(step))
    plain = cross_entropies(network(step.pixels), step.labels)
    torch.testing.assert_close(losses.mean(), (weights * plain).sum())


def test_l2rw_weights_are_zero_if_no_point_agrees_with_val(monkeypatch):
    network, step, objective = network_of(), step_of(), objective_of("l2rw")
    against = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    monkeypatch.setattr(objective, "val_gradient", lambda *_: against)
    assert objective.weights(network, step).tolist() == [0] * 12


@pytest.mark.parametrize("method", ["meta-weight-net", "l2rw"])
def test_running_statistics_change_once_with_the_train_batch(method):
    network, alone, step = network_of(), network_of(), step_of()
    objective = objective_of(method)
    if method == "meta-weight-net":
        objective.weight_network.double()
    objective.losses(network, step).sum().backward()
    alone(step.pixels)
    for (name, value), expected in zip(network.named_buffers(), alone.buffers(), strict=True):
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("method", ["meta-weight-net", "l2rw"])
def test_several_workers_are_refused(method):
    with pytest.raises(ConfigError, match=f"workers: {method} needs workers: 1, not 2: batch norm"):
        objective_of(method, group=FakeGroup(0, 2))


def test_initial_weights_derive_from_the_seed_without_the_global_generator():
    before = torch.random.get_rng_state()
    one, other = (objective_of("meta-weight-net").weight_network.state_dict() for _ in range(2))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert torch.equal(before, torch.random.get_rng_state())
    assert context_of("meta-weight-net").config.objective.hidden == 100
