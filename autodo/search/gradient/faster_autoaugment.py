"""Faster AutoAugment: sub-policies whose images a critic cannot tell from the given ones.

A stage of a sub-policy is the mixture

    x + sum_o softmax(weights / operation temperature)_o g_o (O_o(x; level_o) - x),   g_o a relaxed Bernoulli gate,

of all operations, which is differentiable in all learned parameters. In each batch one half of the images, after a
sub-policy drawn for each, is compared with the unchanged other half: the critic maximises the difference of its means,
with a gradient penalty (WGAN-GP); the policy minimises it, and the cross-entropy of the critic's second head, which
learns to classify the given images, so that the operations keep the class recognisable.
Reference: Hataya et al., ECCV 2020; Gulrajani et al., NeurIPS 2017, section 4.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autodo.config.policy import FasterAutoAugmentSearch
from autodo.config.run import RunConfig
from autodo.data.batches import epoch_batches
from autodo.data.prepare import DataSplits
from autodo.search.gradient import relaxation
from autodo.search.gradient.differentiable_operations import SEARCHED, DifferentiableOperations, random_centres
from autodo.search.gradient.gradient_search import FoundPolicy, GradientSearch, rounded_step
from autodo.seeds import torch_generator

GATE_RANGE = (0.01, 0.99)


class MixturePolicy(nn.Module):
    """Weights, probabilities and levels of sub-policies x stages x operations, all of which begin at random.

    Sub-policies that began alike would be moved alike, and one operation would win in all of them.

    Shape:
        weights, probability, level [S, L, O].
    """

    def __init__(self, settings: FasterAutoAugmentSearch, generator: torch.Generator) -> None:
        super().__init__()
        shape = (settings.sub_policies, settings.operations, len(SEARCHED))
        self.settings = settings
        # In units of the temperature: the first weights of a stage differ by factors of about e.
        self.weights = nn.Parameter(settings.operation_temperature * torch.randn(shape, generator=generator))
        self.probability = nn.Parameter(0.25 + 0.5 * torch.rand(shape, generator=generator))
        self.level = nn.Parameter(torch.rand(shape, generator=generator))
        self._operations = DifferentiableOperations(settings.implementation)

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Applies the mixtures of a sub-policy drawn for each image. Shape: [B, C, H, W] in [0, 1] -> the same."""
        batch, device = len(images), images.device
        sub_policy = torch.randint(len(self.weights), (batch,), generator=generator, device=device)
        numbers = torch.arange(len(SEARCHED), device=device).expand(batch, -1)
        for stage in range(self.weights.shape[1]):
            level = self.level[sub_policy, stage]
            value = self._operations.draw_values(numbers, level, generator)
            noise = relaxation.uniform(level.shape, generator, level.dtype)
            gate = relaxation.relaxed_gate(
                torch.logit(self.probability[sub_policy, stage]), noise, self.settings.temperature
            )
            amount = self.shares()[sub_policy, stage] * gate
            centre = random_centres(batch, generator)
            mixed = images
            for number, name in enumerate(SEARCHED):
                changed = self._operations.apply(name, images, level[:, number], value[:, number], centre)
                mixed = mixed + amount[:, number].view(-1, 1, 1, 1) * (changed - images)
            images = mixed.clamp(0, 1)
        return images

    def shares(self) -> Tensor:
        """Shares of the operations in their stages. Shape: -> [S, L, O], sums 1 over O."""
        return torch.softmax(self.weights / self.settings.operation_temperature, 2)

    @torch.no_grad()
    def project(self) -> None:
        """Clamps the parameters to their ranges, after a step."""
        self.probability.clamp_(*GATE_RANGE)
        self.level.clamp_(0, 1)


