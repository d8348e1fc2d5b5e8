import numpy as np
import pytest

from autodo.data.image_set import checked_set
from autodo.errors import DataError

IMAGES = np.zeros((20, 1, 4, 4), np.uint8)
LABELS = np.arange(20) % 10


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        (IMAGES, LABELS[:10], r"^here: 20 images, but 10 labels; replace the files"),
        (IMAGES[:0], LABELS[:0], r"^here: 0 images, but 0 labels"),
        (IMAGES, LABELS + 1, r"^here: labels are 1\.\.10, but this dataset has 0\.\.9"),
        (IMAGES[0], LABELS, r"^here: holds uint8 values of shape \(1, 4, 4\), not 8-bit images"),
        (IMAGES.astype(np.float32), LABELS, r"^here: holds float32 values"),
    ],
)
def test_what_cannot_be_a_set(images, labels, match):
    with pytest.raises(DataError, match=match):
        checked_set(images, labels, classes=10, where="here")
