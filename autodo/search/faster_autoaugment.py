"""Faster AutoAugment: sub-policies whose images a critic cannot tell from the given ones.

A stage of a sub-policy is the mixture

    x + sum_o softmax(weights / operation temperature)_o g_o (O_o(x; level_o) - x),   g_o a relaxed Bernoulli gate,

of all operations, which is differentiable in all that is learned. In each batch one half of the images, after a
sub-policy drawn for each, is held against the other half as it is: the critic maximises the difference of its means,
with a gradient penalty (WGAN-GP); the policy minimises it, and the cross-entropy of the critic's second head, which
learns to classify the given images, so that the operations may not change what is seen.
Reference: Hataya et al., ECCV 2020; Gulrajani et al., NeurIPS 2017, section 4.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autodo.augment.policy_file import PolicyFile
from autodo.config.policy import FasterAutoAugmentSearch, SearchedPolicy
from autodo.config.run import RunConfig
from autodo.data.batches import epoch_batches
from autodo.data.prepare import DataSplits
from autodo.search import relaxation
from autodo.search.gradient_search import FoundPolicy, SearchImages, Stateful, search_by_epochs, step_of
from autodo.search.smooth_operations import SEARCHED, LevelValues, apply_smooth, centres
from autodo.search.tasks import ReportLine
from autodo.seeds import torch_generator

GATE_RANGE = (0.01, 0.99)


def search(
    config: RunConfig, data: DataSplits, *, device: str, checkpoint: Path | None, tell: ReportLine
) -> PolicyFile:
    """The policy that Faster AutoAugment finds on a run's own train points, as they are observed.

    Args:
        data: from `autodo.data.prepare` with the same config; neither val nor test is read.
        checkpoint: file to continue from, if it exists, and to write to after every epoch.
        tell: gets a line per epoch.
    Raises:
        TrainingDiverged: if a loss is no longer finite.
    """
    build = functools.partial(FasterAutoAugment, config, data, device)
    return search_by_epochs(build, config, device=device, checkpoint=checkpoint, tell=tell)


class MixturePolicy(nn.Module):
    """Sub-policies x stages x operations: weights, probabilities and levels, all of which begin at random.

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
        self._setting = LevelValues()

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images after the mixtures of a sub-policy drawn for each. Shape: [B, C, H, W] in [0, 1] -> the same."""
        batch, device = len(images), images.device
        sub_policy = torch.randint(len(self.weights), (batch,), generator=generator, device=device)
        operations = torch.arange(len(SEARCHED), device=device).expand(batch, -1)
        for stage in range(self.weights.shape[1]):
            level = self.level[sub_policy, stage]
            value = self._setting.values(operations, level, generator)
            noise = relaxation.uniform(level.shape, generator, level.dtype)
            gate = relaxation.relaxed_gate(
                torch.logit(self.probability[sub_policy, stage]), noise, self.settings.temperature
            )
            amount = self.shares()[sub_policy, stage] * gate
            centre = centres(batch, generator)
            mixed = images
            for number, name in enumerate(SEARCHED):
                changed = apply_smooth(
                    name, images, level[:, number], value[:, number], centre, self.settings.implementation
                )
                mixed = mixed + amount[:, number].view(-1, 1, 1, 1) * (changed - images)
            images = mixed.clamp(0, 1)
        return images

    def shares(self) -> Tensor:
        """Of each operation in its stage. Shape: -> [S, L, O], sums 1 over O."""
        return torch.softmax(self.weights / self.settings.operation_temperature, 2)

    @torch.no_grad()
    def project(self) -> None:
        """Back into the ranges, after a step."""
        self.probability.clamp_(*GATE_RANGE)
        self.level.clamp_(0, 1)


def gradient_penalty(critic: Callable[[Tensor], Tensor], given: Tensor, made: Tensor, mix: Tensor) -> Tensor:
    """Mean of (|grad critic(x)| - 1)^2 at x = mix given + (1 - mix) made, differentiable in the critic.

    Args:
        critic: images to a number each, which depends on the other images of the batch in no way.
    Shape:
        given, made [B, C, H, W], mix [B] in [0, 1] -> [].
    Reference: Gulrajani et al. 2017, eq. (3).
    """
    between = torch.lerp(made.detach(), given.detach(), mix.view(-1, 1, 1, 1)).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


class FasterAutoAugment:
    """One search; see `autodo.search.gradient_search.GradientSearch`."""

    def __init__(self, config: RunConfig, data: DataSplits, device: str) -> None:
        assert isinstance(config.policy, SearchedPolicy)
        assert isinstance(config.policy.search, FasterAutoAugmentSearch)
        self.settings = config.policy.search
        self.epochs = self.settings.epochs
        self.seed = config.seed
        self.material = SearchImages(config, data, self.settings.images, self.settings.model, device)
        self.network = self.material.network(1)
        self.policy = MixturePolicy(self.settings, torch_generator(config.seed, "search", "start")).to(device)
        # The paper's betas.
        adam = functools.partial(torch.optim.Adam, lr=self.settings.lr, betas=(0.0, 0.999))
        self.outer = adam(self.policy.parameters())
        self.inner = adam(self.network.parameters())
        self.parts: dict[str, Stateful] = {
            "network": self.network,
            "policy": self.policy,
            "inner": self.inner,
            "outer": self.outer,
        }

    def run_epoch(self, epoch: int) -> dict[str, float]:
        generator = torch_generator(self.seed, "search", epoch, device=self.material.device)
        points = torch.arange(len(self.material.labels), device=self.material.device)
        rows: list[Tensor] = []
        for batch in epoch_batches(points, self.settings.batch_size, generator):
            changed, kept = batch.tensor_split(2)
            rows.append(self._step(changed, kept, generator))
        distance, penalty, given, made = torch.stack(rows).mean(0).tolist()
        return {"distance": distance, "penalty": penalty, "train_loss": given, "policy_loss": made}

    def found(self) -> FoundPolicy:
        shares, probability, level = (
            part.detach() for part in (self.policy.shares(), self.policy.probability, self.policy.level)
        )
        sub_policies = tuple(
            tuple(
                step_of(operation, probability[number, stage, operation], level[number, stage, operation])
                for stage, operation in enumerate(stages)
            )
            for number, stages in enumerate(shares.argmax(2).tolist())
        )
        told = {
            "shares of the operations": dict(zip(SEARCHED, shares.mean((0, 1)).tolist(), strict=True)),
            "largest share of each stage": shares.amax(2).tolist(),
        }
        return FoundPolicy(sub_policies, told)

    def _step(self, changed: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
        """Moves the critic, then the policy.

        Returns the distance, the penalty, and the cross-entropies of the given and of the augmented images.
        """
        material, classes = self.material, self.material.classes
        changed = changed[: len(kept)]
        given = material.train_view(material.pixels(kept, generator), generator)
        made = material.train_view(self.policy(material.pixels(changed, generator), generator), generator)

        # Both halves in one batch: statistics of their own would hide from the critic what sets them apart.
        self.network.train()
        output = self.network(torch.cat([given, made.detach()]))
        score, score_made = output[:, classes].tensor_split(2)
        distance = score.mean() - score_made.mean()
        train_loss = F.cross_entropy(output[: len(kept), :classes], material.labels[kept])
        # In eval mode an image's score depends on no other image.
        self.network.eval()
        mix = torch.rand(len(kept), generator=generator, device=given.device)
        penalty = gradient_penalty(lambda images: self.network(images)[:, classes], given, made, mix)
        self.inner.zero_grad(set_to_none=True)
        (-distance + self.settings.penalty * penalty + self.settings.classification * train_loss).backward()
        self.inner.step()

        self.network.requires_grad_(False)
        output = self.network(made)
        policy_loss = F.cross_entropy(output[:, :classes], material.labels[changed])
        self.outer.zero_grad(set_to_none=True)
        (-output[:, classes].mean() + self.settings.classification * policy_loss).backward()
        self.outer.step()
        self.network.requires_grad_(True)
        self.policy.project()
        return torch.stack([distance, penalty, train_loss, policy_loss]).detach()
