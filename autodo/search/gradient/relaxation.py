"""Gradients of expectations over discrete draws: straight-through Gumbel-softmax, relaxed Bernoulli, RELAX.

Every draw is a function of its logits and of uniform noise, so that the same noise gives the discrete draw and its
relaxation. A categorical draw is b = argmax z with z = log softmax(logits) - log(-log u); a Bernoulli draw is
b = [z > 0] with z = logit + log u - log(1 - u).
Reference: Jang et al. and Maddison et al., ICLR 2017; Grathwohl et al., ICLR 2018 (RELAX).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def uniform(shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Noise strictly between 0 and 1, on the generator's device."""
    noise = torch.rand(tuple(shape), generator=generator, device=generator.device, dtype=dtype)
    eps = torch.finfo(dtype).eps
    return noise.clamp(eps, 1 - eps)


def perturbed(logits: Tensor, noise: Tensor) -> Tensor:
    """Draws z with argmax z ~ softmax(logits). Shape: logits [..., K], noise [..., K] -> [..., K]."""
    return logits.log_softmax(-1) - torch.log(-torch.log(noise))


def perturbed_given(logits: Tensor, chosen: Tensor, noise: Tensor) -> Tensor:
    """Draws z from the distribution of `perturbed`, given that its argmax is `chosen`.

    The largest of the K values has a standard Gumbel distribution for every choice; the others are Gumbels truncated
    there.

    Shape:
        logits [..., K], chosen [...] int64, noise [..., K] -> [..., K].
    Reference: Grathwohl et al. 2018, appendix.
    """
    exponential = -torch.log(noise)
    top = exponential.gather(-1, chosen[..., None])
    below = -torch.log(exponential * torch.exp(-logits.log_softmax(-1)) + top)
    return below.scatter(-1, chosen[..., None], -torch.log(top))


def gate_perturbed(logit: Tensor, noise: Tensor) -> Tensor:
    """Draws z with z > 0 of probability sigmoid(logit). Shape: all the same."""
    return logit + torch.logit(noise)


def gate_perturbed_given(logit: Tensor, is_open: Tensor, noise: Tensor) -> Tensor:
    """Draws z from the distribution of `gate_perturbed`, given the sign that `is_open` says. Shape: all the same."""
    closed_share = torch.sigmoid(-logit)
    eps = torch.finfo(noise.dtype).eps
    conditional = torch.where(is_open, closed_share + noise * (1 - closed_share), noise * closed_share)
    return logit + torch.logit(conditional.clamp(eps, 1 - eps))


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Exactly `hard`, with the derivative of `soft`."""
    return hard + (soft - soft.detach())


def gumbel_softmax(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """A one-hot draw from softmax(logits) whose derivative is that of softmax(z / temperature).

    Shape:
        logits [..., K], noise [..., K] -> [..., K].
    """
    soft = torch.softmax(perturbed(logits, noise) / temperature, -1)
    hard = torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0)
    return straight_through(hard, soft)


def relaxed_gate(logit: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """sigmoid(z / temperature), in (0, 1): near 1 with probability sigmoid(logit), else near 0. Shape: all the same."""
    return torch.sigmoid(gate_perturbed(logit, noise) / temperature)


def hard_gate(logit: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """1 with probability sigmoid(logit), else 0; its derivative is that of the relaxed gate. Shape: all the same."""
    soft = relaxed_gate(logit, noise, temperature)
    return straight_through((soft > 0.5).to(soft.dtype), soft)


def relax(reward: Tensor, log_probability: Tensor, control: Tensor, control_given: Tensor, parameter: Tensor) -> Tensor:
    """Unbiased estimates of d E[reward] / d parameter, one per draw, with the graph to the control variate.

        g = (f(b) - c(z~)) d log p(b) + d c(z) - d c(z~),   b = H(z),   z~ from p(z | b)

    for any control variate c. The gradient of the mean of g^2 trains c's parameters, because the mean of g is fixed.

    Args:
        reward: f(b), without a graph.
        log_probability: log p(b), with a graph to `parameter`.
        control: c(z), with z a function of `parameter`.
        control_given: c(z~).
        parameter: a leaf with rows of its own for each draw.
    Shape:
        reward, log_probability, control, control_given [B], parameter [B, ...] -> [B, ...].
    Reference: Grathwohl et al. 2018, section 3.
    """
    (score,) = torch.autograd.grad(log_probability.sum(), parameter)
    (path,) = torch.autograd.grad((control - control_given).sum(), parameter, create_graph=True)
    rest = (reward - control_given).reshape(-1, *[1] * (parameter.dim() - 1))
    return rest * score + path
