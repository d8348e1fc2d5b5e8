"""Derivatives of operations: exact where there is one, straight through where there is none."""

from unittest import mock

import pytest
import torch
from torch import Tensor

from autodo.augment.apply_draws import apply_draws
from autodo.augment.operations import OPERATIONS, to_float
from autodo.augment.policy_file import OperationName
from autodo.config.policy import Implementation
from autodo.search.gradient.differentiable_operations import (
    SEARCHED,
    DifferentiableOperations,
    differentiable,
    discrete,
    on_host,
)
from autodo.testing import pil_policy
from tests.autodo.augment.test_operations import VALUES, all_of

BOTH = pytest.mark.parametrize("implementation", ["own", "kornia"])
BY_IMAGE_TOO = ("Invert", "Solarize")
ENHANCEMENTS = ("Contrast", "Color", "Brightness", "Sharpness")


def images(channels: int = 3) -> Tensor:
    levels = torch.randint(1, 255, (4, channels, 6, 6), generator=torch.Generator().manual_seed(0))
    return levels.double() / 255


@pytest.mark.parametrize("name", ENHANCEMENTS)
def test_enhancements_are_the_exact_ones_without_the_cut(name: str) -> None:
    pictures = pil_policy.photographs(24, 20, 3)
    for value in VALUES[name]:
        pixels = to_float(pictures, torch.float64)
        smooth = differentiable("own")[name](pixels, torch.full((len(pixels),), value).double())
        exact = to_float(apply_draws(pictures, all_of(name, len(pictures), value)), torch.float64)
        # Up to float32's rounding, never above the smooth one, and never a whole level below it.
        assert (smooth - exact).min() > -1e-6, value
        assert (smooth - exact).max() < 1 / 255 + 1e-6, value


@pytest.mark.parametrize("name", ["AutoContrast", "Invert", "Equalize", "Solarize", "Posterize", "Cutout"])
def test_discrete_operations_are_exact(name: OperationName) -> None:
    pictures = pil_policy.photographs(24, 20, 3)
    for number in VALUES[name]:
        draws = all_of(name, len(pictures), number)
        pixels, value, centre = to_float(pictures, torch.float32), draws.value[:, 0], draws.centre[:, 0]
        exact = to_float(apply_draws(pictures, draws), torch.float32)
        assert torch.equal(discrete(name, pixels, value, centre), exact)
        found = DifferentiableOperations().apply(name, pixels, value, value, centre)
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in SEARCHED if OPERATIONS[name].exact is None])
def test_own_operations_have_true_derivatives(name: str) -> None:
    # Inside of (0, 1), so that nothing is clipped. Contrast, Color and Sharpness cut their base to whole levels, and
    # the gradient passes straight through the cut, so that only the one in the value can be checked by differences.
    operation = differentiable("own")[name]
    generator = torch.Generator().manual_seed(0)
    pixels = (0.3 + 0.4 * torch.rand(3, 3, 5, 6, generator=generator, dtype=torch.float64)).requires_grad_()
    middle = 0.6 if name in ENHANCEMENTS else 0.13
    value = torch.tensor([middle, middle + 0.02, middle - 0.05], dtype=torch.float64, requires_grad=True)
    if name in {"Contrast", "Color", "Sharpness"}:
        cut = operation(pixels, value)
        direction = torch.randn(cut.shape, generator=generator, dtype=torch.float64)
        (by_value,) = torch.autograd.grad((cut * direction).sum(), value)
        wide = [operation(pixels, value + step) for step in (0.1, -0.1)]
        expected = ((wide[0] - wide[1]) * direction).sum((1, 2, 3)) / 0.2
        torch.testing.assert_close(by_value, expected)
    else:
        assert torch.autograd.gradcheck(operation, (pixels, value))


