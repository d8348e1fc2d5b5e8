"""DADA: the weights, probabilities and levels of all 105 pairs of operations, moved along the gradient of the val loss.

Half of the images are trained on, half give the val loss. A step draws sub-policies for a train batch, one for each
image, and takes the gradient of the train loss at theta; it gives theta' = theta - lr grad, and v = grad L_val(theta').
Then it draws sub-policies anew. With v held fixed, the quantity whose gradient the policy follows is

    J(phi) = E_b[f(b)],   f(b) = 1/B sum_i f_i(b_i),   f_i(b_i) = -lr <v, grad_theta loss_i(theta, b_i)>:

to first order what a train step with the drawn sub-policies b does to the val loss (`unrolled`). v comes from other
draws than b, and batch norm keeps the statistics of the first batch, so f_i depends on b_i alone: each image says of
its own sub-policy how much it helped, and RELAX (`pair_policy`) is unbiased for dJ/dphi in weights and probabilities.
Levels are not drawn; theirs is the gradient through the image, or straight-through (`smooth_operations`).
What is approximated: v held fixed, the central difference, and for some operations the derivative in the level.
Reference: Li et al., ECCV 2020.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from autodo.augment.policy_file import PolicyFile
from autodo.config.policy import DadaSearch, SearchedPolicy
from autodo.config.run import RunConfig
from autodo.data.batches import epoch_batches
from autodo.data.prepare import DataSplits
from autodo.search import dada_policy, relaxation
from autodo.search.gradient_search import FoundPolicy, SearchImages, Stateful, search_by_epochs, step_of
from autodo.search.smooth_operations import SEARCHED, LevelValues, apply_each
from autodo.search.tasks import ReportLine
from autodo.search.unrolled_step import Parameters, derivative_along, val_direction
from autodo.seeds import initial_weights, torch_generator
from autodo.training.schedule import learning_rate_factor

PAIRS = tuple(itertools.combinations(range(len(SEARCHED)), 2))
# Of the network's SGD: as in the trainings that the policy is for.
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
# Of the control variate's Adam (ours).
CONTROL_LR = 1e-2
# A gate that is always open or always closed would never be tried otherwise again.
GATE_RANGE = (0.05, 0.95)


def search(
    config: RunConfig, data: DataSplits, *, device: str, checkpoint: Path | None, tell: ReportLine
) -> PolicyFile:
    """The policy that DADA finds on a run's own train points, as they are observed.

    Args:
        data: from `autodo.data.prepare` with the same config; neither val nor test is read.
        checkpoint: file to continue from, if it exists, and to write to after every epoch.
        tell: gets a line per epoch.
    Raises:
        TrainingDiverged: if a loss is no longer finite.
    """
    build = functools.partial(Dada, config, data, device)
    return search_by_epochs(build, config, device=device, checkpoint=checkpoint, tell=tell)


class PairPolicy(nn.Module):
    """phi: softmax(weights) over the pairs; of each operation of a pair its probability and level.

    Levels begin uniformly in [0, 1]: at the paper's 0.5 the geometric operations and the enhancements do nothing, and
    because their sign is drawn the gradient there is zero on average.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(len(PAIRS)))
        self.probability = nn.Parameter(torch.full((len(PAIRS), 2), 0.5))
        self.level = nn.Parameter(torch.rand(len(PAIRS), 2, generator=generator))

    @torch.no_grad()
    def project(self) -> None:
        """Back into the ranges, after a step."""
        self.probability.clamp_(*GATE_RANGE)
        self.level.clamp_(0, 1)


