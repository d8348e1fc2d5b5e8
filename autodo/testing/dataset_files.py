"""Small files in the formats of SVHN, CIFAR-10, CIFAR-100 and ImageNet, for tests and rehearsals without the real ones.

Each image shows the pattern of its class under noise, so that a network can learn from a few.
"""

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SVHN_COUNTS = (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659)
"""Published train images of the digits 0 to 9; their lower half is larger, unlike that of other datasets."""
_PATTERN = 4  # cells of a pattern in each direction
_QUALITY = 90  # of JPEGs


class Written(NamedTuple):
    """Content of one part of a dataset.

    Shape:
        images [N, 3, H, W] uint8; labels [N] int64, from 0.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def class_images(
    labels: NDArray[np.int64], generator: np.random.Generator, height: int = 32, width: int = 32
) -> NDArray[np.uint8]:
    """Images of the pattern of their class, the same in every call, with noise. Shape: labels [N] -> [N, 3, H, W]."""
    rows, columns = (np.arange(size) * _PATTERN // size for size in (height, width))
    present, places = np.unique(labels, return_inverse=True)
    patterns = np.stack([_pattern(label) for label in present])[places]
    noise = generator.normal(0, 30, (len(labels), 3, height, width)).astype(np.float32)
    return (patterns[:, :, rows][..., columns] + noise).clip(0, 255).astype(np.uint8)


def _pattern(label: np.int64) -> NDArray[np.float32]:
    return np.random.default_rng(label).uniform(40, 215, (3, _PATTERN, _PATTERN)).astype(np.float32)


def svhn_labels(count: int) -> NDArray[np.int64]:
    """About `count` labels in the published proportions. Shape: -> [N]."""
    wanted = np.rint(np.array(SVHN_COUNTS) * (count / sum(SVHN_COUNTS))).astype(np.int64)
    return np.repeat(np.arange(10), wanted)


def write_svhn(
    folder: Path, train: NDArray[np.int64], test: NDArray[np.int64], generator: np.random.Generator
) -> dict[str, Written]:
    """Write {train,test}_32x32.mat, in which the digit 0 has label 10; return the content by part.

    Args:
        train, test: labels 0 to 9, in the order of the images.
    """
    import scipy.io

    folder.mkdir(parents=True, exist_ok=True)
    held = {}
    for part, labels in (("train", train), ("test", test)):
        images = class_images(labels, generator)
        in_file = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        content = {"X": np.ascontiguousarray(images.transpose(2, 3, 1, 0)), "y": in_file}
        scipy.io.savemat(folder / f"{part}_32x32.mat", content, do_compression=True)
        held[part] = Written(images, labels)
    return held


class _OldNumpyPickler(pickle.Pickler):
    """Pickles dtypes as the published files, of an old numpy, have them: with integers for booleans."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.dtype):
            reduced: Any = value.__reduce__()
            function, (code, align, copy), state = reduced
            return function, (code, int(align), int(copy)), state
        return NotImplemented