def test_bilinear_is_nearest_where_pixels_meet_pixels() -> None:
    pictures = pil_policy.photographs(20, 20, 3)
    pixels = to_float(pictures, torch.float32)
    for name, value in (("TranslateX", 0.25), ("TranslateY", -0.25), ("Rotate", 90.0)):
        nearest = to_float(apply_draws(pictures, all_of(name, len(pictures), value)), torch.float32)
        smooth = differentiable("own")[name](pixels, torch.full((len(pictures),), value))
        torch.testing.assert_close(smooth, nearest, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", list(differentiable("kornia")))
def test_kornia_gives_the_same_images_within_two_levels(name: OperationName) -> None:
    """On photographs and on flat images, for the whole range of values and both signs."""
    operation = OPERATIONS[name]
    for channels, height, width in [(3, 32, 32), (3, 20, 36), (1, 28, 28), (1, 9, 8)]:
        pictures = pil_policy.photographs(height, width, channels).float() / 255
        # Not whole levels only: an operation gets what others made.
        pictures = (pictures + 0.002 * torch.rand(pictures.shape, generator=torch.Generator().manual_seed(0))).clamp(
            0, 1
        )
        for share in torch.linspace(0, 1, 11).tolist():
            for sign in (1, -1) if operation.signed else (1,):
                value = torch.full((len(pictures),), sign * (operation.low + share * (operation.high - operation.low)))
                own, kornia = (
                    DifferentiableOperations(implementation).apply(
                        name, pictures, value, value, torch.zeros(len(pictures), 2)
                    )
                    for implementation in ("own", "kornia")
                )
                assert (own - kornia).abs().max() <= 2 / 255, (channels, height, width, value[0])


def test_kornia_has_the_operations_that_have_a_derivative() -> None:
    assert set(differentiable("kornia")) == set(differentiable("own"))
    assert set(SEARCHED) - set(differentiable("kornia")) == {"AutoContrast", "Equalize", "Posterize", "Cutout"}


@pytest.mark.parametrize("name", list(differentiable("kornia")))
def test_kornias_operations_have_true_derivatives(name: OperationName) -> None:
    """In images and values, against central differences; inside of (0, 1), so that nothing is clipped."""
    generator = torch.Generator().manual_seed(0)
    pixels = (0.3 + 0.4 * torch.rand(3, 3, 5, 6, generator=generator, dtype=torch.float64)).requires_grad_()
    middle = 128.0 if name == "Solarize" else 0.9 if OPERATIONS[name].base else 0.13
    value = torch.tensor([middle, middle + 0.02, middle - 0.05], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(differentiable("kornia")[name], (pixels, value))


@BOTH
@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY", "Contrast", "Sharpness"])
def test_the_level_has_its_true_derivative(name: OperationName, implementation: Implementation) -> None:
    """Against a central difference, for a smooth image, with the drawn sign."""
    x = torch.linspace(-2, 2, 16, dtype=torch.float64)
    picture = (0.5 + 0.3 * torch.sin(2 * x[:, None] + x)).expand(4, 1, 16, 16)
    number = torch.full((4,), SEARCHED.index(name))
    operations = DifferentiableOperations(implementation)

    def total(level: Tensor) -> Tensor:
        value = operations.draw_values(number, level, torch.Generator().manual_seed(3))
        # Of the inner pixels: zeros move in at the border.
        found = operations.apply(name, picture, level, value, torch.zeros(4, 2))
        return (found[..., 5:11, 5:11] * x[5:11]).sum((1, 2, 3))

    level = torch.tensor([0.31, 0.42, 0.57, 0.66], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(total(level).sum(), level)
    step = 1e-6
    expected = ((total(level + step) - total(level - step)) / (2 * step)).detach()
    assert expected.abs().max() > 1e-3
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_operations_without_a_derivative_pass_gradients_straight_through() -> None:
    straight = [name for name in SEARCHED if OPERATIONS[name].exact is not None and name not in BY_IMAGE_TOO]
    assert straight == ["AutoContrast", "Equalize", "Posterize", "Cutout"]
    weight = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for name in straight:
        pixels = images().requires_grad_()
        level = torch.full((4,), 0.3, dtype=torch.float64, requires_grad=True)
        value = DifferentiableOperations().draw_values(
            torch.full((4,), SEARCHED.index(name)), level, torch.Generator().manual_seed(5)
        )
        result = (weight * DifferentiableOperations().apply(name, pixels, level, value, torch.full((4, 2), 0.5))).sum()
        by_pixels, by_level = torch.autograd.grad(result, (pixels, level), allow_unused=True)
        assert torch.equal(by_pixels, weight)
        if OPERATIONS[name].has_magnitude:
            assert torch.allclose(by_level, weight.sum((1, 2, 3)))
        else:
            assert by_level is None


@BOTH
def test_inverted_pixels_have_a_negative_derivative(implementation: Implementation) -> None:
    pixels = images().requires_grad_()
    for name, threshold in (("Invert", 0.0), ("Solarize", 128.0)):
        level = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        operations = DifferentiableOperations(implementation)
        result = operations.apply(name, pixels, level, torch.full((4,), threshold), torch.zeros(4, 2))
        found, by_level = torch.autograd.grad(result.sum(), (pixels, level), allow_unused=True)
        assert torch.equal(found, torch.where(pixels * 255 < threshold, 1.0, -1.0).double())
        assert by_level is None if name == "Invert" else torch.equal(by_level, torch.full_like(level, 3 * 36))


def test_each_image_gets_its_own_operations() -> None:
    """Grouped by operation, as one after another."""
    pixels = images().float()
    operation = torch.tensor([[6, 0], [0, 6], [6, 6], [9, 6]])  # Invert is 6
    gate = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    level = torch.full((4, 2), 0.5)
    found = DifferentiableOperations().apply_each(pixels, operation, level, gate, torch.Generator().manual_seed(0))
    expected = torch.stack([1 - pixels[0], 1 - pixels[1], 1 - (1 - pixels[2]), pixels[3]])
    assert SEARCHED[6] == "Invert"
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_closed_gate_has_a_derivative_if_asked_for() -> None:
    pixels = images().float()
    gate = torch.zeros(4, 1, requires_grad=True)
    operation = torch.full((4, 1), SEARCHED.index("Invert"))
    found = DifferentiableOperations().apply_each(
        pixels, operation, torch.zeros(4, 1), gate, torch.Generator().manual_seed(0), closed_too=True
    )
    assert torch.equal(found, pixels)
    (by_gate,) = torch.autograd.grad(found.sum(), gate)
    assert torch.allclose(by_gate[:, 0], (1 - 2 * pixels).sum((1, 2, 3)), rtol=1e-4)


def test_the_host_waits_once_for_all_steps() -> None:
    """Groups are formed from one copy of the choices, and are those of each step by itself."""
    draw = torch.Generator().manual_seed(0)
    pixels = images()
    operation = torch.randint(len(SEARCHED), (4, 3), generator=draw)
    gate = (torch.rand(4, 3, generator=draw) > 0.3).double()
    level = torch.full((4, 3), 0.5, dtype=torch.float64)
    module = "autodo.search.gradient.differentiable_operations.on_host"
    with mock.patch(module, side_effect=on_host) as copied:
        DifferentiableOperations("own").apply_each(pixels, operation, level, gate, draw)
    assert copied.call_count == 1
    (chosen,) = copied.call_args.args
    assert torch.equal(chosen >= 0, gate > 0)
    assert torch.equal(chosen[gate > 0], operation[gate > 0])
