"""The distribution of OHL-Auto-Aug over its candidates, and its step along the REINFORCE gradient.

Reference: Lin et al., ICCV 2019, section 3.2 and equation (9).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

BETAS = (0.5, 0.999)  # of Adam, as published


def log_probabilities(logits: Tensor) -> Tensor:
    """log of sigmoid(logit_k) / sum_j sigmoid(logit_j). Shape: [K] -> [K]."""
    log_sigmoids = F.logsigmoid(logits)
    return log_sigmoids - log_sigmoids.logsumexp(0)


def expected_gain(logits: Tensor, counts: Tensor, rewards: Tensor) -> Tensor:
    """A number whose gradient in the logits is the REINFORCE estimate with the average reward as baseline.

    1/N sum_n (R_n - mean R) log p(trajectory n), where log p is the sum over all draws of the trajectory. The baseline
    contains the trajectory's own reward, so the mean of the estimate is (N - 1) / N times the gradient of E[R].

    Shape:
        logits [K], counts [N, K]: how often each trajectory drew each candidate; rewards [N] -> [].
    """
    advantages = rewards - rewards.mean()
    return (advantages * (counts @ log_probabilities(logits))).mean()


class CandidateDistribution:
    """Independent draws of candidates, at first with equal probabilities; learned with Adam.

    Adam divides the gradient by its size, so the number of draws in a trajectory does not matter.

    Args:
        lr: learning rate of the logits.
    """

    def __init__(self, candidates: int, lr: float) -> None:
        self.logits = torch.zeros(candidates, dtype=torch.float64, requires_grad=True)
        self._optimizer = torch.optim.Adam([self.logits], lr=lr, betas=BETAS, maximize=True)

    def probabilities(self) -> Tensor:
        """Present probabilities. Shape: -> [K] float64."""
        return log_probabilities(self.logits.detach()).exp()

    def update(self, counts: Tensor, rewards: Tensor) -> None:
        """Takes a step towards the candidates of better trajectories. Shape: counts [N, K], rewards [N]."""
        self._optimizer.zero_grad()
        expected_gain(self.logits, counts.to(self.logits.dtype), rewards.to(self.logits.dtype)).backward()
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """The logits and the state of Adam."""
        return {"logits": self.logits.detach().clone(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from such a state."""
        with torch.no_grad():
            self.logits.copy_(state["logits"])
        self._optimizer.load_state_dict(state["optimizer"])
