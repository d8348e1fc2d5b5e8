"""The choice of points with a thumbnail, against plain sorting, and the pictures."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from autodo.data.images.image_set import ArrayImages
from autodo.results import records
from autodo.results.thumbnails import suspicious_rows, thumbnail, with_thumbnails

CLASSES = 5


def table(count: int, **columns: object) -> pa.Table:
    """Points with random values; a column that is None is null."""
    generator = np.random.default_rng(0)
    soft = generator.dirichlet(np.ones(CLASSES), count)
    values = {
        "label": generator.integers(0, CLASSES, count),
        "loss": generator.exponential(size=count).astype(np.float32),
        "weight": generator.uniform(size=count).astype(np.float32),
        "soft_label": list(soft.astype(np.float32)),
        **columns,
    }
    rows = [
        {name: None if values.get(name) is None else values[name][i] for name in records.SCHEMAS["points"].names}
        for i in range(count)
    ]
    return records.table("points", rows)


def lowest(values: list[float]) -> set[int]:
    return set(sorted(range(len(values)), key=lambda i: (values[i], i))[:64])


def picture(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.format == "PNG"
        return np.asarray(opened)


def test_the_first_64_of_each_signal_are_suspicious():
    points = table(1000)
    rows = points.to_pylist()
    expected = (
        lowest([-row["loss"] for row in rows])
        | lowest([row["weight"] for row in rows])
        | lowest([row["soft_label"][row["label"]] for row in rows])
    )
    assert 64 < len(expected) <= 192
    assert suspicious_rows(points).tolist() == sorted(expected)


def test_constant_or_missing_signals_select_no_point():
    losses = [-row["loss"] for row in table(300).to_pylist()]
    assert suspicious_rows(table(300, weight=None, soft_label=None)).tolist() == sorted(lowest(losses))
    same = table(300, weight=np.ones(300), soft_label=[np.full(CLASSES, 0.2)] * 300)
    assert suspicious_rows(same).tolist() == sorted(lowest(losses))
    assert suspicious_rows(table(300, loss=np.zeros(300), weight=None, soft_label=None)).tolist() == []


def test_ties_select_the_first_points_and_few_points_are_all_selected():
    losses = np.repeat([1.0, 2.0], 100)
    assert suspicious_rows(table(200, loss=losses, weight=None, soft_label=None)).tolist() == list(range(100, 164))
    assert suspicious_rows(table(10)).tolist() == list(range(10))


def test_only_suspicious_points_have_a_thumbnail():
    points = table(500, weight=None, soft_label=None)
    images = np.random.default_rng(1).integers(0, 256, (500, 3, 8, 8), np.uint8)
    found = with_thumbnails(points, ArrayImages(images))
    assert found.schema.equals(records.SCHEMAS["points"])
    assert found.drop_columns("thumbnail").equals(points.drop_columns("thumbnail"))
    shown = {row: content for row, content in enumerate(found["thumbnail"].to_pylist()) if content is not None}
    assert sorted(shown) == suspicious_rows(points).tolist()
    for row, content in shown.items():
        assert (picture(content) == images[row].transpose(1, 2, 0)).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (64, 64), (33, 64)])
def test_an_image_of_up_to_64_pixels_keeps_its_size(channels, size):
    image = np.random.default_rng(2).integers(0, 256, (channels, *size), np.uint8)
    expected = image[0] if channels == 1 else image.transpose(1, 2, 0)
    assert np.array_equal(picture(thumbnail(image)), expected)


@pytest.mark.parametrize(("size", "small"), [((128, 128), (64, 64)), ((200, 100), (64, 32)), ((96, 224), (27, 64))])
def test_a_larger_image_keeps_its_proportions(size, small):
    down = np.linspace(0, 200, size[0])[:, None] * np.ones(size)
    image = np.stack([down, np.full(size, 50), np.full(size, 255)]).astype(np.uint8)
    shrunk = picture(thumbnail(image)).astype(float)
    assert shrunk.shape == (*small, 3)
    expected = np.linspace(0, 200, 2 * small[0] + 1)[1::2]  # at the centres of the rows
    assert np.abs(shrunk[..., 0] - expected[:, None]).max() < 3
    assert (shrunk[..., 1:] == [50, 255]).all()


def test_other_numbers_of_channels_show_the_first_one():
    image = np.random.default_rng(3).integers(0, 256, (4, 8, 8), np.uint8)
    assert np.array_equal(picture(thumbnail(image)), image[0])
