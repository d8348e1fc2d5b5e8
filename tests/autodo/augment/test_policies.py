"""What the policies draw, against their definitions; torchvision's own tables are the oracle of three of them."""

from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torchvision import transforms

from autodo.augment import policies
from autodo.augment.apply_draws import apply_draws
from autodo.augment.magnitude_ranges import AUTOAUGMENT, COLOUR, ORIGINAL, PAPER, PUBLISHED, WIDE, MagnitudeRange
from autodo.augment.operations import NAMES, OPERATIONS
from autodo.augment.policies import Draws, build_policy
from autodo.augment.policy_file import PolicyFile
from autodo.config.policy import (
    AutoAugment,
    Colour,
    FastAutoAugmentSearch,
    FilePolicy,
    OhlSearch,
    PolicyConfig,
    RandAugment,
    SearchedPolicy,
    TrivialAugment,
    UniformAugment,
)
from autodo.testing import pil_policy

MANY = 20_000
# Five standard deviations of a share of MANY.
BOUND = 5 * 0.5 / MANY**0.5

MADE_UP = PolicyFile(
    sub_policies=(
        (("Rotate", 1.0, 0.9), ("Invert", 0.5, 0.0), ("Cutout", 0.25, 1.0)),
        (("Color", 0.0, 0.5),),
        (("ShearX", 1.0, 0.0), ("Posterize", 1.0, 0.3)),
    )
)
SCHEDULE = PolicyFile.model_validate(
    {
        "schedule": [
            {"from": 0.0, "operations": [["Rotate", 1.0, 0.2], ["Invert", 1.0, 0.0], ["Color", 1.0, 0.7]]},
            {"from": 0.5, "operations": [["Brightness", 0.5, 1.0]]},
        ]
    }
)
WEIGHTED = PolicyFile.model_validate(
    {
        "sub_policies": MADE_UP.sub_policies,
        "schedule": [{"from": 0.0, "weights": [1.0, 0.0, 3.0]}, {"from": 0.5, "weights": [0.0, 1.0, 0.0]}],
    }
)
POLICIES: dict[str, tuple[PolicyConfig, PolicyFile | None]] = {
    "paper": (RandAugment(draws=3, magnitude=15), None),
    "original": (RandAugment(operations="original", draws=2, magnitude=9, fixed=True), None),
    "colour": (Colour(draws=1, magnitude=15), None),
    "autoaugment": (AutoAugment(table="svhn"), None),
    "trivialaugment": (TrivialAugment(), None),
    "uniformaugment": (UniformAugment(), None),
    "sub-policies": (FilePolicy(path="some.json"), MADE_UP),
    "schedule": (SearchedPolicy(search=FastAutoAugmentSearch()), SCHEDULE),
    "weights": (SearchedPolicy(search=OhlSearch()), WEIGHTED),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(config: PolicyConfig, found: PolicyFile | None = None, count: int = MANY) -> Draws:
    return build_policy(config, found).draw(count, generator())


def values_of(draws: Draws, name: str) -> Tensor:
    """Of one operation, over all images and steps."""
    return draws.value[draws.operation == NAMES.index(name)]


def shares(draws: Draws) -> dict[str, float]:
    """Of each operation that was drawn."""
    counts = torch.bincount(draws.operation.reshape(-1), minlength=len(NAMES)) / draws.operation.numel()
    return {name: count for name, count in zip(NAMES, counts.tolist(), strict=True) if count}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_engine_does_what_pil_does_image_by_image(name: str, channels: int) -> None:
    images = pil_policy.photographs(32, 32, channels)
    for seed in range(5):
        draws = build_policy(*POLICIES[name]).draw(len(images), generator(seed))
        before = images.clone()
        assert torch.equal(apply_draws(images, draws), pil_policy.apply(images, draws))
        assert torch.equal(images, before)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("batch", [0, 1])
def test_tiny_batches(name: str, batch: int) -> None:
    images = pil_policy.photographs(12, 12, 3)[:batch]
    draws = build_policy(*POLICIES[name]).draw(batch, generator())
    assert torch.equal(apply_draws(images, draws), pil_policy.apply(images, draws))


def test_float_images_are_taken_as_whole_levels() -> None:
    images = pil_policy.photographs(20, 20, 3)
    draws = build_policy(*POLICIES["paper"]).draw(len(images), generator())
    pixels = images.double() / 255
    assert torch.equal(apply_draws(pixels, draws), apply_draws(images, draws).double() / 255)
    assert torch.equal(pixels, images.double() / 255)


@pytest.mark.parametrize("name", POLICIES)
def test_draws_are_the_generators_alone(name: str) -> None:
    policy = build_policy(*POLICIES[name])
    first, again, other = (policy.draw(50, generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.centre, other.centre)
    assert first.operation.dtype == torch.int64
    assert (first.centre >= 0).all()
    assert (first.centre < 1).all()
    assert policy.at(0.9) is policy or name in ("schedule", "weights")


@pytest.mark.parametrize(
    ("config", "ranges"),
    [
        (RandAugment(draws=3, magnitude=15), PAPER),
        (RandAugment(operations="original", draws=3, magnitude=15), ORIGINAL),
        (Colour(draws=3, magnitude=15), COLOUR),
        (TrivialAugment(), WIDE),
    ],
)
def test_operations_are_drawn_uniformly(config: PolicyConfig, ranges: dict[str, MagnitudeRange]) -> None:
    found = shares(drawn(config))
    assert set(found) == set(ranges)
    assert all(abs(share - 1 / len(ranges)) < BOUND for share in found.values())


def test_the_sets_of_randaugment() -> None:
    assert (len(PAPER), len(COLOUR), len(ORIGINAL)) == (11, 6, 14)
    assert all(OPERATIONS[name].matrix is None for name in COLOUR)
    assert len(PUBLISHED) == 15


@pytest.mark.parametrize("fixed", [True, False])
def test_randaugments_magnitudes(fixed: bool) -> None:
    draws = drawn(RandAugment(draws=2, magnitude=15, fixed=fixed))
    assert draws.operation.shape == (MANY, 2)
    for name, middle, reach in (("Rotate", 0, 15), ("TranslateX", 0, 0.225), ("ShearY", 0, 0.15), ("Color", 1, 0.45)):
        strength = (values_of(draws, name) - middle) / reach
        assert abs((strength > 0).float().mean() - 0.5) < 4 * BOUND
        if fixed:
            torch.testing.assert_close(strength.abs(), torch.ones_like(strength))
        else:
            assert strength.abs().max() <= 1 + 1e-6
            assert strength.abs().max() > 0.99
            assert abs(strength.abs().mean() - 0.5) < 4 * BOUND
    assert drawn(RandAugment(draws=1, magnitude=0, fixed=True)).value.unique().tolist() == [0, 1]


@pytest.mark.parametrize("config", [RandAugment, Colour])
def test_the_published_factors_begin_at_a_tenth(config: type[RandAugment | Colour]) -> None:
    draws = drawn(config(draws=2, magnitude=15, factors="from-0.1"))
    for name in ("Color", "Sharpness"):
        factors = values_of(draws, name)
        assert factors.min() >= 0.1
        assert factors.max() <= 1.0 + 1e-6
        assert abs(factors.mean() - 0.55) < 4 * BOUND
    if config is RandAugment:
        assert values_of(draws, "Rotate").abs().max() > 14, "other operations keep their ranges"
        with pytest.raises(ValidationError, match=r"factors 'from-0\.1' needs operations 'paper', not 'original'"):
            RandAugment(operations="original", draws=1, magnitude=1, factors="from-0.1")
    assert "factors" not in config(draws=2, magnitude=15).model_dump(), "earlier ids stay valid"


def test_randaugments_original_is_torchvisions() -> None:
    for magnitude in (0, 4, 9, 17, 30):
        space = transforms.RandAugment()._augmentation_space(31, (331, 331))
        assert set(space) == set(ORIGINAL)
        draws = drawn(RandAugment(operations="original", draws=2, magnitude=magnitude, fixed=True), count=2000)
        for name, (magnitudes, signed) in space.items():
            if magnitudes.ndim:
                assert_like_torchvision(name, values_of(draws, name), float(magnitudes[magnitude]), signed, side=331)


def test_trivialaugment_is_torchvisions() -> None:
    space = transforms.TrivialAugmentWide()._augmentation_space(31)
    assert {name.removesuffix("Pixels") for name in WIDE} == set(space)
    draws = drawn(TrivialAugment())
    for name in WIDE:
        magnitudes, signed = space[name.removesuffix("Pixels")]
        if magnitudes.ndim:
            expected = {in_our_units(name, float(magnitude), sign) for magnitude in magnitudes for sign in (1, -1)}
            if not signed:
                expected = {in_our_units(name, float(magnitude), 1) for magnitude in magnitudes}
            cut = torch.floor if name == "Posterize" else torch.clone
            found = {round(value, 4) for value in cut(values_of(draws, name)).tolist()}
            assert found == {round(value, 4) for value in expected}, name


def in_our_units(name: str, magnitude: float, sign: int) -> float:
    """torchvision's magnitudes of the enhancements are differences from 1."""
    return 1 + sign * magnitude if name in {"Brightness", "Color", "Contrast", "Sharpness"} else sign * magnitude


def assert_like_torchvision(name: str, values: Tensor, magnitude: float, signed: bool, side: int) -> None:
    """All values are torchvision's magnitude, and both signs occur if it draws one."""
    if name.startswith("Translate"):
        values = values * side
    if name == "Posterize":
        values = values.floor()
    expected = {in_our_units(name, magnitude, sign) for sign in ((1, -1) if signed else (1,))}
    torch.testing.assert_close(values.unique(), torch.tensor(sorted(expected)))


@pytest.mark.parametrize("table", ["cifar10", "svhn", "imagenet"])
def test_autoaugment_is_torchvisions(table: str) -> None:
    oracle = transforms.AutoAugment(transforms.AutoAugmentPolicy(table))
    space = oracle._augmentation_space(10, (331, 331))
    assert {name for steps in oracle.policies for name, _, _ in steps} <= set(AUTOAUGMENT)
    policy = policies.autoaugment(table)
    # The same sub-policies: each of torchvision's alone draws what it says.
    for steps in oracle.policies:
        alone = policies.SubPolicies([[(name, p, (bin_ or 0) / 9) for name, p, bin_ in steps]], AUTOAUGMENT)
        draws = alone.draw(2000, generator())
        for step, (name, probability, bin_) in enumerate(steps):
            applied = draws.operation[:, step] == NAMES.index(name)
            assert abs(applied.float().mean() - probability) < 5 * 0.5 / 2000**0.5
            magnitudes, signed = space[name]
            if bin_ is not None and probability:
                value = draws.value[:, step][applied]
                assert_like_torchvision(name, value, float(magnitudes[bin_]), signed, side=331)
    # And all of them: the frequency of each operation.
    expected = dict.fromkeys(NAMES, 0.0)
    for name, probability, _ in (step for steps in oracle.policies for step in steps):
        expected[name] += probability / 50
    expected["Identity"] = 1 - sum(expected.values())
    found = shares(policy.draw(MANY, generator()))
    assert all(abs(found.get(name, 0.0) - share) < BOUND for name, share in expected.items())


def test_uniformaugment() -> None:
    draws = drawn(UniformAugment(draws=3))
    found = shares(draws)
    # Applied with a probability that is U(0, 1): half of the time.
    assert abs(found.pop("Identity") - 1 / 2) < BOUND
    assert set(found) == set(PUBLISHED)
    assert all(abs(share - 1 / 30) < BOUND for share in found.values())
    for name, low, high in (("Rotate", -30, 30), ("Solarize", 0, 256), ("Cutout", 0, 0.2), ("Color", 0.1, 1.9)):
        unit = (values_of(draws, name) - low) / (high - low)
        assert (unit.min() >= -1e-6, unit.max() <= 1 + 1e-6) == (True, True)
        quarters = torch.quantile(unit, torch.tensor([0.25, 0.5, 0.75]))
        torch.testing.assert_close(quarters, torch.tensor([0.25, 0.5, 0.75]), rtol=0, atol=0.05)


def test_sub_policies_of_different_lengths() -> None:
    draws = drawn(FilePolicy(path="some.json"), MADE_UP)
    assert draws.operation.shape == (MANY, 3)
    found = [shares(Draws(*(column[:, step : step + 1] for column in draws))) for step in range(3)]
    expectations = [{"Rotate": 1 / 3, "ShearX": 1 / 3}, {"Invert": 1 / 6, "Posterize": 1 / 3}, {"Cutout": 1 / 12}]
    for step, expected in enumerate(expectations):
        rest = {"Identity": 1 - sum(expected.values())}
        assert set(found[step]) == set(expected | rest)
        assert all(abs(found[step][name] - share) < BOUND for name, share in (expected | rest).items())
    # The published meaning of a level: low + level (high - low), then either sign.
    torch.testing.assert_close(values_of(draws, "Rotate").unique(), torch.tensor([-24.0, 24.0]))
    torch.testing.assert_close(values_of(draws, "ShearX").unique(), torch.tensor([-0.3, 0.3]))
    torch.testing.assert_close(values_of(draws, "Posterize").unique(), torch.tensor([5.2]))
    assert abs((values_of(draws, "Rotate") > 0).float().mean() - 0.5) < 2 * BOUND


def test_a_schedule_applies_0_1_or_2_operations_in_random_order() -> None:
    draws = drawn(FilePolicy(path="some.json"), SCHEDULE)
    assert draws.operation.shape == (MANY, 2)
    applied = (draws.operation > 0).sum(1)
    for count, probability in enumerate((0.2, 0.3, 0.5)):
        assert abs((applied == count).float().mean() - probability) < BOUND
    # All are certain to be applied when tried, so each ordered pair of different ones is equally likely.
    pairs = draws.operation[applied == 2]
    assert (pairs[:, 0] != pairs[:, 1]).all()
    kinds, counts = pairs.unique(dim=0, return_counts=True)
    assert len(kinds) == 6
    torch.testing.assert_close(counts / len(pairs), torch.full((6,), 1 / 6), rtol=0, atol=2 * BOUND)
    # Where one is applied, it is the first step.
    assert (draws.operation[applied == 1][:, 0] > 0).all()


def test_a_schedule_skips_what_its_probability_rejects() -> None:
    # With k >= 1 (probability 0.8), the only operation is applied with its own probability 0.5.
    policy = build_policy(FilePolicy(path="some.json"), SCHEDULE).at(0.5)
    draws = policy.draw(MANY, generator())
    assert draws.operation.shape == (MANY, 1)
    assert abs(shares(draws)["Brightness"] - 0.4) < BOUND
    operations = [["Invert", 0.5, 0.0], ["Equalize", 0.5, 0.0], ["AutoContrast", 0.0, 0.0]]
    schedule = PolicyFile.model_validate({"schedule": [{"from": 0, "operations": operations}]})
    draws = drawn(FilePolicy(path="some.json"), schedule)
    applied = (draws.operation > 0).sum(1)
    # Two: k = 2 and both hit. None: k = 0, or k >= 1 and both missed.
    assert abs((applied == 2).float().mean() - 0.5 * 0.25) < BOUND
    assert abs((applied == 0).float().mean() - (0.2 + 0.8 * 0.25)) < BOUND
    assert set(shares(draws)) == {"Identity", "Invert", "Equalize"}


def test_a_schedules_stages() -> None:
    schedule = build_policy(FilePolicy(path="some.json"), SCHEDULE)
    stages = [schedule.at(progress) for progress in (0.0, 0.49, 0.5, 0.99)]
    assert [a is b for a, b in pairwise(stages)] == [True, False, True]
    assert stages[0].at(0.9) is stages[0]
    first, of_stage = schedule.draw(50, generator()), stages[0].draw(50, generator())
    assert torch.equal(first.operation, of_stage.operation)


def test_sub_policies_are_drawn_by_the_weights_of_a_stage() -> None:
    schedule = build_policy(*POLICIES["weights"])
    first = schedule.draw(MANY, generator()).operation[:, 0]
    share = (first == NAMES.index("Rotate")).double().mean()
    assert abs(share - 1 / 4) < BOUND
    assert set(first.tolist()) == {NAMES.index("Rotate"), NAMES.index("ShearX")}
    assert not schedule.at(0.5).draw(50, generator()).operation.any(), "Color has the probability 0"


@pytest.mark.parametrize("config", [POLICIES["sub-policies"][0], POLICIES["schedule"][0]])
def test_a_policy_that_was_not_found_is_named(config: PolicyConfig) -> None:
    with pytest.raises(AssertionError, match="before the training"):
        build_policy(config)
