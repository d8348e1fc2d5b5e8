"""The estimators against expectations that are enumerated, and the draws against the distributions they claim."""

import itertools

import pytest
import torch
from torch import Tensor

from autodo.search.gradient import dada_policy, relaxation

DTYPE = torch.float64
DRAWS = 100_000


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_straight_through_gumbel_is_one_hot_forward_and_softmax_backward() -> None:
    logits = torch.tensor([[0.3, -1.0, 0.5], [2.0, 0.0, 1.0]], dtype=DTYPE, requires_grad=True)
    noise = relaxation.uniform((2, 3), generator(0), DTYPE)
    weight = torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]], dtype=DTYPE)
    drawn = relaxation.gumbel_softmax(logits, noise, 0.7)
    soft = torch.softmax((logits - torch.log(-torch.log(noise))) / 0.7, 1)
    assert set(drawn.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(drawn.argmax(1), soft.argmax(1))
    (got,) = torch.autograd.grad((weight * drawn).sum(), logits)
    (expected,) = torch.autograd.grad((weight * soft).sum(), logits)
    assert torch.allclose(got, expected, rtol=1e-12)


def test_hard_gate_is_zero_or_one_forward_and_relaxed_backward() -> None:
    logit = torch.linspace(-2, 2, 50, dtype=DTYPE, requires_grad=True)
    noise = relaxation.uniform((50,), generator(1), DTYPE)
    drawn = relaxation.hard_gate(logit, noise, 0.1)
    assert set(drawn.tolist()) == {0.0, 1.0}
    (got,) = torch.autograd.grad(drawn.sum(), logit)
    soft = torch.sigmoid((logit + torch.logit(noise)) / 0.1).detach()
    assert torch.allclose(got, soft * (1 - soft) / 0.1, rtol=1e-10)


def test_draws_have_the_probabilities_of_their_logits() -> None:
    logits = torch.tensor([0.3, -1.0, 0.5], dtype=DTYPE)
    z = relaxation.perturbed(logits, relaxation.uniform((DRAWS, 3), generator(2), DTYPE))
    share = torch.bincount(z.argmax(1), minlength=3).double() / DRAWS
    assert torch.allclose(share, torch.softmax(logits, 0), atol=5 * 0.5 / DRAWS**0.5)
    is_open = relaxation.gate_perturbed(torch.full((DRAWS,), -0.4), relaxation.uniform((DRAWS,), generator(3))) > 0
    assert float(is_open.double().mean()) == pytest.approx(1 / (1 + 2.718281828**0.4), abs=5 * 0.5 / DRAWS**0.5)


def test_conditional_draws_agree_with_the_choice_and_are_distributed_as_the_unconditional_ones() -> None:
    """z~ given b, with b drawn first, has the law of z: the same means, squares and products of its entries."""
    logits = torch.tensor([0.3, -1.0, 0.5], dtype=DTYPE)
    z = relaxation.perturbed(logits, relaxation.uniform((DRAWS, 3), generator(4), DTYPE))
    chosen = z.argmax(1)
    again = relaxation.perturbed_given(logits, chosen, relaxation.uniform((DRAWS, 3), generator(5), DTYPE))
    assert torch.equal(again.argmax(1), chosen)
    for moment in (lambda x: x, torch.square, lambda x: x * x.roll(1, 1)):
        a, b = moment(z), moment(again)
        error = ((a.var(0) + b.var(0)) / DRAWS).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() < 5 * error).all()

    logit = torch.full((DRAWS,), 0.7, dtype=DTYPE)
    u = relaxation.gate_perturbed(logit, relaxation.uniform((DRAWS,), generator(6), DTYPE))
    u_again = relaxation.gate_perturbed_given(logit, u > 0, relaxation.uniform((DRAWS,), generator(7), DTYPE))
    assert torch.equal(u_again > 0, u > 0)
    for power in (1, 2):
        a, b = u**power, u_again**power
        assert abs(float(a.mean() - b.mean())) < 5 * float(((a.var() + b.var()) / DRAWS).sqrt())


