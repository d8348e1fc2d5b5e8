import numpy as np
import pytest

from autodo.data.distort import long_tail
from autodo.data.minority import minority_classes


@pytest.mark.parametrize(
    ("train_counts", "reduced", "minority"),
    [
        # The synthetic imbalance decides, whatever the dataset's own counts are.
        ([100, 100, 100, 100], [2, 3], (2, 3)),
        ([10, 500, 500, 500], [2, 3], (2, 3)),
        ([100, 100, 100, 100], [3], (3,)),
        # Without one: fewer images than the mean, wherever these classes stand.
        ([30, 200, 40, 200, 35], [], (0, 2, 4)),
        ([100, 200, 300], [], (0,)),
        # From a ratio of 1.5 on.
        ([100, 150], [], (0,)),
        ([101, 151], [], ()),
        ([100, 100], [], ()),
        ([1, 1], [], ()),
        # SVHN's train set.
        ([4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659], [], (0, 5, 6, 7, 8, 9)),
    ],
)
def test_minority_classes(train_counts, reduced, minority):
    counts = np.array(train_counts)
    assert minority_classes(counts, np.isin(np.arange(len(counts)), reduced)) == minority


def test_of_a_long_tail_the_minority_has_fewer_images_than_the_mean():
    assert minority_classes(long_tail(10, 100)) == (3, 4, 5, 6, 7, 8, 9)
    assert minority_classes(long_tail(10, 10)) == (4, 5, 6, 7, 8, 9)
    assert minority_classes(long_tail(10, 1.4)) == ()
