"""Derivatives of operations: exact where there is one, straight through where there is none."""

import pytest
import torch
from torch import Tensor

from autodo.augment.operations import OPERATIONS, operate
from autodo.augment.policy_file import OperationName
from autodo.config.policy import Implementation
from autodo.search.smooth_operations import SEARCHED, LevelValues, apply_each, apply_smooth, centres, differentiable
from tests import pil_policy

BOTH = pytest.mark.parametrize("implementation", ["own", "kornia"])
BY_IMAGE_TOO = ("Invert", "Solarize")


def images(channels: int = 3) -> Tensor:
    levels = torch.randint(1, 255, (4, channels, 6, 6), generator=torch.Generator().manual_seed(0))
    return levels.double() / 255


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_image_is_the_operations(name: OperationName, channels: int) -> None:
    level = torch.tensor([0.1, 0.4, 0.7, 0.95])
    number = torch.full((4,), SEARCHED.index(name))
    value = LevelValues().values(number, level, torch.Generator().manual_seed(1))
    centre = centres(4, torch.Generator().manual_seed(2))
    found = apply_smooth(name, images(channels), level, value, centre)
    assert torch.allclose(found, operate(name, images(channels), value.double(), centre), atol=1e-12)


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
                    apply_smooth(name, pictures, value, value, torch.zeros(len(pictures), 2), implementation)
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
    setting = LevelValues()

    def total(level: Tensor) -> Tensor:
        value = setting.values(number, level, torch.Generator().manual_seed(3))
        # Of the inner pixels: zeros move in at the border.
        found = apply_smooth(name, picture, level, value, torch.zeros(4, 2), implementation)
        return (found[..., 5:11, 5:11] * x[5:11]).sum((1, 2, 3))

    level = torch.tensor([0.31, 0.42, 0.57, 0.66], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(total(level).sum(), level)
    step = 1e-6
    expected = ((total(level + step) - total(level - step)) / (2 * step)).detach()
    assert expected.abs().max() > 1e-3
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_operations_without_a_derivative_pass_gradients_straight_through() -> None:
    straight = [name for name in SEARCHED if not OPERATIONS[name].differentiable and name not in BY_IMAGE_TOO]
    assert straight == ["AutoContrast", "Equalize", "Posterize", "Cutout"]
    weight = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for name in straight:
        pixels = images().requires_grad_()
        level = torch.full((4,), 0.3, dtype=torch.float64, requires_grad=True)
        value = LevelValues().values(torch.full((4,), SEARCHED.index(name)), level, torch.Generator().manual_seed(5))
        result = (weight * apply_smooth(name, pixels, level, value, torch.full((4, 2), 0.5))).sum()
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
        result = apply_smooth(name, pixels, level, torch.full((4,), threshold), torch.zeros(4, 2), implementation)
        found, by_level = torch.autograd.grad(result.sum(), (pixels, level), allow_unused=True)
        assert torch.equal(found, torch.where(pixels * 255 < threshold, 1.0, -1.0).double())
        assert by_level is None if name == "Invert" else torch.equal(by_level, torch.full_like(level, 3 * 36))


def test_each_image_gets_its_own_operations() -> None:
    """Grouped by operation, as one after another."""
    pixels = images().float()
    operation = torch.tensor([[6, 0], [0, 6], [6, 6], [9, 6]])  # Invert is 6
    gate = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    level = torch.full((4, 2), 0.5)
    found = apply_each(pixels, operation, level, gate, LevelValues(), torch.Generator().manual_seed(0))
    expected = torch.stack([1 - pixels[0], 1 - pixels[1], 1 - (1 - pixels[2]), pixels[3]])
    assert SEARCHED[6] == "Invert"
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_closed_gate_has_a_derivative_if_asked_for() -> None:
    pixels = images().float()
    gate = torch.zeros(4, 1, requires_grad=True)
    operation = torch.full((4, 1), SEARCHED.index("Invert"))
    found = apply_each(
        pixels, operation, torch.zeros(4, 1), gate, LevelValues(), torch.Generator().manual_seed(0), closed_too=True
    )
    assert torch.equal(found, pixels)
    (by_gate,) = torch.autograd.grad(found.sum(), gate)
    assert torch.allclose(by_gate[:, 0], (1 - 2 * pixels).sum((1, 2, 3)), rtol=1e-4)
