"""MNIST and Fashion-MNIST: four idx files, raw or gzipped."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autodo.config.dataset import DatasetConfig
from autodo.data.files.reading import one_line
from autodo.data.image_set import Dataset, ImageSet, checked_set
from autodo.data.readers.location import READ_ERRORS, DatasetLocation, fetch, unreadable
from autodo.errors import DataError

_IMAGES = "{part}-images-idx3-ubyte"
_LABELS = "{part}-labels-idx1-ubyte"
_PARTS = ("train", "t10k")
_FILES = tuple(kind.format(part=part) for part in _PARTS for kind in (_IMAGES, _LABELS))

MD5 = {
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
"""Of the published files, uncompressed: both datasets use the same names, and a recompressed .gz is as good."""


def read_mnist(config: DatasetConfig, place: DatasetLocation) -> Dataset:
    """Raises DataError if a file is missing, damaged or not the published one."""
    from torchvision.datasets import MNIST

    return _read(config.name, place, MNIST, tuple(str(digit) for digit in range(10)))


def read_fashion_mnist(config: DatasetConfig, place: DatasetLocation) -> Dataset:
    """Raises DataError if a file is missing, damaged or not the published one."""
    from torchvision.datasets import FashionMNIST

    return _read(config.name, place, FashionMNIST, tuple(FashionMNIST.classes))


def _read(name: str, place: DatasetLocation, torchvision_set: type, class_names: tuple[str, ...]) -> Dataset:
    layout = Path(torchvision_set.__name__) / "raw"
    folders = [place.data_dir / layout, place.data_dir]
    if place.system_dir is not None:
        folders.append(place.system_dir)

    found = _first_with_files(folders)
    if place.download and (found is None or _missing(found)):
        files = [str(layout / file) for file in _FILES]
        fetch(name, lambda root: torchvision_set(root, download=True), files, place.data_dir)
        found = place.data_dir / layout
    if found is None:
        looked = ", ".join(str(folder) for folder in folders)
        raise DataError(f"{name}: none of its files, such as {_FILES[0]}[.gz], is in {looked}; {place.remedy}")
    missing = _missing(found)
    if missing:
        raise DataError(f"{found / missing[0]}[.gz]: no such file, but others of {name} are there; {place.remedy}")
    train, test = (_read_part(name, found, part, len(class_names)) for part in _PARTS)
    return Dataset(train=train, test=test, class_names=class_names)


def _read_part(name: str, folder: Path, part: str, classes: int) -> ImageSet:
    images_path = _present(folder, _IMAGES.format(part=part))
    labels_path = _present(folder, _LABELS.format(part=part))
    assert images_path is not None
    assert labels_path is not None
    images, labels = _read_file(name, images_path), _read_file(name, labels_path)
    return checked_set(images[:, None], labels, classes=classes, where=f"{images_path}, {labels_path.name}")


def _read_file(name: str, path: Path) -> NDArray[np.uint8]:
    """The array in one of the published files: [N, H, W] images or [N] labels."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except READ_ERRORS as error:
        raise unreadable(path, one_line(error)) from None
    _check_published(name, path, content)
    # Two zeros, the type (8: unsigned bytes), the number of dimensions; big-endian sizes; the values.
    dimensions = content[3]
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy()


def _check_published(name: str, path: Path, content: bytes) -> None:
    file = path.name.removesuffix(".gz")
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 == MD5[name][file]:
        return
    owner = next((other for other, files in MD5.items() if other != name and md5 in files.values()), None)
    if owner is not None:
        raise DataError(
            f"{path}: is not {name}'s file, but {owner}'s; pass --data-dir with the folder that holds {name}'s files, "
            f"or name the dataset {owner}"
        )
    raise DataError(
        f"{path}: is not {name}'s file: its checksum is not that of the published {file}; "
        "replace it, or delete it and pass --download"
    )


def _first_with_files(folders: list[Path]) -> Path | None:
    return next((folder for folder in folders if len(_missing(folder)) < len(_FILES)), None)


def _missing(folder: Path) -> list[str]:
    return [file for file in _FILES if _present(folder, file) is None]


def _present(folder: Path, file: str) -> Path | None:
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)
