"""MNIST and Fashion-MNIST: four idx files each, raw or gzipped.

torchvision's classes read only raw files in their own layout and compare no checksum of these; they do the download.
"""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

from autodo.config.dataset import DatasetConfig
from autodo.data.files.read_errors import one_line
from autodo.data.images.image_set import ArrayImages, Dataset, ImageSet
from autodo.data.readers.location import DatasetLocation, fetch, unreadable
from autodo.errors import DataError

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
"""Checksums of the uncompressed files: both datasets use the same names, and a .gz may have been recompressed."""

_FILES = tuple(MD5["mnist"])
_SIDE = 28
_IMAGES_HEADER_BYTES, _LABELS_HEADER_BYTES = 16, 8


def read_mnist(config: DatasetConfig, location: DatasetLocation) -> Dataset:
    """Raises DataError if a file is missing, damaged or not the published one."""
    from torchvision.datasets import MNIST

    return _read(config.name, location, MNIST, tuple(str(digit) for digit in range(10)))


def read_fashion_mnist(config: DatasetConfig, location: DatasetLocation) -> Dataset:
    """Raises DataError if a file is missing, damaged or not the published one."""
    from torchvision.datasets import FashionMNIST

    return _read(config.name, location, FashionMNIST, tuple(FashionMNIST.classes))


def _read(name: str, location: DatasetLocation, torchvision_set: type, class_names: tuple[str, ...]) -> Dataset:
    layout = Path(torchvision_set.__name__) / "raw"
    folders = [location.data_dir / layout, location.data_dir]
    if location.system_dir is not None:
        folders.append(location.system_dir)
    found = next((folder for folder in folders if len(_missing(folder)) < len(_FILES)), None)
    if location.download and (found is None or _missing(found)):
        files = [str(layout / file) for file in _FILES]
        fetch(name, lambda root: torchvision_set(root, download=True), files, location.data_dir)
        found = location.data_dir / layout
    if found is None:
        looked = ", ".join(str(folder) for folder in folders)
        raise DataError(f"{name}: none of its files, such as {_FILES[0]}[.gz], is in {looked}; {location.remedy}")
    missing = _missing(found)
    if missing:
        raise DataError(f"{found / missing[0]}[.gz]: no such file, but others of {name} are there; {location.remedy}")
    return Dataset(_read_part(name, found, "train"), _read_part(name, found, "t10k"), class_names)


def _read_part(name: str, folder: Path, part: str) -> ImageSet:
    images = _published_bytes(name, folder, f"{part}-images-idx3-ubyte")
    labels = _published_bytes(name, folder, f"{part}-labels-idx1-ubyte")
    pixels = np.frombuffer(images, np.uint8, offset=_IMAGES_HEADER_BYTES).reshape(-1, 1, _SIDE, _SIDE).copy()
    return ImageSet(ArrayImages(pixels), np.frombuffer(labels, np.uint8, offset=_LABELS_HEADER_BYTES).astype(np.int64))


def _published_bytes(name: str, folder: Path, file: str) -> bytes:
    """The file's uncompressed bytes. Raises DataError if their checksum is not that of the published file."""
    path = _present(folder, file)
    assert path is not None
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, one_line(error)) from None
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 == MD5[name][file]:
        return content
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


def _missing(folder: Path) -> list[str]:
    return [file for file in _FILES if _present(folder, file) is None]


def _present(folder: Path, file: str) -> Path | None:
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)
