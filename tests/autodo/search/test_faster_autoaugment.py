"""Faster AutoAugment: the critic's penalty, the mixtures, and whether it turns away from operations that harm."""

import pytest
import torch
from torch import Tensor

from autodo.policy_config import FasterAutoAugmentSearch
from autodo.search.faster_autoaugment import FasterAutoAugment, Policy, gradient_penalty
from autodo.search.smooth_operations import SEARCHED
from tests.autodo.search.toys import brightness_classes, search_run


def test_gradient_penalty_by_hand() -> None:
    """Of D(x) = <w, x^2> / 2 the gradient is w x, so the penalty is the mean of (|w x| - 1)^2 at the mixed images."""
    generator = torch.Generator().manual_seed(0)
    given, made = torch.randn(2, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    mix = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    weight = torch.rand(2, 4, 4, generator=generator, dtype=torch.float64).requires_grad_()

    def critic(images: Tensor) -> Tensor:
        return (weight * images.square()).sum((1, 2, 3)) / 2

    found = gradient_penalty(critic, given, made, mix)
    expected = torch.zeros((), dtype=torch.float64)
    by_weight = torch.zeros_like(weight)
    for image in range(3):
        x = mix[image] * given[image] + (1 - mix[image]) * made[image]
        length = (weight.detach() * x).square().sum().sqrt()
        expected += (length - 1) ** 2 / 3
        by_weight += 2 / 3 * (length - 1) / length * weight.detach() * x.square()
    assert torch.allclose(found, expected, rtol=1e-12)
    (found_by_weight,) = torch.autograd.grad(found, weight)
    assert torch.allclose(found_by_weight, by_weight, rtol=1e-10)


def build_policy(**settings: float) -> Policy:
    return Policy(FasterAutoAugmentSearch(**settings), torch.Generator().manual_seed(0))  # type: ignore[arg-type]


def test_a_mixture_of_one_operation_is_that_operation() -> None:
    policy = build_policy(temperature=1e-3)
    invert = SEARCHED.index("Invert")
    with torch.no_grad():
        policy.weights.zero_()
        policy.weights[:, :, invert] = 10.0
        policy.probability[:, 0] = 1 - 1e-6
        policy.probability[:, 1] = 1e-6
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    found = policy(images, torch.Generator().manual_seed(2))
    assert torch.allclose(found, 1 - images, atol=1e-3)


def test_every_number_of_the_policy_gets_a_gradient() -> None:
    policy = build_policy(temperature=0.5, operation_temperature=0.5)
    images = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    target = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    (policy(images, torch.Generator().manual_seed(2)) - target).square().mean().backward()
    has_level = torch.tensor([name not in ("AutoContrast", "Invert", "Equalize") for name in SEARCHED])
    assert policy.weights.grad is not None
    assert policy.probability.grad is not None
    assert policy.level.grad is not None
    assert (policy.weights.grad != 0).all()
    assert (policy.probability.grad != 0).all()
    assert torch.equal((policy.level.grad != 0).all(0).all(0), has_level)


@pytest.mark.parametrize("what", ["class", "brightness"])
def test_operations_that_harm_lose(what: str) -> None:
    """Dark images that get bright and bright ones that get dark.

    If the two are the classes, these images are like the given ones, and only the cross-entropy can tell. If only
    bright images are given, the critic alone must tell. The mean of three searches, since the game of policy and critic
    carries every rounding on: one of them says little.
    """
    changes, distances = zip(*(search_of(what, seed) for seed in range(3)), strict=True)
    change = {name: sum(one[name] for one in changes) / len(changes) for name in SEARCHED}
    assert change["Invert"] < 0.4
    assert change["Solarize"] < 0.7
    # On grey images this one does nothing.
    assert change["Color"] > 1
    first, last = (sum(ends) for ends in zip(*distances, strict=True))
    assert last < first


def search_of(what: str, seed: int) -> tuple[dict[str, float], tuple[float, float]]:
    """How the share of each operation has changed, and the distances of the first and the last epoch."""
    run = search_run(
        "faster-autoaugment",
        seed=seed,
        images=256,
        epochs=20,
        batch_size=64,
        lr=0.005,
        classification=1.0 if what == "class" else 0.0,
        operation_temperature=0.2,
    )
    data = brightness_classes(256)
    if what == "brightness":
        data.train.images[data.train.labels == 0] += 145
    search = FasterAutoAugment(run, data, "cpu")
    before = search.policy.shares().detach().mean((0, 1))
    rows = [search.run_epoch(epoch) for epoch in range(search.epochs)]
    after = search.policy.shares().detach().mean((0, 1))
    change = {name: float(after[number] / before[number]) for number, name in enumerate(SEARCHED)}
    return change, (rows[0]["distance"], rows[-1]["distance"])


def test_the_policy_is_the_largest_share_of_each_stage() -> None:
    search = FasterAutoAugment(search_run("faster-autoaugment", images=64), brightness_classes(64), "cpu")
    with torch.no_grad():
        search.policy.weights[3, 0, 6] = search.policy.weights[3, 1, 14] = 9.0
        search.policy.probability[3, 0, 6] = 0.25
        search.policy.level[3, 1, 14] = 0.125
    found = search.found()
    assert len(found.sub_policies) == 10
    first, second = found.sub_policies[3]
    assert (first[0], first[1]) == ("Invert", 0.25)
    assert (second[0], second[2]) == ("Cutout", 0.125)
