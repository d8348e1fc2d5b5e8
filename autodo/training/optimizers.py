"""SGD and AdamW without torch.optim, whose first use imports torch's compiler (about 1.3 s, 150 MB)."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from autodo.config.run import TrainingConfig


class _Descent:
    """Steps along gradients, with a state for each parameter that has had one.

    Args:
        parameters: to update; one without a gradient stays as it is.
        lr: learning rate of the first step; set the attribute `lr` for later ones.
        momentum: see the optimizer.
        factors: of the learning rate, for each parameter; None: 1.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        factors: Sequence[float] | None = None,
    ) -> None:
        self.lr = lr
        self._parameters = list(parameters)
        self._factors = [1.0] * len(self._parameters) if factors is None else list(factors)
        self._states: list[dict[str, Tensor]] = [{} for _ in self._parameters]
        self._settings = self._named(momentum, weight_decay)

    def _named(self, momentum: float, weight_decay: float) -> dict[str, Any]:
        """The settings as torch's optimizer calls them."""
        raise NotImplementedError

    def reset(self, parameters: Iterable[nn.Parameter] | None = None) -> None:
        """Discards the state of these parameters; None: of all."""
        chosen = {id(parameter) for parameter in (self._parameters if parameters is None else parameters)}
        for i, parameter in enumerate(self._parameters):
            if id(parameter) in chosen:
                self._states[i] = {}

    def zero_grad(self) -> None:
        """Discards the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter that has a gradient."""
        for factor in dict.fromkeys(self._factors):
            chosen = [
                i for i, parameter in enumerate(self._parameters)
                if self._factors[i] == factor and parameter.grad is not None
            ]  # fmt: skip
            gradients = [gradient for i in chosen if (gradient := self._parameters[i].grad) is not None]
            self._descend([self._parameters[i] for i in chosen], gradients, chosen, self.lr * factor)

    def _descend(self, parameters: list[Tensor], gradients: list[Tensor], chosen: list[int], lr: float) -> None:
        """Take a step in some parameters, and keep their state.

        Args:
            chosen: positions of the parameters.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The state and the settings, as torch's optimizer has them."""
        states = {i: dict(state) for i, state in enumerate(self._states) if state}
        group = {"lr": self.lr, **self._settings, "params": [*range(len(self._parameters))]}
        return {"state": states, "param_groups": [group]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from such a state, or from that of torch's optimizer.

        Raises:
            ValueError: if it has another number of parameters.
        """
        (group,) = state["param_groups"]
        if len(group["params"]) != len(self._parameters):
            raise ValueError(f"a state of {len(group['params'])} parameters, and there are {len(self._parameters)}")
        self.lr = group["lr"]
        self._settings = {name: group[name] for name in self._settings}
        for i, parameter in enumerate(self._parameters):
            saved = state["state"].get(i, {})
            self._states[i] = {
                name: value.detach().to(parameter if value.ndim else value, copy=True)
                for name, value in saved.items()
                if value is not None
            }


class SGD(_Descent):
    """The updates of torch.optim.SGD, by the same function of torch, and a state of the same form.

    m <- momentum m + g + weight_decay theta;  theta <- theta - lr m, or with Nesterov's momentum
    theta <- theta - lr (g + weight_decay theta + momentum m).

    Args:
        parameters, lr, weight_decay, factors: see `_Descent`.
        momentum: 0 for none; otherwise Nesterov's.
    """

    def _named(self, momentum: float, weight_decay: float) -> dict[str, Any]:
        return {"momentum": momentum, "weight_decay": weight_decay, "nesterov": momentum > 0}

    def _descend(self, parameters: list[Tensor], gradients: list[Tensor], chosen: list[int], lr: float) -> None:
        momenta = [self._states[i].get("momentum_buffer") for i in chosen]
        sgd(parameters, gradients, momenta, lr=lr, dampening=0.0, maximize=False, **self._settings)
        for i, momentum in zip(chosen, momenta, strict=True):
            if momentum is not None:
                self._states[i]["momentum_buffer"] = momentum


class AdamW(_Descent):
    """The updates of torch.optim.AdamW, by the same function of torch, and a state of the same form.

    m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2, both corrected for their initial 0;
    theta <- (1 - lr weight_decay) theta - lr m / (sqrt(v) + eps).

    Args:
        parameters, lr, weight_decay, factors: see `_Descent`.
        momentum: beta1; beta2 is 0.999 and eps 1e-8.
    Reference: Loshchilov and Hutter, ICLR 2019.
    """

    def _named(self, momentum: float, weight_decay: float) -> dict[str, Any]:
        return {"betas": (momentum, 0.999), "eps": 1e-8, "weight_decay": weight_decay}

    def _descend(self, parameters: list[Tensor], gradients: list[Tensor], chosen: list[int], lr: float) -> None:
        for i in chosen:
            if not self._states[i]:
                zero = torch.zeros_like(self._parameters[i], memory_format=torch.preserve_format)
                # The count stays on the host, where it costs no waiting for a GPU.
                self._states[i] = {"step": torch.zeros(()), "exp_avg": zero, "exp_avg_sq": zero.clone()}
        means, squares, counts = ([self._states[i][name] for i in chosen] for name in ("exp_avg", "exp_avg_sq", "step"))
        beta1, beta2 = self._settings["betas"]
        adamw(
            parameters,
            gradients,
            means,
            squares,
            [],
            counts,
            amsgrad=False,
            maximize=False,
            beta1=beta1,
            beta2=beta2,
            lr=lr,
            weight_decay=self._settings["weight_decay"],
            eps=self._settings["eps"],
        )


OPTIMIZERS: dict[str, type[SGD] | type[AdamW]] = {"sgd": SGD, "adamw": AdamW}


def build_optimizer(
    training: TrainingConfig,
    head: Iterable[nn.Parameter],
    encoder: Iterable[nn.Parameter] = (),
    *,
    lr: float | None = None,
) -> SGD | AdamW:
    """The optimizer of a run, for the parameters of the encoder and then those of the head.

    Args:
        lr: None for `training.lr`.
    """
    below, above = list(encoder), list(head)
    return OPTIMIZERS[training.optimizer](
        [*below, *above],
        lr=lr or training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        factors=[training.encoder_lr_factor] * len(below) + [1.0] * len(above),
    )
