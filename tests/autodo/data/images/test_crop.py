"""RandomResizedCrop against torchvision's: where it cuts, and the pixels."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as F

from autodo.data.files.decode import decode, pixels_of
from autodo.data.images.crop import CentreCrop, CropParameters
from tests.autodo.data.conftest import picture


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def cut_by_torchvision(image: Image.Image, crops: CropParameters, index: int, image_size: int) -> np.ndarray:
    box = crops.box(index, *image.size)
    cut = F.resized_crop(image.convert("RGB"), box.top, box.left, box.height, box.width, [image_size, image_size])
    return np.asarray(cut).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(500, 375), (100, 900)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0)])
def test_boxes_are_distributed_as_torchvisions(size, scale):
    draws, crops = 4000, CropParameters(scale, seed=5)
    ours = np.array([crops.box(index, *size) for index in range(draws)])
    width, height = size
    blank = torch.empty(3, height, width)
    torch.manual_seed(0)
    theirs = np.array([RandomResizedCrop.get_params(blank, list(scale), [3 / 4, 4 / 3]) for _ in range(draws)])
    theirs = theirs[:, [1, 0, 3, 2]]  # (top, left, height, width) there
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= size).all()


@pytest.mark.parametrize("size", [(900, 10), (10, 900)])
def test_where_no_draw_fits_the_largest_centre_is_cut_out(size):
    blank = torch.empty(3, *size[::-1])
    top, left, height, width = RandomResizedCrop.get_params(blank, [0.9, 1.0], [3 / 4, 4 / 3])
    assert CropParameters((0.9, 1.0)).box(3, *size) == (left, top, width, height)


def test_a_box_depends_on_seed_and_index_alone():
    assert CropParameters((0.1, 1.0), seed=1).box(7, 99, 50) == CropParameters((0.1, 1.0), seed=1).box(7, 99, 50)
    boxes = {CropParameters((0.1, 1.0), seed=seed).box(index, 500, 400) for seed in range(10) for index in range(10)}
    assert len(boxes) == 100


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_pixels_are_torchvisions(kind):
    content = encoded(picture(1, (300, 200)), kind)
    for index in range(20):
        crops = CropParameters((0.08, 1.0), seed=2)
        expected = cut_by_torchvision(Image.open(io.BytesIO(content)), crops, index, 100)
        np.testing.assert_array_equal(pixels_of(content, 100, crops, index), expected)


def test_a_large_jpeg_is_halved_while_it_is_decoded_and_looks_the_same():
    content = encoded(picture(1, (1601, 1203)).resize((1601, 1203)), quality=95)
    for index in range(10):
        crops = CropParameters((0.3, 1.0), seed=2)
        expected = cut_by_torchvision(Image.open(io.BytesIO(content)), crops, index, 64)
        found = pixels_of(content, 64, crops, index)
        assert np.abs(found.astype(int) - expected).mean() < 2
        shifted = np.roll(expected, 1, axis=2)
        assert np.abs(found.astype(int) - expected).mean() < np.abs(found.astype(int) - shifted).mean()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_is_cut_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = encoded(picture(4, (300, 200)), "PNG", exif=exif)
    with Image.open(io.BytesIO(turned)) as opened:
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(opened)
    crops = CropParameters((0.2, 0.6), seed=3)
    found = pixels_of(turned, 50, crops, 8)
    np.testing.assert_array_equal(found, cut_by_torchvision(upright, crops, 8, 50))


def odd_images() -> dict[str, bytes]:
    frames = [picture(6), picture(7)]
    deep = np.asarray(picture(3).convert("L")).astype(np.uint16) * 257
    return {
        "CMYK": encoded(picture(2).convert("CMYK"), quality=95),
        "gray": encoded(picture(3).convert("L"), quality=95),
        "16 bits": encoded(Image.fromarray(deep), "PNG"),
        "animation": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "palette": encoded(picture(5).quantize(16), "PNG"),
        "transparent": encoded(picture(5).convert("RGBA"), "PNG"),
    }


@pytest.mark.parametrize("name", list(odd_images()))
def test_odd_images_are_cut_as_they_are_decoded(name):
    """Nothing is cut away and nothing scaled, so that both ways show every pixel."""
    content = odd_images()[name]
    side = Image.open(io.BytesIO(content)).size[1]
    square = CropParameters((side / 60, side / 60), ratio=(1.0, 1.0))
    left = square.box(0, 60, 40).left
    found = pixels_of(content, side, square, 0)
    whole = decode(
        io.BytesIO(encoded(Image.open(io.BytesIO(content)).crop((left, 0, left + side, side)), "TIFF")), side
    )
    assert found.shape[0] == (1 if name in ("gray", "16 bits") else 3)
    np.testing.assert_array_equal(found, whole)


def test_without_crops_it_is_the_decoding_of_images_in_memory(tmp_path):
    content = encoded(picture(9, (90, 130)), quality=80)
    (tmp_path / "a.jpg").write_bytes(content)
    np.testing.assert_array_equal(pixels_of(content, 32, None, 0), decode(tmp_path / "a.jpg", 32))


@pytest.mark.parametrize("size", [(320, 256), (256, 384)])
def test_the_centre_crop_is_that_of_resizing_and_cutting(size):
    content = encoded(picture(1, size), "PNG")
    image = Image.open(io.BytesIO(content)).convert("RGB")
    expected = np.asarray(F.center_crop(F.resize(image, 64), [56, 56])).transpose(2, 0, 1).astype(int)
    found = pixels_of(content, 56, CentreCrop(56 / 64), 0).astype(int)
    assert found.shape == expected.shape
    whole = pixels_of(content, 56, None, 0).astype(int)
    # Only pixels at the border differ, which do not read beyond the crop.
    assert np.abs(found - expected).mean() < 0.1 * np.abs(whole - expected).mean()
    assert CentreCrop(1.0).box(0, *size) == (
        (size[0] - min(size)) // 2,
        (size[1] - min(size)) // 2,
        min(size),
        min(size),
    )
