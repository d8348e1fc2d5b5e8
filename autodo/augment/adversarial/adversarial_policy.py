"""Adversarial AutoAugment: M policies for each epoch, and a controller that learns which of them are hard.

Every image of a batch is augmented by all M policies of the epoch. The task network descends the mean loss of the M
copies. After the epoch the controller takes one REINFORCE step, whose rewards are the losses of the policies.
Reference: Zhang et al., ICLR 2020, section 3 and algorithm 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from autodo.augment.adversarial.controller import Controller, sub_policies
from autodo.augment.policies import Draws, Policy, Steps, SubPolicies
from autodo.config.policy import AdversarialAutoAugment
from autodo.distributed.process_group import ProcessGroup
from autodo.seeds import derive, initial_weights, torch_generator

MIN_DEVIATION = 1e-6  # of losses, below which their differences are rounding errors


class PoliciesInTurn(SubPolicies):
    """Image i of a batch is augmented by policy i mod M: one of its sub-policies, drawn uniformly.

    Args:
        policies: M lists of equally many sub-policies.
    """

    def __init__(self, policies: Sequence[Sequence[Steps]]) -> None:
        super().__init__([steps for policy in policies for steps in policy])
        self._policies, self._each = len(policies), len(policies[0])

    def choose(self, batch: int, generator: torch.Generator) -> Tensor:
        policy = torch.arange(batch, device=generator.device) % self._policies
        drawn = torch.randint(self._each, (batch,), generator=generator, device=generator.device)
        return policy * self._each + drawn


class AdversarialPolicy(Policy):
    """The policies of the present epoch, the sums of their losses, and the controller, which is on the CPU.

    Args:
        seed: of the run.
        device: of the losses.
    """

    def __init__(
        self, config: AdversarialAutoAugment, *, seed: int, group: ProcessGroup, device: torch.device | str = "cpu"
    ) -> None:
        self.copies = config.copies
        self._entropy, self._seed, self._group = config.entropy, seed, group
        with initial_weights(derive(seed, "policy controller")):
            self.controller = Controller()
        self._optimizer = torch.optim.Adam(self.controller.parameters(), lr=config.lr, maximize=True)
        self._loss_sums = torch.zeros(config.copies, dtype=torch.float64, device=device)
        self._points = 0
        self.choices = torch.zeros(0)
        self._policies: PoliciesInTurn | None = None

    def begin_epoch(self, epoch: int) -> None:
        """Draws the policies of an epoch; a run that resumes within it draws the same ones."""
        drawn = self.controller.sample(self.copies, torch_generator(self._seed, "policies", epoch))
        # Processors may round differently, and all processes need the same policies.
        choices = self._group.broadcast_object(drawn.tolist())
        self.choices = torch.tensor(choices)
        self._policies = PoliciesInTurn([sub_policies(policy) for policy in choices])

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        assert self._policies is not None, "the epoch must begin first"
        return self._policies.draw(batch, generator)

    def record(self, losses: Tensor, points: int) -> None:
        """Adds the losses of a batch to those of the policies.

        Args:
            losses: of this process's images, the M copies of an image next to one another.
            points: images in the whole batch, on all processes, without their copies.
        Shape:
            losses [b M].
        """
        of_policies = losses.detach().reshape(len(losses) // self.copies, self.copies).sum(0)
        self._loss_sums += self._group.all_reduce(of_policies.to(self._loss_sums.dtype))
        self._points += points

    def end_epoch(self) -> None:
        """Trains the controller with the mean losses of the epoch."""
        rewards = standardised(self._loss_sums.cpu() / self._points)
        self._optimizer.zero_grad()
        expected_gain(self.controller, self.choices, rewards, self._entropy).backward()
        self._optimizer.step()
        self._loss_sums.zero_()
        self._points = 0

    def state_dict(self) -> dict[str, Any]:
        """State that is equal on all processes; also within an epoch."""
        return {
            "controller": self.controller.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "loss_sums": self._loss_sums,
            "points": self._points,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from such a state."""
        self.controller.load_state_dict(state["controller"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._loss_sums.copy_(state["loss_sums"])
        self._points = state["points"]


def standardised(losses: Tensor) -> Tensor:
    """Losses with mean 0 and variance 1; close to 0 if they are equal up to rounding. Shape: [M] -> [M]."""
    deviations = losses - losses.mean()
    return deviations / deviations.square().mean().sqrt().clamp(min=MIN_DEVIATION)


def expected_gain(controller: Controller, choices: Tensor, rewards: Tensor, entropy: float) -> Tensor:
    """A number whose gradient is the controller's: 1/M sum_m (R_m log p(policy m) + `entropy` H(policy m)).

    Shape:
        choices [M, 20] int64, rewards [M] -> [].
    """
    walk = controller.score(choices)
    return (rewards.to(walk.log_probabilities.dtype) * walk.log_probabilities + entropy * walk.entropies).mean()