class Dada:
    """One search; see `autodo.search.gradient_search.GradientSearch`."""

    def __init__(self, config: RunConfig, data: DataSplits, device: str) -> None:
        assert isinstance(config.policy, SearchedPolicy)
        assert isinstance(config.policy.search, DadaSearch)
        self.settings = config.policy.search
        self.epochs = self.settings.epochs
        self.seed = config.seed
        self.material = SearchImages(config, data, self.settings.images, self.settings.model, device)
        start = torch_generator(config.seed, "search", "start")
        self.train, self.val = (part.to(device) for part in halves(self.material.labels.cpu(), start))
        self.network = self.material.network()
        self.policy = PairPolicy(start).to(device)
        with initial_weights(int(torch.randint(2**31, (), generator=start))):
            self.control = dada_policy.ControlVariate(len(PAIRS)).to(device)
        self.setting = LevelValues()
        self.pairs = torch.tensor(PAIRS, device=device)
        self.inner = torch.optim.SGD(
            self.network.parameters(), lr=self.settings.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
        )
        # The paper's betas.
        self.outer = torch.optim.Adam(self.policy.parameters(), lr=self.settings.policy_lr, betas=(0.5, 0.999))
        self.control_optimizer = torch.optim.Adam(self.control.parameters(), lr=CONTROL_LR)
        self.parts: dict[str, Stateful] = {
            "network": self.network,
            "policy": self.policy,
            "control": self.control,
            "inner": self.inner,
            "outer": self.outer,
            "control optimizer": self.control_optimizer,
        }

    def run_epoch(self, epoch: int) -> dict[str, float]:
        generator = torch_generator(self.seed, "search", epoch, device=self.material.device)
        batches = list(self._batches(generator))
        rows: list[Tensor] = []
        for step, (train, val) in enumerate(batches):
            lr = self.settings.lr * learning_rate_factor(epoch + step / len(batches), self.epochs, 0)
            rows.append(self._step(train, val, lr, generator))
        train_loss, val_loss, variance = torch.stack(rows).mean(0).tolist()
        return {"train_loss": train_loss, "val_loss": val_loss, "gradient_square": variance}

    def found(self) -> FoundPolicy:
        weights = torch.softmax(self.policy.weights.detach(), 0)
        probability, level = self.policy.probability.detach(), self.policy.level.detach()
        best = weights.argsort(descending=True, stable=True)[: self.settings.keep].tolist()
        sub_policies = tuple(
            tuple(step_of(operation, probability[pair, k], level[pair, k]) for k, operation in enumerate(PAIRS[pair]))
            for pair in best
        )
        names = ["+".join(SEARCHED[operation] for operation in pair) for pair in PAIRS]
        return FoundPolicy(sub_policies, dict(zip(names, weights.tolist(), strict=True)))

    def _batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        size = self.settings.batch_size
        val = list(epoch_batches(self.val, size, generator))
        return zip(epoch_batches(self.train, size, generator), itertools.cycle(val), strict=False)

    def _step(self, train: Tensor, val: Tensor, lr: float, generator: torch.Generator) -> Tensor:
        """Moves the policy, then the network. Returns the two losses and the mean square of the policy's gradient."""
        labels = self.material.labels
        pixels = self.material.pixels(train, generator)
        theta = dict(self.network.named_parameters())

        # theta' from one draw of sub-policies; the same gradient is the network's step below.
        images = self._drawn_view(pixels, generator)
        self.network.train()
        train_loss = F.cross_entropy(self.network(images), labels[train])
        gradient = dict(zip(theta, torch.autograd.grad(train_loss, list(theta.values())), strict=True))
        self.network.eval()
        val_images = self.material.test_view(val)
        direction = val_direction(
            theta, gradient, lr, lambda moved: F.cross_entropy(self._logits(moved, val_images), labels[val])
        )

        def effect(images: Tensor) -> Tensor:
            """f_i / (lr |v|) of each image: the val loss goes down where it is negative. Shape: -> [B]."""

            def losses(parameters: Parameters) -> Tensor:
                return F.cross_entropy(self._logits(parameters, images), labels[train], reduction="none")

            return -derivative_along(direction.unit, theta, losses)

        estimate = self._by_relax if self.settings.estimator == "relax" else self._by_gumbel_softmax
        square = estimate(pixels, effect, lr * direction.length, generator)
        self.outer.step()
        self.policy.project()

        for name, value in theta.items():
            value.grad = gradient[name]
        for group in self.inner.param_groups:
            group["lr"] = lr
        self.inner.step()
        return torch.stack([train_loss.detach(), direction.loss, square])

    def _by_relax(
        self, pixels: Tensor, effect: Callable[[Tensor], Tensor], scale: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Sets the policy's gradients, moves the control variate, returns the mean square of the former."""
        policy, batch = self.policy, len(pixels)
        weights, probability = policy.weights.detach(), policy.probability.detach()
        noise = dada_policy.noise(batch, len(PAIRS), generator)
        drawn = dada_policy.draw(weights, probability, noise)
        level = policy.level.detach()[drawn.pair].requires_grad_()
        augmented = self._apply(pixels, drawn.pair, level, drawn.is_open.to(pixels.dtype), generator)
        same_erased = generator.clone_state()
        reward = effect(self.material.train_view(augmented, generator))
        with torch.no_grad():
            # Most of the variance is that of the images: what this one would do as it is (see `pair_policy`).
            untouched = effect(self.material.train_view(pixels, same_erased))
        by_level = _gradient(reward.sum(), level)
        found = dada_policy.relax_estimate(
            weights,
            probability,
            noise,
            drawn,
            dada_policy.leave_one_out(reward.detach() - untouched),
            self.control,
            self.settings.temperature,
        )
        square = found.weights.square().sum(1).mean() + found.probability.square().sum(1).mean()
        self.control_optimizer.zero_grad(set_to_none=True)
        square.backward()
        self.control_optimizer.step()
        share = scale / batch
        policy.weights.grad = share * found.weights.detach().sum(0)
        policy.probability.grad = torch.zeros_like(probability).index_add_(
            0, drawn.pair, share * found.probability.detach()
        )
        policy.level.grad = torch.zeros_like(probability).index_add_(0, drawn.pair, share * by_level)
        return square.detach()

    def _by_gumbel_softmax(
        self, pixels: Tensor, effect: Callable[[Tensor], Tensor], scale: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Sets the policy's gradients, through the image and straight through the draws, and returns their square.

        The image is x + w (S(x) - x) with w = 1 the drawn pair's weight: of the sum over all pairs only this term is
        computed, the others as if they did nothing.
        """
        policy, batch = self.policy, len(pixels)
        temperature = self.settings.temperature
        noise = dada_policy.noise(batch, len(PAIRS), generator)
        one_hot = relaxation.gumbel_softmax(policy.weights.expand(batch, -1), noise.pair, temperature)
        pair = one_hot.argmax(1)
        gate = relaxation.hard_gate(torch.logit(policy.probability[pair]), noise.gate, temperature)
        augmented = self._apply(pixels, pair, policy.level[pair], gate, generator, closed_too=True)
        weight = one_hot.gather(1, pair[:, None]).view(-1, 1, 1, 1)
        mixed = pixels + weight * (augmented - pixels)
        loss = scale * effect(self.material.train_view(mixed, generator)).mean()
        self.outer.zero_grad(set_to_none=True)
        loss.backward()
        square = torch.zeros((), device=pixels.device)
        for parameter in policy.parameters():
            assert parameter.grad is not None
            square += parameter.grad.square().sum()
        return square

    @torch.no_grad()
    def _drawn_view(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Images after sub-policies drawn from the policy."""
        policy = self.policy
        noise = dada_policy.noise(len(pixels), len(PAIRS), generator)
        drawn = dada_policy.draw(policy.weights, policy.probability, noise)
        gate = drawn.is_open.to(pixels.dtype)
        augmented = self._apply(pixels, drawn.pair, policy.level[drawn.pair], gate, generator)
        return self.material.train_view(augmented, generator)

    def _apply(
        self,
        pixels: Tensor,
        pair: Tensor,
        level: Tensor,
        gate: Tensor,
        generator: torch.Generator,
        *,
        closed_too: bool = False,
    ) -> Tensor:
        """Each image after its own pair of operations. Shape: pixels [B, C, H, W], pair [B], level, gate [B, 2]."""
        return apply_each(
            pixels,
            self.pairs[pair],
            level,
            gate,
            self.setting,
            generator,
            implementation=self.settings.implementation,
            closed_too=closed_too,
        )

    def _logits(self, parameters: Parameters, images: Tensor) -> Tensor:
        result: Tensor = functional_call(self.network, dict(parameters), (images,))
        return result


def halves(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two halves of the positions, the first no smaller, with as many images of each class as one more or less.

    A class of a single image is in one of them.

    Shape:
        labels [N] int64 -> [ceil(N / 2)], [floor(N / 2)] int64.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    return by_class[::2].sort().values, by_class[1::2].sort().values


def _gradient(value: Tensor, leaf: Tensor) -> Tensor:
    """d value / d leaf; zeros where no operation with a level was drawn."""
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(value, leaf, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found
