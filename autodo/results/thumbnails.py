"""Thumbnails of the most suspicious train points, kept in the points table.

A report reads only a store, so these are the only images that it has.
"""

import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from autodo.data.images.image_set import Images, Integers

POINTS_PER_SIGNAL = 64
SIDE = 64
"""Longest side in pixels; a smaller image keeps its size."""


def with_thumbnails(points: pa.Table, images: Images) -> pa.Table:
    """The points table with thumbnails of the suspicious points only; features have no pictures.

    Args:
        points: the points table of all train points.
        images: images of these points, in the same order.
    Shape:
        images [N, C, H, W] uint8.
    """
    assert len(points) == len(images)
    pictures: list[bytes | None] = [None] * len(points)
    rows = suspicious_rows(points)
    pixels = images.read(rows)
    if pixels.dtype == np.uint8:
        for row, image in zip(rows.tolist(), pixels, strict=True):
            pictures[row] = thumbnail(image)
    place = points.schema.get_field_index("thumbnail")
    field = points.schema.field(place)
    return points.set_column(place, field, pa.array(pictures, field.type))


def suspicious_rows(points: pa.Table) -> Integers:
    """Increasing rows of the POINTS_PER_SIGNAL most suspicious points by each signal of a wrong label.

    The signals are a high loss, a low learned weight, and a soft label with a low probability of the observed label.
    A signal that was not learned or is constant selects no points; among equal points the first are taken.

    Shape:
        -> [n] int64 with n <= 3 POINTS_PER_SIGNAL.
    """
    first = [np.argsort(trust, kind="stable")[:POINTS_PER_SIGNAL] for trust in _trust(points) if np.ptp(trust) > 0]
    return np.unique(np.concatenate(first)) if first else np.empty(0, np.int64)


def thumbnail(image: NDArray[np.uint8], side: int = SIDE) -> bytes:
    """A PNG, gray or RGB; the first channel of an image with neither one channel nor three.

    Args:
        side: longest side in pixels.
    Shape:
        image [C, H, W].
    """
    pixels = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((side, side), Image.Resampling.BILINEAR)
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def _trust(points: pa.Table) -> Iterator[NDArray[np.float32]]:
    """Trust in each point by each available signal; low means suspicious. Shape: [N]."""
    yield -points["loss"].to_numpy()
    if points["weight"].null_count == 0:
        yield points["weight"].to_numpy()
    if points["soft_label"].null_count == 0:
        soft = pc.list_flatten(points["soft_label"]).to_numpy().reshape(len(points), -1)
        yield soft[np.arange(len(points)), points["label"].to_numpy()]
