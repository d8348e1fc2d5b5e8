"""DADA's distribution over sub-policies: a pair of operations, and a gate for each operation of the pair.

p(pair, gates) = softmax(weights)[pair] * prod_k Bernoulli(gates_k; probability[pair, k]).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from autodo.search.gradient import relaxation

# A gate that is always open or always closed would never be tried otherwise again.
GATE_RANGE = (0.05, 0.95)


class PairPolicy(nn.Module):
    """phi: softmax(weights) over the pairs, and the probability and level of each operation of a pair.

    Levels begin uniformly in [0, 1]: at the paper's 0.5 the geometric operations and the enhancements do nothing, and
    because their sign is drawn the gradient there is zero on average.
    """

    def __init__(self, pairs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(pairs))
        self.probability = nn.Parameter(torch.full((pairs, 2), 0.5))
        self.level = nn.Parameter(torch.rand(pairs, 2, generator=generator))

    @torch.no_grad()
    def project(self) -> None:
        """Clamps the parameters to their ranges, after a step."""
        self.probability.clamp_(*GATE_RANGE)
        self.level.clamp_(0, 1)


class PairNoise(NamedTuple):
    """Uniform numbers of a draw, and separate ones of its conditional draws z~.

    Shape:
        pair, pair_given [B, P]; gate, gate_given [B, 2].
    """

    pair: Tensor
    pair_given: Tensor
    gate: Tensor
    gate_given: Tensor


class DrawnPairs(NamedTuple):
    """A sub-policy for each image. Shape: pair [B] int64, is_open [B, 2] bool."""

    pair: Tensor
    is_open: Tensor


class PolicyGradient(NamedTuple):
    """One estimate per draw: d E[reward] / d weights [B, P] and d E[reward] / d probability[pair] [B, 2]."""

    weights: Tensor
    probability: Tensor


def noise(batch: int, pairs: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> PairNoise:
    """Noise for a batch, on the generator's device."""
    shapes = ((batch, pairs), (batch, pairs), (batch, 2), (batch, 2))
    return PairNoise(*(relaxation.uniform(shape, generator, dtype) for shape in shapes))


def draw(weights: Tensor, probability: Tensor, noise: PairNoise) -> DrawnPairs:
    """Draws a pair and its gates for each row of the noise. Shape: weights [P], probability [P, 2] in (0, 1)."""
    pair = relaxation.perturbed(weights, noise.pair).argmax(1)
    return DrawnPairs(pair, relaxation.gate_perturbed(torch.logit(probability[pair]), noise.gate) > 0)


class ControlVariate(nn.Module):
    """The control variate: the expected reward of a relaxed sub-policy.

    Begins as zero, with which RELAX is REINFORCE.

    Shape:
        weights [B, P] that sum to 1, gates [B, 2] in [0, 1] -> [B].
    """

    def __init__(self, pairs: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(pairs + 2, width), nn.SiLU(), nn.Linear(width, 1))
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, weights: Tensor, gates: Tensor) -> Tensor:
        result: Tensor = self.layers(torch.cat([weights, gates], 1)).squeeze(1)
        return result


def relax_estimate(
    weights: Tensor,
    probability: Tensor,
    noise: PairNoise,
    drawn: DrawnPairs,
    reward: Tensor,
    control: nn.Module,
    temperature: float,
) -> PolicyGradient:
    """RELAX in two steps, each unbiased: for the pair, and, given the pair, for its gates.

    One network is the control variate of both. For the pair it sees softmax(z / temperature) and the probabilities that
    these weights average; for the gates it sees the pair that was drawn and sigmoid(z / temperature). A relaxation of
    both at once would jump where the largest z changes, since the gates of another pair have other probabilities, and
    the derivative along z would miss the jump.

    Args:
        drawn: from `draw` with the same noise.
        reward: reward of each draw; it may depend on the row's own noise only through the draw.
    Shape:
        weights [P], probability [P, 2], reward [B].
    """
    batch, pairs = len(reward), len(weights)
    logits = weights.detach().expand(batch, pairs).clone().requires_grad_()
    z = relaxation.perturbed(logits, noise.pair)
    z_given = relaxation.perturbed_given(logits, drawn.pair, noise.pair_given)

    def pair_control(z: Tensor) -> Tensor:
        soft = torch.softmax(z / temperature, 1)
        value: Tensor = control(soft, soft @ probability.detach())
        return value

    log_pair = logits.log_softmax(1).gather(1, drawn.pair[:, None]).squeeze(1)
    by_weights = relaxation.relax(reward, log_pair, pair_control(z), pair_control(z_given), logits)

    chosen = probability.detach()[drawn.pair].requires_grad_()
    logit = torch.logit(chosen)
    one_hot = nn.functional.one_hot(drawn.pair, pairs).to(chosen.dtype)

    def gate_control(z: Tensor) -> Tensor:
        value: Tensor = control(one_hot, torch.sigmoid(z / temperature))
        return value

    log_gates = torch.where(drawn.is_open, chosen, 1 - chosen).log().sum(1)
    by_probability = relaxation.relax(
        reward,
        log_gates,
        gate_control(relaxation.gate_perturbed(logit, noise.gate)),
        gate_control(relaxation.gate_perturbed_given(logit, drawn.is_open, noise.gate_given)),
        chosen,
    )
    return PolicyGradient(by_weights, by_probability)


def leave_one_out(reward: Tensor) -> Tensor:
    """Subtracts from each reward the mean of the others, independent of the row's own draw. Shape: [B] -> [B]."""
    count = len(reward)
    return reward - (reward.sum() - reward) / (count - 1) if count > 1 else reward
