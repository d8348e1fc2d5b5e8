import numpy as np
import pytest
import torch

from autodo.augment import affine
from autodo.augment.crop_flip_erase import crop_and_flip, erase
from autodo.augment.operations import NAMES
from autodo.augment.pipeline import Pipeline, channel_statistics
from autodo.augment.policies import Draws, Policy
from autodo.config.run import AugmentationConfig


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_crop_is_a_window_of_the_padded_image_and_all_windows_occur():
    image = torch.arange(1, 1 + 2 * 5 * 6, dtype=torch.uint8).view(1, 2, 5, 6)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))[0]
    windows = {padded[:, top : top + 5, left : left + 6].numpy().tobytes() for top in range(3) for left in range(3)}
    cropped = crop_and_flip(image.expand(400, -1, -1, -1), 1, flip=False, generator=generator())
    assert {each.numpy().tobytes() for each in cropped} == windows


@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 6, 9)])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("border", "mode"), [("zeros", "constant"), ("edge", "edge")])
def test_crops_are_those_of_image_by_image(shape, flip, border, mode):
    images, padding = torch.randint(256, (40, *shape), generator=generator(3)).to(torch.uint8), 2
    same = generator(9)
    cropped = crop_and_flip(images, padding, flip, generator(9), border)
    tops, lefts = (torch.randint(2 * padding + 1, (40, 1), generator=same) for _ in range(2))
    mirrored = torch.rand(40, 1, generator=same) < 0.5 if flip else torch.zeros(40, 1, dtype=torch.bool)
    padded = torch.from_numpy(np.pad(images.numpy(), [(0, 0)] * 2 + [(padding, padding)] * 2, mode))
    for each, image, top, left, mirror in zip(cropped, padded, tops, lefts, mirrored, strict=True):
        window = image[:, top : top + shape[1], left : left + shape[2]]
        assert torch.equal(each, window.flip(2) if mirror else window)


def test_half_of_the_images_are_mirrored():
    image = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4)
    out = crop_and_flip(image.expand(1000, -1, -1, -1), 0, flip=True, generator=generator())
    mirrored = (out == image.flip(3)).flatten(1).all(1)
    plain = (out == image).flatten(1).all(1)
    assert (mirrored ^ plain).all()
    assert 0.45 < mirrored.double().mean() < 0.55


def test_erasing_hits_its_share_of_images_with_rectangles_of_its_size():
    images = torch.ones(3000, 1, 32, 32)
    erased = erase(images, 0.5, generator()) == 0
    hit = erased.flatten(1).any(1)
    assert 0.45 < hit.double().mean() < 0.55
    smaller = erase(images, 1.0, generator(), (0.02, 0.33)) == 0
    assert 0.3 < smaller.double().mean((1, 2, 3)).max() <= 0.36
    area = erased[hit].double().mean((1, 2, 3))
    assert area.max() <= 0.45
    assert abs(area.mean() - 0.21) < 0.02, "uniform in [0.02, 0.4]"
    rows, columns = erased[hit].any(3).sum(2), erased[hit].any(2).sum(2)
    assert (rows * columns == erased[hit].sum((2, 3))).all(), "each is one rectangle"


def test_views_depend_only_on_the_generator():
    images = torch.randint(256, (8, 3, 16, 16), generator=generator(1)).to(torch.uint8)
    pipeline = Pipeline(AugmentationConfig(), *channel_statistics([images]))
    same = [pipeline.train_view(images, generator(seed)) for seed in (5, 5, 6)]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])
    before = torch.random.get_rng_state()
    pipeline.train_view(images, generator(7))
    assert torch.equal(before, torch.random.get_rng_state()), "nothing draws from the global generator"


class Doubled(Policy):
    """Twice each level, on every image."""

    def draw(self, batch, generator):
        shape = batch, 1
        brightness = torch.full(shape, NAMES.index("Brightness"))
        return Draws(brightness, torch.full(shape, 2.0), torch.zeros(*shape, 2))


@pytest.mark.parametrize("order", ["erase-last", "warp-last"])
@pytest.mark.parametrize("border", ["zeros", "edge"])
def test_the_order_is_that_of_the_setting(order, border):
    images = torch.randint(1, 120, (64, 3, 16, 16), generator=generator(1)).to(torch.uint8)
    config = AugmentationConfig(order=order, border=border, erase_probability=1.0, erase_area=0.33)
    pipeline = Pipeline(config, torch.full((3,), 0.4), torch.full((3,), 0.3), Doubled(), gate_temperature=1.0)
    lam = affine.initial_row(0.9).expand(64, -1)
    found = pipeline.train_view(images, generator(3), lam)
    draws = generator(3)

    def warped(pixels):
        return affine.warp(pixels, affine.magnitudes(lam, affine.draw_noise(64, draws)), border)

    if order == "warp-last":
        pixels = crop_and_flip(2 * images, 4, True, draws, border).float().div(255).sub(0.4).div(0.3)
        expected = warped(erase(pixels, 1.0, draws, (0.02, 0.33)))
    else:
        pixels = (2 * crop_and_flip(images, 4, True, draws, border)).float().div(255)
        expected = erase(warped(pixels).sub(0.4).div(0.3), 1.0, draws, (0.02, 0.33))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_test_view_is_normalised_and_untouched():
    images = torch.randint(256, (50, 2, 9, 9), generator=generator(2)).to(torch.uint8)
    mean, std = channel_statistics(images.split(3))
    pixels = Pipeline(AugmentationConfig(), mean, std).test_view(images)
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-5, rtol=0)


def test_a_constant_channel_does_not_divide_by_zero():
    mean, std = channel_statistics([torch.full((3, 1, 4, 4), 255, dtype=torch.uint8)])
    assert (mean.item(), std.item()) == (1.0, 1.0)
