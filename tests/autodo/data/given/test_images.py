"""Images that are given in Python, in every form."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autodo.config.dataset import DatasetConfig
from autodo.data import load
from autodo.data.given.collections import given_set
from autodo.data.given.images import Size, in_channels, read_array, read_images
from autodo.data.given.pixels import pixels_of_array
from autodo.errors import DataError

GENERATOR = np.random.default_rng(0)
COLOURS = GENERATOR.integers(0, 256, (4, 3, 6, 5), np.uint8)
GRAYS = COLOURS[:, :1]
LAST = COLOURS.transpose(0, 2, 3, 1)
SMALL = Size(64)


class Pairs(torch.utils.data.Dataset):
    """A map-style dataset of (image, label)."""

    def __init__(self, images, labels) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int):
        return self.images[i], self.labels[i]


class Unlabelled(Pairs):
    """A dataset of images alone."""

    def __getitem__(self, i: int):
        return self.images[i]


def files(folder: Path, images) -> list[Path]:
    paths = [folder / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def test_every_form_of_the_same_images_is_the_same_pixels(tmp_path):
    paths = files(tmp_path, LAST)
    pictures = [Image.fromarray(image) for image in LAST]
    lists = {
        "paths": paths,
        "strings": [str(path) for path in paths],
        "pictures": pictures,
        "arrays": list(LAST),
        "tensors": list(torch.from_numpy(COLOURS)),
        "transparent": [picture.convert("RGBA") for picture in pictures],
    }
    expected = read_images(list(LAST), 4, "images", SMALL).pixels
    assert expected.shape == (4, 3, 5, 5), "as large as the shorter side"
    for name, images in lists.items():
        assert np.array_equal(read_images(images, 4, "images", SMALL).pixels, expected), name
    whole = {
        "channels last": LAST,
        "channels first": COLOURS,
        "tensor": torch.from_numpy(COLOURS),
        "floats": COLOURS / 255,
        "half": torch.from_numpy(COLOURS).float().div(255).to(torch.float32),
        "integers": COLOURS.astype(np.int64),
        "transparent": np.concatenate([LAST, LAST[..., :1]], 3),
    }
    for name, images in whole.items():
        assert np.array_equal(read_array(images, "images", SMALL).pixels, expected), name
    for name, images in {"pictures": pictures, "tensors": list(torch.from_numpy(COLOURS))}.items():
        found, labels = given_set(Pairs(images, [3, 1, 0, 2]), None, "images").read(SMALL)
        assert np.array_equal(found.pixels, expected), name
        assert labels.tolist() == [3, 1, 0, 2]
    assert read_images(paths, 4, "images", SMALL).sources == tuple(map(str, paths))


def test_a_dataset_of_hugging_face_gives_images_labels_and_class_names():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"id": datasets.Value("int64"), "photo": datasets.Image()})
    features["kind"] = datasets.ClassLabel(names=["eel", "cat"])
    rows = {"id": [7, 8, 9, 10], "photo": [Image.fromarray(image) for image in LAST], "kind": [0, 1, 1, 0]}
    table = datasets.Dataset.from_dict(rows, features=features)
    given = given_set(table, None, "images")
    found, labels = given.read(SMALL)
    assert np.array_equal(found.pixels, read_images(list(LAST), 4, "images", SMALL).pixels)
    assert (labels.tolist(), given.class_names) == ([0, 1, 1, 0], ("eel", "cat"))
    with pytest.raises(DataError, match=r"val: one column must be of type Image, and none is; columns: id \(Value"):
        given_set(table.remove_columns("photo"), None, "val")
    with pytest.raises(DataError, match=r"one of its splits, such as images\['train'\]"):
        given_set(datasets.DatasetDict({"train": table}), None, "images")


def test_gray_images_have_one_channel_unless_another_is_coloured():
    grays = [image[0] for image in GRAYS]
    assert np.array_equal(read_images(grays, 4, "x", SMALL).pixels, read_array(GRAYS, "x", SMALL).pixels)
    mixed = read_images([grays[0], LAST[1]], 2, "images", SMALL).pixels
    assert mixed.shape == (2, 3, 5, 5)
    assert (mixed[0] == mixed[0, 0]).all()
    assert np.array_equal(in_channels(mixed[:1, :1], 3)[0], mixed[0])
    luma = in_channels(mixed[1:], 1)[0, 0]
    assert np.array_equal(luma, np.asarray(Image.fromarray(mixed[1].transpose(1, 2, 0)).convert("L")))


def test_photos_are_decoded_as_those_of_a_folder_are(tmp_path):
    generator = np.random.default_rng(1)
    sizes = [("cat", 90, 41), ("cat", 300, 200), ("dog", 33, 120), ("dog", 64, 64)]
    for i, (name, height, width) in enumerate(sizes * 2):
        (tmp_path / name).mkdir(exist_ok=True)
        picture = Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6  # lies on its side
        picture.save(tmp_path / name / f"{i}.jpg", exif=exif)
    dataset = load(DatasetConfig(name="folder", path=str(tmp_path), image_size=32))
    for part in (dataset.train, dataset.test):
        given = read_images([tmp_path / name for name in part.sources], len(part), "images", Size(32)).pixels
        assert np.array_equal(given, part.images.read())


def test_images_are_enlarged_only_if_a_size_is_asked_for():
    different = [GRAYS[0, 0], np.zeros((9, 7), np.uint8)]
    assert read_images(different, 2, "images", Size(64)).pixels.shape == (2, 1, 7, 7)
    assert read_images(different, 2, "images", Size(4)).pixels.shape == (2, 1, 4, 4)
    assert read_images(different, 2, "images", Size(64, exact=True)).pixels.shape == (2, 1, 64, 64)
    assert read_array(GRAYS, "images", Size(8, exact=True)).pixels.shape == (4, 1, 8, 8)


def test_the_channels_are_where_their_number_fits():
    for shape, tensor, expected in [
        ((2, 28, 28), False, (2, 1, 28, 28)),
        ((2, 28, 28, 1), False, (2, 1, 28, 28)),
        ((2, 3, 28, 28), False, (2, 3, 28, 28)),
        ((2, 3, 5, 3), False, (2, 3, 3, 5)),
        ((2, 3, 5, 3), True, (2, 3, 5, 3)),
    ]:
        zeros = np.zeros(shape, np.uint8)
        assert pixels_of_array(torch.from_numpy(zeros) if tensor else zeros, batch=True).shape == expected
    assert pixels_of_array(np.array([[True, False]]), batch=False).tolist() == [[[255, 0]]]


def test_unsuitable_images_are_one_line(tmp_path):
    nan = np.zeros((3, 4, 4))
    nan[1, 2, 3] = np.nan
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"no picture")
    missing = str(tmp_path / "missing.png")
    loader = torch.utils.data.DataLoader(Pairs(GRAYS, [0, 1, 0, 1]))
    wrong = [
        (nan, r"images: NaN or infinite pixels of image 1; replace them or leave the image out"),
        (nan[:1] - 2, r"floating-point pixels must be from 0 to 1, and these are from -2 to -2 \(image 0 is the first"),
        (np.full((2, 4, 4), 256), r"integer pixels must be from 0 to 255, and these are from 256 to 256"),
        (np.zeros((5, 64)), r"images: shape \(5, 64\) is not that of images: \[N, H, W\], .*; vectors are for"),
        (np.zeros((5, 8, 8, 2)), r"with 1, 3 or 4 channels"),
        (np.zeros((5, 0, 4)), r"there are no pixels"),
        (np.zeros((2, 4, 4), complex), r"values of type complex128 are no pixels"),
        ([GRAYS[0, 0], None], r"images: 1 of 2 images cannot be read: image 1 \(a NoneType; an image is a path"),
        ([GRAYS[0, 0], nan[1]], r"image 1 \(NaN or infinite pixels; replace"),
        ([tmp_path / "empty.png"], r"empty.png \(0 bytes\); replace them or leave them out"),
        ([tmp_path / "text.png"], r"text.png \(not an image\)"),
        ([missing], r"missing.png \(No such file"),
        (["s3://bucket/a.png"], r"s3://bucket/a.png \(a URI; copy"),
        ([], r"images: there are no images"),
        (7, r"images: a int is no set of images: give an array or tensor, a list of paths"),
        (io.BytesIO(), r"a BytesIO is no set of images"),
        (loader, r"a DataLoader is no set of images: .*; give its dataset"),
    ]
    for images, message in wrong:
        with pytest.raises(DataError, match=message) as raised:
            given_set(images, [0] * (len(images) if hasattr(images, "__len__") else 1), "images").read(SMALL)
        assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match=r"val: item 0 of the Pairs is a Tensor|val: 1 of 1 images cannot be read"):
        given_set(Pairs([None], [0]), None, "val").read(SMALL)
    with pytest.raises(
        DataError, match=r"val: item 1 of the Pairs cannot be read: IndexError: list index out of range"
    ):
        given_set(Pairs(GRAYS[:1].tolist(), [0, 1]), None, "val").read(SMALL)
    with pytest.raises(DataError, match=r"val: a Pairs has its own labels; leave out the others"):
        given_set(Pairs(GRAYS, [0, 1, 0, 1]), [0], "val")
    with pytest.raises(DataError, match=r"x: item 0 of the Unlabelled is a ndarray, not a pair \(image, label\)"):
        given_set(Unlabelled(LAST, LAST), None, "x").read(SMALL)
    with pytest.raises(DataError, match=r"images: 100000 images of 512x512 need 78\.6 GB of memory, more than"):
        read_images([missing] * 100_000, 100_000, "images", Size(512))
