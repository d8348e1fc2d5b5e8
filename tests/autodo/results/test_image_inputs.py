"""Images of all kinds become the pixels that they show."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from autodo.data.files.decode import pixels_of
from autodo.data.images.crop import CentreCrop
from autodo.errors import DataError
from autodo.results.image_inputs import InputFormat, each_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
GRAY = RGB[..., 0]
AS_IS = InputFormat(3, 6)
"""Neither resizes nor cuts images of 6x6."""


def test_an_image_of_each_kind_and_layout_becomes_its_pixels(tmp_path: Path) -> None:
    first = torch.from_numpy(RGB).permute(2, 0, 1)
    with_alpha = np.concatenate([RGB, np.full((6, 6, 1), 9, np.uint8)], 2)
    Image.fromarray(RGB).save(tmp_path / "a.png")
    kinds = [
        RGB, RGB.astype(int), RGB / 255, (RGB / 255).astype(np.float32), with_alpha, Image.fromarray(RGB),
        Image.fromarray(with_alpha), first, first / 255, first.double() / 255, torch.from_numpy(RGB),
        tmp_path / "a.png", str(tmp_path / "a.png"),
    ]  # fmt: skip
    for kind in kinds:
        assert np.array_equal(AS_IS.pixels(kind), first.numpy())
    for kind in (GRAY, GRAY[..., None], torch.from_numpy(GRAY), torch.from_numpy(GRAY)[None], Image.fromarray(GRAY)):
        assert np.array_equal(AS_IS.pixels(kind), np.stack([GRAY] * 3)), "gray becomes RGB"
        assert np.array_equal(InputFormat(1, 6).pixels(kind), GRAY[None])
    luma = np.asarray(Image.fromarray(RGB).convert("L"))
    assert np.array_equal(InputFormat(1, 6).pixels(RGB), luma[None]), "RGB becomes gray"


def test_images_are_upright_and_keep_their_orientation_tag() -> None:
    turned = Image.fromarray(np.rot90(RGB))
    turned.getexif()[0x0112] = 6
    assert np.array_equal(AS_IS.pixels(turned), RGB.transpose(2, 0, 1))
    assert turned.getexif()[0x0112] == 6, "the caller's image is as it was"


@pytest.mark.parametrize("resize", [None, 12])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_file_is_read_as_in_training(kind: str, resize: int | None, tmp_path: Path) -> None:
    """JPEGs of this size are decoded at a quarter of it."""
    pixels = np.random.default_rng(1).integers(0, 256, (50, 37, 3), np.uint8)
    file = tmp_path / f"a.{kind}"
    Image.fromarray(pixels).save(file)
    read = InputFormat(3, 9, resize).pixels(file)
    assert np.array_equal(read, pixels_of(file.read_bytes(), 9, None if resize is None else CentreCrop(9 / resize), 0))
    if kind == "png":
        assert np.array_equal(read, InputFormat(3, 9, resize).pixels(pixels))
        assert np.array_equal(read, InputFormat(3, 9, resize).pixels(Image.open(file)))


def test_several_images_are_taken_apart() -> None:
    last, several = np.stack([RGB] * 2), torch.from_numpy(np.stack([RGB] * 2))
    for images in (last, several, several.permute(0, 3, 1, 2), last.transpose(0, 3, 1, 2), [RGB, RGB], (RGB, RGB)):
        assert [AS_IS.pixels(one).tolist() for one in each_image(images, 3)] == [AS_IS.pixels(RGB).tolist()] * 2
    gray = np.stack([GRAY] * 5)
    for images in (gray, torch.from_numpy(gray), gray[..., None], torch.from_numpy(gray)[:, None], list(gray)):
        assert [AS_IS.pixels(one).tolist() for one in each_image(images, 3)] == [AS_IS.pixels(GRAY).tolist()] * 5
    for count in range(1, 6):  # of a classifier of gray images, 3 or 4 are no channels
        for images in (gray[:count], torch.from_numpy(gray[:count])):
            found = [InputFormat(1, 6).pixels(one).tolist() for one in each_image(images, 1)]
            assert found == [GRAY[None].tolist()] * count
    for image in (RGB, GRAY, torch.from_numpy(RGB), Image.fromarray(RGB), "a.png", Path("a.png")):
        assert [len(list(each_image(image, channels))) for channels in (1, 3)] == [1, 1]
    assert list(each_image(np.array(["a.png", "b.png"]), 3)) == ["a.png", "b.png"]
    assert list(each_image([], 3)) == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (3, "a int; an image is a path"),
        (np.full((4, 4), np.nan), "NaN or infinite"),
        (torch.full((3, 4, 4), torch.inf), "NaN or infinite"),
        (RGB.astype(float), "must be from 0 to 1, and these are from 0 to 248"),
        (np.zeros((4, 0), np.uint8), "no pixels"),
        (np.zeros(4, np.uint8), r"shape \(4,\) is not that of images"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"shape \(2, 4, 4, 3\) is not that of images"),
        (np.array(["a.png"]), "a ndarray; an image is a path"),
    ],
)
def test_what_is_no_image_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        AS_IS.pixels(value)


@pytest.mark.parametrize("value", [3, np.zeros((3, 5, 5), np.uint8), np.zeros((2, 5, 5, 2), np.uint8)])
def test_what_is_no_collection_of_images_is_refused(value: Any) -> None:
    with pytest.raises(DataError):
        list(each_image(value, 3))