PAIRS = 4
WEIGHTS = torch.tensor([0.2, -0.5, 0.9, 0.0], dtype=DTYPE)
PROBABILITY = torch.tensor([[0.3, 0.8], [0.5, 0.5], [0.1, 0.6], [0.7, 0.9]], dtype=DTYPE)
# What each pair earns with each combination of its gates.
TABLE = torch.randn(PAIRS, 2, 2, generator=generator(8), dtype=DTYPE) + 1.5


def reward_of(drawn: dada_policy.DrawnPairs) -> Tensor:
    gates = drawn.is_open.long()
    return TABLE[drawn.pair, gates[:, 0], gates[:, 1]]


def exact_gradient() -> tuple[Tensor, Tensor]:
    """d E[reward] / d (weights, probability) by enumeration."""
    weights, probability = WEIGHTS.clone().requires_grad_(), PROBABILITY.clone().requires_grad_()
    total = torch.zeros((), dtype=DTYPE)
    for pair, first, second in itertools.product(range(PAIRS), (0, 1), (0, 1)):
        p = torch.softmax(weights, 0)[pair]
        for gate, chance in zip((first, second), probability[pair], strict=True):
            p = p * (chance if gate else 1 - chance)
        total = total + p * TABLE[pair, first, second]
    by_weights, by_probability = torch.autograd.grad(total, (weights, probability))
    return by_weights, by_probability


def estimates(control: dada_policy.ControlVariate, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Estimates [draws, P] and, in the rows of the pair that was drawn, [draws, P, 2]."""
    noise = dada_policy.noise(draws, PAIRS, generator(seed), DTYPE)
    drawn = dada_policy.draw(WEIGHTS, PROBABILITY, noise)
    found = dada_policy.relax_estimate(WEIGHTS, PROBABILITY, noise, drawn, reward_of(drawn), control, 0.5)
    by_probability = torch.zeros(draws, PAIRS, 2, dtype=DTYPE)
    by_probability = by_probability.index_put((torch.arange(draws), drawn.pair), found.probability)
    return found.weights, by_probability


def build_control(random_output: bool) -> dada_policy.ControlVariate:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        control = dada_policy.ControlVariate(PAIRS, width=16).to(DTYPE)
        if random_output:
            torch.nn.init.normal_(control.layers[-1].weight)
    return control


def trained_control() -> dada_policy.ControlVariate:
    control = build_control(False)
    optimizer = torch.optim.Adam(control.parameters(), lr=0.02)
    for step in range(200):
        by_weights, by_probability = estimates(control, 128, 100 + step)
        variance = by_weights.square().sum(1).mean() + by_probability.square().sum((1, 2)).mean()
        optimizer.zero_grad()
        variance.backward()
        optimizer.step()
    return control


@pytest.mark.parametrize("which", ["zero", "random", "trained"])
def test_relax_is_unbiased_whatever_the_control_variate(which: str) -> None:
    control = trained_control() if which == "trained" else build_control(which == "random")
    for found, exact in zip(estimates(control, DRAWS, 10), exact_gradient(), strict=True):
        error = found.std(0) / DRAWS**0.5
        assert exact.abs().max() > 30 * error.max()  # otherwise zero would pass too
        assert ((found.mean(0) - exact).abs() < 4.5 * error).all()


def test_relax_varies_less_than_reinforce() -> None:
    reinforce, learned = (estimates(control, 50_000, 11) for control in (build_control(False), trained_control()))
    for before, after in zip(reinforce, learned, strict=True):
        assert after.var(0).sum() < 0.5 * before.var(0).sum()


def test_leave_one_out_keeps_the_mean_gradient() -> None:
    """The baseline of a row comes from the other rows, so groups of 8 draws still average to the exact gradient."""
    draws = 160_000
    noise = dada_policy.noise(draws, PAIRS, generator(12), DTYPE)
    drawn = dada_policy.draw(WEIGHTS, PROBABILITY, noise)
    reward = torch.cat([dada_policy.leave_one_out(group) for group in reward_of(drawn).split(8)])
    found = dada_policy.relax_estimate(
        WEIGHTS, PROBABILITY, noise, drawn, reward, build_control(False), 0.5
    ).weights.detach()
    assert torch.allclose(found.mean(0), exact_gradient()[0], atol=4.5 * float(found.std(0).max()) / draws**0.5)
