"""The controller of Adversarial AutoAugment: an LSTM that draws policies, one operation or magnitude at a time.

Reference: Zhang et al., ICLR 2020, section 3.3, whose network, initial weights and learning rate are AutoAugment's
(Cubuk et al., 2019, section 3).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autodo.augment.operations import level_of
from autodo.augment.policy_file import OPERATION_NAMES, OperationStep, SubPolicy

SUB_POLICIES, STEPS = 5, 2  # operations of a sub-policy
MAGNITUDES = 10
HIDDEN, EMBEDDING = 100, 32
INITIAL_RANGE = 0.1
CHOICES = (len(OPERATION_NAMES), MAGNITUDES) * (SUB_POLICIES * STEPS)
"""Number of values of each choice: operation and magnitude of each step, in turn."""


class Walk(NamedTuple):
    """Policies that were drawn or followed, and what they are worth to the controller.

    Shape:
        choices [M, 20] int64; log_probabilities, entropies [M], sums over the choices.
    """

    choices: Tensor
    log_probabilities: Tensor
    entropies: Tensor


class Controller(nn.Module):
    """p(policy) = product of p(choice | choices before it): LSTM, and a softmax each for operations and magnitudes.

    Args:
        choices: number of values of each choice, operations and magnitudes in turn.
    """

    def __init__(self, choices: tuple[int, ...] = CHOICES) -> None:
        super().__init__()
        self.choices = choices
        self.lstm = nn.LSTMCell(EMBEDDING, HIDDEN)
        self.embeddings = nn.ModuleList(nn.Embedding(size, EMBEDDING) for size in choices[:2])
        self.heads = nn.ModuleList(nn.Linear(HIDDEN, size) for size in choices[:2])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -INITIAL_RANGE, INITIAL_RANGE)

    @torch.no_grad()
    def sample(self, policies: int, generator: torch.Generator) -> Tensor:
        """Draws policies. Shape: -> [policies, 20] int64."""
        return self._walk(
            policies, lambda _, log_p: torch.multinomial(log_p.exp(), 1, generator=generator).squeeze(1)
        ).choices

    def score(self, choices: Tensor) -> Walk:
        """Log probabilities and entropies of given policies, with gradient. Shape: choices [M, 20] int64."""
        return self._walk(len(choices), lambda position, _: choices[:, position])

    def _walk(self, policies: int, choose: Callable[[int, Tensor], Tensor]) -> Walk:
        weight = self.lstm.weight_ih
        entered, state = weight.new_zeros(policies, EMBEDDING), None
        chosen, log_probabilities, entropies = [], [], []
        for position in range(len(self.choices)):
            state = self.lstm(entered, state)
            log_p = self.heads[position % 2](state[0]).log_softmax(1)
            choice = choose(position, log_p)
            chosen.append(choice)
            log_probabilities.append(log_p.gather(1, choice[:, None]).squeeze(1))
            entropies.append(-(log_p.exp() * log_p).sum(1))
            entered = self.embeddings[position % 2](choice)
        return Walk(torch.stack(chosen, 1), torch.stack(log_probabilities).sum(0), torch.stack(entropies).sum(0))


def sub_policies(choices: list[int]) -> list[SubPolicy]:
    """The sub-policies of a policy's choices: each operation is applied with certainty, at levels for 0..9.

    The larger the magnitude of a signed operation, the stronger it is.
    """
    steps: list[OperationStep] = [
        (name, 1.0, level_of(name, magnitude / (MAGNITUDES - 1)))
        for name, magnitude in zip((OPERATION_NAMES[number] for number in choices[::2]), choices[1::2], strict=True)
    ]
    return [tuple(steps[start : start + STEPS]) for start in range(0, len(steps), STEPS)]
