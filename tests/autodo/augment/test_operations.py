"""Every operation against PIL, image by image."""

import pytest
import torch
from torch import Tensor

from autodo.augment import geometry
from autodo.augment.apply_draws import apply_draws
from autodo.augment.operations import BLENDING, MOVING, NAMES, OPERATIONS
from autodo.augment.policies import Draws
from autodo.testing import pil_policy

# At least the ends of every range that a policy has, numbers that cut to something else, and both signs.
VALUES = {
    "Identity": [0.0],
    "ShearX": [-0.99, -0.3, 0.0, 0.1234, 0.3],
    "ShearY": [-0.99, -0.3, 0.0, 0.1234, 0.3],
    "TranslateX": [-0.45, 0.0, 0.01, 0.1234, 150 / 331],
    "TranslateY": [-0.45, 0.0, 0.01, 0.1234, 150 / 331],
    "Rotate": [-135.0, -30.0, 0.0, 17.3, 45.0, 90.0],
    "TranslateXPixels": [-32.0, -1.9, 0.9, 7.0, 100.0],
    "TranslateYPixels": [-32.0, -1.9, 0.9, 7.0, 100.0],
    "AutoContrast": [0.0],
    "Invert": [0.0],
    "Equalize": [0.0],
    "Solarize": [0.0, 0.5, 100.0, 128.3, 255.0, 256.0],
    "Posterize": [2.0, 4.0, 5.9, 8.0],
    "Contrast": [0.01, 0.1, 0.7, 1.0, 1.5, 1.99],
    "Color": [0.01, 0.1, 0.7, 1.0, 1.5, 1.99],
    "Brightness": [0.01, 0.1, 0.7, 1.0, 1.5, 1.99],
    "Sharpness": [0.01, 0.1, 0.7, 1.0, 1.5, 1.99],
    "Cutout": [0.0, 0.01, 0.1, 0.2],
}


def all_of(name: str, count: int, value: float) -> Draws:
    """The same operation and value for `count` images, centres all over the image."""
    centre = torch.rand(count, 1, 2, generator=torch.Generator().manual_seed(1))
    return Draws(torch.full((count, 1), NAMES.index(name)), torch.full((count, 1), value), centre)


@pytest.fixture(params=[(3, 32, 32), (1, 28, 28), (3, 24, 41), (3, 80, 130)], ids=str)
def images(request: pytest.FixtureRequest) -> Tensor:
    channels, height, width = request.param
    return pil_policy.photographs(height, width, channels)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (3, 3)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_images_are_no_exception(name: str, size: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for value in VALUES[name]:
        draws = all_of(name, 1, value)
        assert torch.equal(apply_draws(image, draws), pil_policy.apply(image, draws)), value


@pytest.mark.parametrize("name", NAMES)
def test_operations_are_pils_bit_for_bit(name: str, images: Tensor) -> None:
    before = images.clone()
    changed = False
    for value in VALUES[name]:
        draws = all_of(name, len(images), value)
        expected = pil_policy.apply(images, draws)
        assert torch.equal(apply_draws(images, draws), expected), value
        changed |= bool((expected != images).any())
    assert changed or name == "Identity" or (name == "Color" and images.shape[1] == 1)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", NAMES)
def test_each_image_has_its_own_value(name: str) -> None:
    images = pil_policy.photographs(20, 20, 3)
    low, high = (0.0, 1.0) if not OPERATIONS[name].has_magnitude else OPERATIONS[name][:2]
    draws = all_of(name, len(images), 0.0)._replace(value=torch.linspace(low, high, len(images))[:, None])
    one_by_one = [
        apply_draws(images[i : i + 1], Draws(*(column[i : i + 1] for column in draws))) for i in range(len(images))
    ]
    assert torch.equal(apply_draws(images, draws), torch.cat(one_by_one))


def test_operations_that_are_computed_together_stand_together() -> None:
    assert NAMES[0] == "Identity"
    assert [place for place, name in enumerate(NAMES) if OPERATIONS[name].matrix is not None] == list(MOVING)
    assert [place for place, name in enumerate(NAMES) if OPERATIONS[name].base is not None] == list(BLENDING)
    assert all(
        [operation.matrix, operation.base, operation.exact].count(None) == 2 for operation in OPERATIONS.values()
    )


def test_a_row_of_the_matrix_says_where_a_pixel_is_read_from() -> None:
    images = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)
    matrix = torch.tensor([[1, 0, 1, 0, 1, -1]], dtype=torch.float64)
    expected = torch.tensor([[0, 0, 0, 0], [1, 2, 3, 0], [5, 6, 7, 0], [9, 10, 11, 0]], dtype=torch.uint8)
    geometry.sample(images, matrix)
    assert torch.equal(images[0, 0], expected)


def test_the_edge_moves_in_where_the_setting_says_so():
    """A shift by whole pixels reads the nearest pixel, as indexing with clipped positions does."""
    images = torch.arange(2 * 3 * 7 * 9, dtype=torch.uint8).view(2, 3, 7, 9)
    for name, axis in (("TranslateXPixels", 3), ("TranslateYPixels", 2)):
        value = torch.tensor([[3.0], [-2.0]])
        draws = Draws(torch.full((2, 1), NAMES.index(name)), value, torch.zeros(2, 1, 2))
        size = images.shape[axis]
        for image, found, shift in zip(images, apply_draws(images, draws, "edge"), (3, -2), strict=True):
            position = (torch.arange(size) + shift).clamp(0, size - 1)
            assert torch.equal(found, image.index_select(axis - 1, position))