def gradient_penalty(critic: Callable[[Tensor], Tensor], given: Tensor, made: Tensor, mix: Tensor) -> Tensor:
    """Mean of (|grad critic(x)| - 1)^2 at x = mix given + (1 - mix) made, differentiable in the critic.

    Args:
        critic: a function of images to one number each, which depends on no other image of the batch.
    Shape:
        given, made [B, C, H, W], mix [B] in [0, 1] -> [].
    Reference: Gulrajani et al. 2017, eq. (3).
    """
    between = torch.lerp(made.detach(), given.detach(), mix.view(-1, 1, 1, 1)).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


class FasterAutoAugment(GradientSearch):
    """One Faster AutoAugment search: a critic against a policy."""

    settings: FasterAutoAugmentSearch

    def __init__(self, config: RunConfig, data: DataSplits, device: str) -> None:
        super().__init__(config, data, device)
        self.network = self.data.build_network(self.settings.model, config.seed, 1)
        self.policy = MixturePolicy(self.settings, torch_generator(config.seed, "search", "start")).to(device)
        # The paper's betas.
        adam = functools.partial(torch.optim.Adam, lr=self.settings.lr, betas=(0.0, 0.999))
        self.outer = adam(self.policy.parameters())
        self.inner = adam(self.network.parameters())
        self.parts = {"network": self.network, "policy": self.policy, "inner": self.inner, "outer": self.outer}

    def run_epoch(self, epoch: int) -> dict[str, float]:
        generator = torch_generator(self.seed, "search", epoch, device=self.data.device)
        points = torch.arange(len(self.data.labels), device=self.data.device)
        rows: list[Tensor] = []
        for batch in epoch_batches(points, self.settings.batch_size, generator):
            changed, kept = batch.tensor_split(2)
            rows.append(self._step(changed, kept, generator))
        distance, penalty, train_loss, policy_loss = torch.stack(rows).mean(0).tolist()
        return {"distance": distance, "penalty": penalty, "train_loss": train_loss, "policy_loss": policy_loss}

    def found(self) -> FoundPolicy:
        shares, probability, level = self.policy.shares().detach(), self.policy.probability, self.policy.level
        sub_policies = tuple(
            tuple(
                rounded_step(operation, probability[number, stage, operation], level[number, stage, operation])
                for stage, operation in enumerate(stages)
            )
            for number, stages in enumerate(shares.argmax(2).tolist())
        )
        weights = {
            "shares of the operations": dict(zip(SEARCHED, shares.mean((0, 1)).tolist(), strict=True)),
            "largest share of each stage": shares.amax(2).tolist(),
        }
        return FoundPolicy(sub_policies, weights)

    def _step(self, changed: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
        """Moves the critic, then the policy.

        Returns the distance, the penalty, and the cross-entropies of the given and of the augmented images.
        """
        data, classes = self.data, self.data.classes
        changed = changed[: len(kept)]
        given = data.train_view(data.cropped(kept, generator), generator)
        made = data.train_view(self.policy(data.cropped(changed, generator), generator), generator)

        # Both halves in one batch: statistics of their own would hide from the critic what sets them apart.
        self.network.train()
        output = self.network(torch.cat([given, made.detach()]))
        score, score_made = output[:, classes].tensor_split(2)
        distance = score.mean() - score_made.mean()
        train_loss = F.cross_entropy(output[: len(kept), :classes], data.labels[kept])
        # In eval mode an image's score depends on no other image.
        self.network.eval()
        mix = torch.rand(len(kept), generator=generator, device=given.device)
        penalty = gradient_penalty(lambda images: self.network(images)[:, classes], given, made, mix)
        self.inner.zero_grad(set_to_none=True)
        (-distance + self.settings.penalty * penalty + self.settings.classification * train_loss).backward()
        self.inner.step()

        self.network.requires_grad_(False)
        output = self.network(made)
        policy_loss = F.cross_entropy(output[:, :classes], data.labels[changed])
        self.outer.zero_grad(set_to_none=True)
        (-output[:, classes].mean() + self.settings.classification * policy_loss).backward()
        self.outer.step()
        self.network.requires_grad_(True)
        self.policy.project()
        return torch.stack([distance, penalty, train_loss, policy_loss]).detach()
