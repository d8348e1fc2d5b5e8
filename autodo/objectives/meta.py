"""Weights learned from the clean val set: by a small network, or for each batch alone.

Both need <d L_val, d l_i>, how much a step along the gradient of point i lowers the val loss, for all points of a batch
and all parameters of the network. That is the derivative of the batch's losses along the val gradient: one forward-mode
pass for the whole batch. The published code differentiates backwards through the step; both are exact.

Batch norm uses the statistics of the current batch, for train and val images, as in the published code; running
statistics change only with the step of theta. A step of `meta-weight-net` costs about four plain steps, one of `l2rw`
three.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from autodo.config import objective
from autodo.errors import ConfigError
from autodo.objectives.base import Objective, ObjectiveContext, TrainStep, cross_entropies
from autodo.seeds import initial_weights

Parameters = dict[str, Tensor]


class _ValGradientLoss(Objective):
    """Draws val batches and differentiates along their gradient."""

    def __init__(self, context: ObjectiveContext) -> None:
        if context.group.size > 1:
            assert context.config.objective is not None
            raise ConfigError(
                f"workers: {context.config.objective.kind} needs workers: 1, not {context.group.size}: "
                "batch norm over several workers has no forward-mode derivative"
            )
        _import_forward_mode()
        self.images, self.labels, self.pipeline = context.val_images, context.val_labels, context.pipeline

    def val_gradient(self, network: nn.Module, parameters: Parameters, step: TrainStep) -> Parameters:
        """Gradient of the mean loss of random val images, as many as the batch has, or all."""
        drawn = torch.randperm(len(self.labels), generator=step.generator, device=step.generator.device)
        chosen = drawn[: len(step.points)]
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        pixels = self.pipeline.test_view(self.images[chosen])
        loss = losses_at(network, leaves, pixels, self.labels[chosen]).mean()
        gradient = torch.autograd.grad(loss, list(leaves.values()))
        return dict(zip(leaves, gradient, strict=True))


class MetaWeightNetLoss(_ValGradientLoss):
    """V(l_i) l_i: a network V, 1 -> 100 -> 1 with a sigmoid, maps the loss of a point to its weight.

    Before each step of theta, V takes one step of Adam on the val loss of theta' = theta - lr / B sum_i V(l_i) d l_i:
    d L_val / dV = - lr / B sum_i <d L_val(theta'), d l_i> d V(l_i). The virtual step is plain gradient descent with the
    current learning rate; l_i is constant as input of V.

    Reference: Shu et al. 2019, section 3 and algorithm 1.
    """

    def __init__(self, config: objective.MetaWeightNet, context: ObjectiveContext) -> None:
        super().__init__(context)
        with initial_weights(context.generator.initial_seed()):
            layers = [nn.Linear(1, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 1), nn.Sigmoid(), nn.Flatten(0)]
            self.weight_network = nn.Sequential(*layers).to(context.labels.device)
        self.optimizer = torch.optim.Adam(
            self.weight_network.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        losses = cross_entropies(network(step.pixels), step.labels)
        for parameter, gradient in zip(
            self.weight_network.parameters(), self.meta_gradient(network, step, losses), strict=True
        ):
            parameter.grad = gradient
        self.optimizer.step()
        return self.weights(losses).detach() * losses

    def weights(self, losses: Tensor) -> Tensor:
        """V of the losses, as constants. Shape: [b] -> [b]."""
        result: Tensor = self.weight_network(losses.detach()[:, None])
        return result

    def meta_gradient(self, network: nn.Module, step: TrainStep, losses: Tensor) -> tuple[Tensor, ...]:
        """Gradient of the val loss after the virtual step, in the parameters of V.

        Args:
            losses: losses of the batch with their graph, which is retained. Shape: [b].
        """
        parameters = trained_parameters(network)
        weights = self.weights(losses)
        weighted = (weights.detach() * losses).mean()
        descent = torch.autograd.grad(weighted, list(parameters.values()), retain_graph=True)
        virtual = {
            name: value - step.lr * slope for (name, value), slope in zip(parameters.items(), descent, strict=True)
        }
        agreement = losses_along(network, self.val_gradient(network, virtual, step), step)
        return torch.autograd.grad(-step.lr * (agreement * weights).mean(), list(self.weight_network.parameters()))

    def state_dict(self) -> dict[str, Any]:
        return {"weigh": self.weight_network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, rows: dict[str, Tensor], state: dict[str, Any]) -> None:
        self.weight_network.load_state_dict(state["weigh"])
        self.optimizer.load_state_dict(state["optimizer"])


class LearnedReweightingLoss(_ValGradientLoss):
    """B w_i l_i with w_i = max(0, <d L_val, d l_i>), scaled to sum to 1; all zero if no point agrees with val.

    The weights of the paper are the negative gradient of the val loss after a virtual step, in the weights
    of that step, at zero. There the virtual step is zero, and its learning rate cancels in the scaling.

    Reference: Ren et al. 2018, section 3 and algorithm 1.
    """

    def __init__(self, config: objective.L2RW, context: ObjectiveContext) -> None:
        super().__init__(context)

    def losses(self, network: nn.Module, step: TrainStep) -> Tensor:
        return len(step.points) * self.weights(network, step) * cross_entropies(network(step.pixels), step.labels)

    def weights(self, network: nn.Module, step: TrainStep) -> Tensor:
        """Weights of the batch. Shape: -> [b]."""
        parameters = trained_parameters(network)
        weights = losses_along(network, self.val_gradient(network, parameters, step), step).clamp(min=0)
        return weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def trained_parameters(network: nn.Module) -> Parameters:
    """Parameters that are not frozen."""
    return {name: value for name, value in network.named_parameters() if value.requires_grad}


def losses_at(network: nn.Module, parameters: Parameters, pixels: Tensor, labels: Tensor) -> Tensor:
    """Losses of the network with other parameters; the network and its running statistics do not change.

    Shape:
        pixels [b, C, H, W], labels [b] int64 -> [b].
    """
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    return cross_entropies(functional_call(network, (parameters, buffers), (pixels,)), labels)


def losses_along(network: nn.Module, direction: Parameters, step: TrainStep) -> Tensor:
    """<direction, d l_i> of each point of the batch. Shape: -> [b]."""
    parameters = {name: value.detach() for name, value in trained_parameters(network).items()}

    def losses(at: Parameters) -> Tensor:
        return losses_at(network, at, step.pixels, step.labels)

    # The fast kernels of attention have no forward-mode derivative.
    with sdpa_kernel(SDPBackend.MATH):
        along: Tensor = jvp(losses, (parameters,), (direction,))[1]
    return along


def _import_forward_mode() -> None:
    # The first use of forward mode imports a module of torch 2.15 that emits a deprecation warning.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)
        jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))
