"""SGD with momentum without torch.optim.SGD, whose first use imports torch's compiler (about 1.3 s, 150 MB)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.sgd import sgd


class SGD:
    """The updates of torch.optim.SGD, by the same function of torch, and a state of the same form.

    m <- momentum m + g + weight_decay theta;  theta <- theta - lr m, or with Nesterov's momentum
    theta <- theta - lr (g + weight_decay theta + momentum m).

    Args:
        parameters: to update; one without a gradient stays as it is.
        lr: learning rate of the first step; set the attribute `lr` for later ones.
        momentum: 0 for none; otherwise Nesterov's.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, momentum: float, weight_decay: float) -> None:
        self.lr = lr
        self._parameters = list(parameters)
        self._momenta: list[torch.Tensor | None] = [None] * len(self._parameters)
        self._settings: dict[str, Any] = {
            "momentum": momentum, "weight_decay": weight_decay, "nesterov": momentum > 0
        }  # fmt: skip

    def reset(self, parameters: Iterable[nn.Parameter] | None = None) -> None:
        """Discards the momenta of these parameters; None: of all."""
        chosen = {id(parameter) for parameter in (self._parameters if parameters is None else parameters)}
        self._momenta = [
            None if id(parameter) in chosen else momentum
            for parameter, momentum in zip(self._parameters, self._momenta, strict=True)
        ]

    def zero_grad(self) -> None:
        """Discards the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter that has a gradient."""
        has = [i for i, parameter in enumerate(self._parameters) if parameter.grad is not None]
        momenta = [self._momenta[i] for i in has]
        sgd(
            [self._parameters[i] for i in has],
            [gradient for i in has if (gradient := self._parameters[i].grad) is not None],
            momenta,
            lr=self.lr,
            dampening=0.0,
            maximize=False,
            **self._settings,
        )
        for i, momentum in zip(has, momenta, strict=True):
            self._momenta[i] = momentum

    def state_dict(self) -> dict[str, Any]:
        """The momenta and the settings, as torch.optim.SGD has them."""
        momenta = {i: {"momentum_buffer": momentum} for i, momentum in enumerate(self._momenta) if momentum is not None}
        group = {"lr": self.lr, **self._settings, "params": [*range(len(self._parameters))]}
        return {"state": momenta, "param_groups": [group]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from such a state, or from that of a torch.optim.SGD.

        Raises:
            ValueError: if it has another number of parameters.
        """
        (group,) = state["param_groups"]
        if len(group["params"]) != len(self._parameters):
            raise ValueError(f"a state of {len(group['params'])} parameters, and there are {len(self._parameters)}")
        self.lr = group["lr"]
        self._settings = {name: group[name] for name in self._settings}
        for i, parameter in enumerate(self._parameters):
            momentum = state["state"].get(i, {}).get("momentum_buffer")
            self._momenta[i] = None if momentum is None else momentum.detach().to(parameter, copy=True)
