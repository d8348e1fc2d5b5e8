"""SVHN, CIFAR-10 and CIFAR-100, read by torchvision's classes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autodo.config.dataset import DatasetConfig
from autodo.data.files.read_errors import one_line
from autodo.data.images.image_set import ArrayImages, Dataset, ImageSet
from autodo.data.readers.location import DatasetLocation, fetch, unreadable
from autodo.errors import DataError

_PARTS = ("train", "test")
OpenSet = Callable[[Path, str, bool], Any]
"""(root, part, download) -> torchvision's dataset."""


def read_svhn(config: DatasetConfig, location: DatasetLocation) -> Dataset:
    """DATA_DIR/{train,test}_32x32.mat. Raises DataError if a file is missing, damaged or not the published one."""
    from torchvision.datasets import SVHN

    md5 = {SVHN.split_list[part][1]: SVHN.split_list[part][2] for part in _PARTS}
    train, test = _open(config.name, location, md5, lambda root, part, download: SVHN(root, part, download=download))
    class_names = tuple(str(digit) for digit in range(10))
    return Dataset(_image_set(train.data, train.labels), _image_set(test.data, test.labels), class_names)


def read_cifar10(config: DatasetConfig, location: DatasetLocation) -> Dataset:
    """DATA_DIR/cifar-10-batches-py. Raises DataError if a file is missing, damaged or not the published one."""
    from torchvision.datasets import CIFAR10

    return _read_cifar(config.name, location, CIFAR10)


def read_cifar100(config: DatasetConfig, location: DatasetLocation) -> Dataset:
    """DATA_DIR/cifar-100-python. Raises DataError if a file is missing, damaged or not the published one."""
    from torchvision.datasets import CIFAR100

    return _read_cifar(config.name, location, CIFAR100)


def _read_cifar(name: str, location: DatasetLocation, torchvision_set: Any) -> Dataset:
    files = [*torchvision_set.train_list, *torchvision_set.test_list]
    files.append((torchvision_set.meta["filename"], torchvision_set.meta["md5"]))
    md5 = {f"{torchvision_set.base_folder}/{file}": checksum for file, checksum in files}

    def open_set(root: Path, part: str, download: bool) -> Any:
        return torchvision_set(root, train=part == "train", download=download)

    parts = _open(name, location, md5, open_set)
    train, test = (_image_set(part.data.transpose(0, 3, 1, 2), part.targets) for part in parts)
    return Dataset(train, test, tuple(parts[0].classes))


def _image_set(images: Any, labels: Any) -> ImageSet:
    return ImageSet(ArrayImages(np.ascontiguousarray(images)), np.asarray(labels, np.int64))


def _open(name: str, location: DatasetLocation, md5: Mapping[str, str], open_set: OpenSet) -> tuple[Any, Any]:
    """Opens torchvision's train and test sets.

    Args:
        md5: checksum of every file, by its path under the data dir.
    """
    from torchvision.datasets.utils import check_integrity

    root = location.data_dir
    if location.download and _missing(root, md5):
        fetch(name, lambda folder: [open_set(folder, part, True) for part in _PARTS], md5, root)
    missing = _missing(root, md5)
    if missing:
        raise DataError(f"{name}: {missing[0]}: no such file; {location.remedy}")
    try:
        # torchvision compares checksums too, but its error does not name the file.
        wrong = [root / file for file, checksum in md5.items() if not check_integrity(root / file, checksum)]
        if not wrong:
            return open_set(root, "train", False), open_set(root, "test", False)
    except Exception as error:  # torchvision, pickle and scipy raise exceptions of many kinds
        raise DataError(f"{name}: cannot be read from {root}: {one_line(error)}; replace the files") from None
    raise unreadable(wrong[0], "its checksum is not that of the published file")


def _missing(root: Path, files: Mapping[str, str]) -> list[Path]:
    return [root / file for file in files if not (root / file).is_file()]
