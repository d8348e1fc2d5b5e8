import pytest
import torch

from autodo.augment.crop_flip_erase import crop_and_flip, erase
from autodo.augment.pipeline import Pipeline, channel_statistics
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
def test_crops_are_those_of_image_by_image(shape, flip):
    images, padding = torch.randint(256, (40, *shape), generator=generator(3)).to(torch.uint8), 2
    same = generator(9)
    cropped = crop_and_flip(images, padding, flip, generator(9))
    tops, lefts = (torch.randint(2 * padding + 1, (40, 1), generator=same) for _ in range(2))
    mirrored = torch.rand(40, 1, generator=same) < 0.5 if flip else torch.zeros(40, 1, dtype=torch.bool)
    padded = torch.nn.functional.pad(images, (padding,) * 4)
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


def test_test_view_is_normalised_and_untouched():
    images = torch.randint(256, (50, 2, 9, 9), generator=generator(2)).to(torch.uint8)
    mean, std = channel_statistics(images.split(3))
    pixels = Pipeline(AugmentationConfig(), mean, std).test_view(images)
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-5, rtol=0)


def test_a_constant_channel_does_not_divide_by_zero():
    mean, std = channel_statistics([torch.full((3, 1, 4, 4), 255, dtype=torch.uint8)])
    assert (mean.item(), std.item()) == (1.0, 1.0)