def _dump(path: Path, content: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    _OldNumpyPickler(buffer, protocol=2).dump(content)
    path.write_bytes(buffer.getvalue())


def write_cifar(
    root: Path, classes: int, generator: np.random.Generator, *, per_class: int = 1, test_per_class: int = 1
) -> dict[str, Written]:
    """Write the batches of CIFAR-10 or CIFAR-100 in the folder of their name; return the content by part.

    Args:
        per_class, test_per_class: images of each class in each train batch and in the test batch.
    """
    reader = _cifar(classes)
    folder = root / reader.base_folder
    folder.mkdir(parents=True)
    key = {10: "labels", 100: "fine_labels"}[classes]
    held = {}
    for part, files, count in (
        ("train", reader.train_list, per_class),
        ("test", reader.test_list, test_per_class),
    ):
        batches = []
        for name, _ in files:
            labels = generator.permutation(np.repeat(np.arange(classes), count))
            images = class_images(labels, generator)
            names = [f"{i}.png" for i in range(len(labels))]
            _dump(folder / name, {"data": images.reshape(-1, 3072), key: labels.tolist(), "filenames": names})
            batches.append((images, labels))
        images_of, labels_of = zip(*batches, strict=True)
        held[part] = Written(np.concatenate(images_of), np.concatenate(labels_of))
    _dump(folder / reader.meta["filename"], {reader.meta["key"]: [f"name-{i}" for i in range(classes)]})
    return held


def _cifar(classes: int) -> Any:
    from torchvision import datasets

    return {10: datasets.CIFAR10, 100: datasets.CIFAR100}[classes]


def write_imagenet(
    root: Path, classes: int, generator: np.random.Generator, *, per_class: int, test_per_class: int = 1, side: int = 48
) -> None:
    """Write {train,val}/<wnid>/*.JPEG of different sizes, with the published oddities: gray, CMYK and PNG images.

    Args:
        classes: at most 1,000.
        side: mean length in pixels of a side.
    """
    number = 0
    for part, count in (("train", per_class), ("val", test_per_class)):
        for label in range(classes):
            wnid = f"n{1440764 + 13 * label:08}"
            folder = root / part / wnid
            folder.mkdir(parents=True)
            sizes = generator.integers(side * 3 // 4, side * 5 // 4, (count, 2)).tolist()
            for height, width in sizes:
                number += 1
                name = f"{wnid}_{number}" if part == "train" else f"ILSVRC2012_val_{number:08}"
                (image,) = class_images(np.array([label]), generator, height, width)
                _save_photo(folder / f"{name}.JPEG", image, number)


def _save_photo(path: Path, image: NDArray[np.uint8], number: int) -> None:
    """Save an image [3, H, W]; every 97th is gray, every 499th CMYK, every 997th a PNG despite its name."""
    from PIL import Image

    photo = Image.fromarray(image.transpose(1, 2, 0))
    if number % 997 == 0:
        photo.save(path, "PNG")
    elif number % 499 == 0:
        photo.convert("CMYK").save(path, "JPEG", quality=_QUALITY)
    elif number % 97 == 0:
        photo.convert("L").save(path, "JPEG", quality=_QUALITY)
    else:
        photo.save(path, "JPEG", quality=_QUALITY)


def expected_checksums(root: Path) -> Iterator[tuple[type, str, Any]]:
    """Attributes with which torchvision takes the files under a folder for the published ones: class, name, value.

    Datasets without files there are left out.
    """
    from torchvision.datasets import SVHN

    if (root / "train_32x32.mat").is_file():
        parts = {part: list(known) for part, known in SVHN.split_list.items()}
        for part in ("train", "test"):
            parts[part][2] = _md5(root / parts[part][1])
        yield SVHN, "split_list", parts
    for classes in (10, 100):
        reader = _cifar(classes)
        folder = root / reader.base_folder
        if folder.is_dir():
            for name in ("train_list", "test_list"):
                yield reader, name, [[file, _md5(folder / file)] for file, _ in getattr(reader, name)]
            yield reader, "meta", {**reader.meta, "md5": _md5(folder / reader.meta["filename"])}


def accept_on_import(root: Path) -> None:
    """Let this process, once it imports torchvision's datasets, take the files under a folder for the published ones.

    For the `sitecustomize` of processes that others start; where torchvision is imported, `expected_checksums` serves.
    """
    sys.meta_path.insert(0, _AcceptingFinder(root))


class _AcceptingFinder(importlib.abc.MetaPathFinder):
    """Finds torchvision's datasets like the other finders do, and changes their checksums when they are imported."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != "torchvision.datasets":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_accept(module: types.ModuleType) -> None:
                execute(module)
                for reader, attribute, value in expected_checksums(self.root):
                    setattr(reader, attribute, value)

            spec.loader.exec_module = execute_and_accept  # type: ignore[method-assign]
        return spec


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()
