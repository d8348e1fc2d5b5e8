"""Exponential moving average of the weights of a network."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averaged copies of modules: a <- d a + (1 - d) theta after each step t = 1, 2, ..., d = min(decay, (1+t)/(10+t)).

    The smaller d of the first steps keeps the initial weights out of the average, also in short runs. Running
    statistics of batch norm are averaged like the weights; counters are copied. Averages have the type of the weights,
    float32 also where the network computes in bfloat16.

    torch's AveragedModel can compute the same, but it reads its counter from the device at each step.

    Args:
        trained: modules whose weights move, each in place.
        averaged: modules of the same structure and the same weights, which hold the average from now on.
    Reference: Polyak and Juditsky 1992; the warm-up is that of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, decay: float, trained: Sequence[nn.Module], averaged: Sequence[nn.Module]) -> None:
        self.decay = decay
        self.steps = 0
        self.modules = tuple(module.requires_grad_(False).eval() for module in averaged)
        source, target = _state(trained), _state(self.modules)
        assert source.keys() == target.keys()
        moving = [name for name in source if source[name].is_floating_point()]
        counters = [name for name in source if name not in moving]
        self._trained, self._averaged = ([state[name] for name in moving] for state in (source, target))
        self._counted, self._copied = ([state[name] for name in counters] for state in (source, target))

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._averaged, self._trained, 1 - decay)
        torch._foreach_copy_(self._copied, self._counted)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin a new average at the present weights."""
        self.steps = 0
        torch._foreach_copy_([*self._averaged, *self._copied], [*self._trained, *self._counted])

    @torch.no_grad()
    def adopt(self) -> None:
        """Give the network the averaged weights, and begin a new average there."""
        self.steps = 0
        torch._foreach_copy_(self._trained, self._averaged)

    def state_dict(self) -> dict[str, Any]:
        """The averages and the number of steps."""
        return {"steps": self.steps, "modules": [module.state_dict() for module in self.modules]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from such a state."""
        for module, content in zip(self.modules, state["modules"], strict=True):
            module.load_state_dict(content)
        self.steps = state["steps"]


def _state(modules: Sequence[nn.Module]) -> dict[tuple[int, str], Tensor]:
    """Weights and buffers, by position of the module and name."""
    return {(i, name): value for i, module in enumerate(modules) for name, value in module.state_dict().items()}
