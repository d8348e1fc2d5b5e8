"""DADA: the weights, probabilities and levels of all 105 pairs of operations follow the gradient of the val loss.

Half of the images are trained on, half give the val loss. A step draws a sub-policy for each image of a train batch,
and takes the gradient of the train loss at theta, which gives theta' = theta - lr grad and v = grad L_val(theta'). Then
it draws other sub-policies. With v held fixed, the policy follows the gradient of

    J(phi) = E_b[f(b)],   f(b) = 1/B sum_i f_i(b_i),   f_i(b_i) = -lr <v, grad_theta loss_i(theta, b_i)>:

the change of the val loss by a train step with the drawn sub-policies b, to first order (`unrolled_step`). v comes from
other draws than b, and batch norm keeps the statistics of the first batch, so f_i depends on b_i alone: it measures how
much an image's own sub-policy helped, and RELAX (`dada_policy`) is unbiased for dJ/dphi in weights and probabilities.
Levels are not drawn; their gradient passes through the image, or straight through (`differentiable_operations`).
Approximations: v held fixed, the central difference, and for some operations the derivative in the level.
Reference: Li et al., ECCV 2020.
"""

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from autodo.config.policy import DadaSearch
from autodo.config.run import RunConfig
from autodo.data.batches import epoch_batches
from autodo.data.prepare import DataSplits
from autodo.search.gradient import dada_policy, relaxation
from autodo.search.gradient.dada_policy import PairPolicy
from autodo.search.gradient.differentiable_operations import SEARCHED, DifferentiableOperations
from autodo.search.gradient.gradient_search import FoundPolicy, GradientSearch, rounded_step
from autodo.search.gradient.unrolled_step import Parameters, derivative_along, val_direction
from autodo.seeds import initial_weights, torch_generator
from autodo.training.schedule import learning_rate_factor

PAIRS = tuple(itertools.combinations(range(len(SEARCHED)), 2))
# SGD settings of the network, as in the trainings that the policy is for.
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
# Learning rate of the control variate's Adam (ours).
CONTROL_LR = 1e-2


class Dada(GradientSearch):
    """One DADA search. Half of its images are trained on, the other half give the val loss."""

    settings: DadaSearch

    def __init__(self, config: RunConfig, data: DataSplits, device: str) -> None:
        super().__init__(config, data, device)
        settings = self.settings
        start = torch_generator(config.seed, "search", "start")
        self.train, self.val = (half.to(device) for half in halves(self.data.labels.cpu(), start))
        self.network = self.data.build_network(settings.model, config.seed)
        self.policy = PairPolicy(len(PAIRS), start).to(device)
        with initial_weights(int(torch.randint(2**31, (), generator=start))):
            self.control = dada_policy.ControlVariate(len(PAIRS)).to(device)
        self.operations = DifferentiableOperations(settings.implementation)
        self.pairs = torch.tensor(PAIRS, device=device)
        self.inner = torch.optim.SGD(
            self.network.parameters(), lr=settings.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
        )
        # The paper's betas.
        self.outer = torch.optim.Adam(self.policy.parameters(), lr=settings.policy_lr, betas=(0.5, 0.999))
        self.control_optimizer = torch.optim.Adam(self.control.parameters(), lr=CONTROL_LR)
        self.parts = {
            "network": self.network,
            "policy": self.policy,
            "control": self.control,
            "inner": self.inner,
            "outer": self.outer,
            "control optimizer": self.control_optimizer,
        }

    def run_epoch(self, epoch: int) -> dict[str, float]:
        generator = torch_generator(self.seed, "search", epoch, device=self.data.device)
        batches = list(self._batches(generator))
        rows: list[Tensor] = []
        for step, (train, val) in enumerate(batches):
            lr = self.settings.lr * learning_rate_factor(epoch + step / len(batches), self.settings.epochs, 0)
            rows.append(self._step(train, val, lr, generator))
        train_loss, val_loss, gradient_square = torch.stack(rows).mean(0).tolist()
        return {"train_loss": train_loss, "val_loss": val_loss, "gradient_square": gradient_square}

    def found(self) -> FoundPolicy:
        weights = torch.softmax(self.policy.weights.detach(), 0)
        probability, level = self.policy.probability, self.policy.level
        best = weights.argsort(descending=True, stable=True)[: self.settings.keep].tolist()
        sub_policies = tuple(
            tuple(
                rounded_step(operation, probability[pair, k], level[pair, k]) for k, operation in enumerate(PAIRS[pair])
            )
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
        labels = self.data.labels
        pixels = self.data.cropped(train, generator)
        theta = dict(self.network.named_parameters())

        # theta' from one draw of sub-policies; the same gradient is the network's step below.
        images = self._drawn_view(pixels, generator)
        self.network.train()
        train_loss = F.cross_entropy(self.network(images), labels[train])
        gradient = dict(zip(theta, torch.autograd.grad(train_loss, list(theta.values())), strict=True))
        self.network.eval()
        val_images = self.data.test_view(val)
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
        """Sets the policy's gradients and moves the control variate. Returns the gradients' mean square."""
        policy, batch = self.policy, len(pixels)
        weights, probability = policy.weights.detach(), policy.probability.detach()
        noise = dada_policy.noise(batch, len(PAIRS), generator)
        drawn = dada_policy.draw(weights, probability, noise)
        level = policy.level.detach()[drawn.pair].requires_grad_()
        gate = drawn.is_open.to(pixels.dtype)
        augmented = self.operations.apply_each(pixels, self.pairs[drawn.pair], level, gate, generator)
        same_erased = generator.clone_state()
        reward = effect(self.data.train_view(augmented, generator))
        with torch.no_grad():
            # Most of the variance is that of the images: what this one would do as it is (see `pair_policy`).
            untouched = effect(self.data.train_view(pixels, same_erased))
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
        """Sets the policy's gradients, through the image and straight through the draws. Returns their square.

        The image is x + w (S(x) - x) with w = 1 the drawn pair's weight: only this term of the sum over all pairs is
        computed, as if the other pairs did nothing.
        """
        policy, batch = self.policy, len(pixels)
        temperature = self.settings.temperature
        noise = dada_policy.noise(batch, len(PAIRS), generator)
        one_hot = relaxation.gumbel_softmax(policy.weights.expand(batch, -1), noise.pair, temperature)
        pair = one_hot.argmax(1)
        gate = relaxation.hard_gate(torch.logit(policy.probability[pair]), noise.gate, temperature)
        augmented = self.operations.apply_each(
            pixels, self.pairs[pair], policy.level[pair], gate, generator, closed_too=True
        )
        weight = one_hot.gather(1, pair[:, None]).view(-1, 1, 1, 1)
        mixed = pixels + weight * (augmented - pixels)
        loss = scale * effect(self.data.train_view(mixed, generator)).mean()
        self.outer.zero_grad(set_to_none=True)
        loss.backward()
        square = torch.zeros((), device=pixels.device)
        for parameter in policy.parameters():
            assert parameter.grad is not None
            square += parameter.grad.square().sum()
        return square

    @torch.no_grad()
    def _drawn_view(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Network inputs after sub-policies drawn from the policy."""
        policy = self.policy
        noise = dada_policy.noise(len(pixels), len(PAIRS), generator)
        drawn = dada_policy.draw(policy.weights, policy.probability, noise)
        gate = drawn.is_open.to(pixels.dtype)
        images = self.operations.apply_each(pixels, self.pairs[drawn.pair], policy.level[drawn.pair], gate, generator)
        return self.data.train_view(images, generator)

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
