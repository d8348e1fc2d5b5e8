import numpy as np
import pytest
from PIL import Image

from autodo.data.files import decode
from autodo.data.files.decode import decode_images
from autodo.errors import DataError


def halves(size, vertical, mode="RGB"):
    """Left half (or upper half) black, the other white."""
    width, height = size
    image = Image.new(mode, size, 0)
    box = (0, height // 2, width, height) if vertical else (width // 2, 0, width, height)
    image.paste("white" if mode == "RGB" else 255, box)
    return image


def test_colour_and_layout(tmp_path, write_image):
    files = [write_image(tmp_path / "a.png", (200, 30, 90)), write_image(tmp_path / "b.png", 77)]
    images = decode_images(files, 5, root=tmp_path)
    assert images.shape == (2, 3, 5, 5)
    assert images.dtype == np.uint8
    assert images.flags.c_contiguous
    assert images[0].reshape(3, -1).T.tolist() == [[200, 30, 90]] * 25
    assert (images[1] == 77).all()


def test_one_channel_only_if_all_are_gray(tmp_path, write_image):
    files = [write_image(tmp_path / "a.png", 10), write_image(tmp_path / "b.bmp", 20)]
    images = decode_images(files, 5, root=tmp_path)
    assert images.shape == (2, 1, 5, 5)
    assert images.flags.c_contiguous
    assert images[:, 0, 0, 0].tolist() == [10, 20]


def test_shorter_side_is_resized_and_the_centre_cut_out(tmp_path):
    image = Image.new("L", (300, 100), 0)
    image.paste(255, (100, 0, 200, 100))
    image.save(tmp_path / "a.png")
    pixels = decode_images([tmp_path / "a.png"], 10, root=tmp_path)[0, 0]
    assert (pixels[:, 1:-1] == 255).all()
    assert 200 < pixels[:, [0, -1]].min() < 255  # the filter reaches over the cut, as resizing the whole would


def test_resize_is_antialiased(tmp_path):
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    Image.fromarray(stripes).save(tmp_path / "a.png")
    pixels = decode_images([tmp_path / "a.png"], 4, root=tmp_path)
    assert pixels.astype(int) == pytest.approx(128, abs=12)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to show it
    for name in ("a.jpg", "a.png", "a.tif"):
        halves((32, 32), vertical=True).save(tmp_path / name, exif=exif)
        pixels = decode_images([tmp_path / name], 32, root=tmp_path)[0, 0]
        assert pixels[:, :12].min() > 200, name
        assert pixels[:, 20:].max() < 50, name


def test_large_jpeg_keeps_enough_detail(tmp_path):
    stripes = np.tile(np.repeat(np.array([0, 255], np.uint8), 4), (640, 80))
    Image.fromarray(stripes).save(tmp_path / "a.jpg")
    pixels = decode_images([tmp_path / "a.jpg"], 160, root=tmp_path)[0, 0]  # stripes of 1 pixel
    assert pixels[:, 0::2].max() < 80
    assert pixels[:, 1::2].min() > 175


def test_unusual_modes(tmp_path):
    gray16 = np.full((8, 8), 200 * 256 + 17, np.uint16)
    Image.fromarray(gray16).save(tmp_path / "gray16.png")
    Image.new("1", (8, 8), 1).save(tmp_path / "bilevel.png")
    Image.new("LA", (8, 8), (90, 40)).save(tmp_path / "alpha.png")
    files = [tmp_path / name for name in ("gray16.png", "bilevel.png", "alpha.png")]
    images = decode_images(files, 4, root=tmp_path)
    assert images.shape == (3, 1, 4, 4)
    assert images[:, 0, 0, 0].tolist() == [200, 255, 90]


def test_colour_modes(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.tif")
    Image.new("RGBA", (8, 8), (255, 0, 0, 128)).save(tmp_path / "rgba.png")
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "palette.gif")
    palette.save(tmp_path / "transparent.png", transparency=b"\x00\x80")
    files = [tmp_path / name for name in ("cmyk.tif", "rgba.png", "palette.gif", "transparent.png")]
    assert decode_images(files, 4, root=tmp_path)[:, :, 0, 0].tolist() == [[255, 0, 0]] * 4


def test_32_bit_pixels_are_refused(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a.tif \(32-bit pixels; save it with 8 or 16 bits\)"):
        decode_images([tmp_path / "a.tif"], 4, root=tmp_path)


def test_every_unreadable_image_is_counted_and_the_first_are_named(tmp_path, write_image):
    files = [write_image(tmp_path / f"{i}.png") for i in range(6)]
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    for name in ("cut.jpg", "cut.png"):
        file = tmp_path / name
        Image.fromarray(noise).save(file)
        file.write_bytes(file.read_bytes()[:2000])
        files.append(file)
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").touch()
    files += [tmp_path / "text.png", tmp_path / "empty.png", tmp_path / "missing.png"]
    with pytest.raises(DataError) as error:
        decode_images(files, 4, root=tmp_path)
    text = str(error.value)
    assert text.startswith(f"{tmp_path}: 5 of 11 images cannot be read: {tmp_path / 'cut.jpg'} (")
    assert f"{tmp_path / 'cut.png'} (" in text
    assert f"{tmp_path / 'text.png'} (not an image), ...; replace or remove them" in text
    assert "empty.png" not in text
    assert "\n" not in text


def test_decompression_bomb(tmp_path, write_image, monkeypatch):
    file = write_image(tmp_path / "a.png", size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"a.png \(Image size \(10000 pixels\) exceeds limit of 2000 pixels"):
        decode_images([file], 4, root=tmp_path)


def test_more_than_fits_in_memory(tmp_path, write_image, monkeypatch):
    monkeypatch.setattr(decode, "MEMORY_LIMIT_BYTES", 10**6)
    file = write_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=r": 1 images of 600x600 need 0.0 GB .* dataset.stream=true .*, or lower"):
        decode_images([file], 600, root=tmp_path)
    assert decode_images([file], 500, root=tmp_path).shape == (1, 3, 500, 500)
