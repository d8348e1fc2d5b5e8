"""Writers of small files in the real on-disk formats: published datasets, class folders of photographs, tar shards."""

import csv
import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from autodo.config.dataset import DatasetConfig
from autodo.data import load
from autodo.data.images.image_set import Dataset
from autodo.data.readers import idx
from autodo.data.stream import image_files
from autodo.data.stream.pool import WORKERS_VARIABLE, close_pools
from autodo.io import retry
from autodo.testing import dataset_files
from autodo.testing.dataset_files import expected_checksums


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def idx_bytes(array: np.ndarray) -> bytes:
    """Magic number 0x00000800 + dimensions, big-endian sizes, then the bytes."""
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def write_idx(generator, monkeypatch) -> Callable[..., SimpleNamespace]:
    """Writes four files, 20 train and 10 test images of 28x28, makes them the published ones, returns what they hold.

    What was written for the same dataset before is the published one no more.
    """

    def write(folder: Path, *, gz: bool, dataset: str = "mnist") -> SimpleNamespace:
        folder.mkdir(parents=True, exist_ok=True)
        held = {}
        published = {}
        for part, n in (("train", 20), ("t10k", 10)):
            held[part] = SimpleNamespace(
                images=generator.integers(256, size=(n, 28, 28), dtype=np.uint8),
                labels=np.arange(n, dtype=np.uint8) % 10,
            )
            for kind, array in (("images-idx3", held[part].images), ("labels-idx1", held[part].labels)):
                content = idx_bytes(array)
                name = f"{part}-{kind}-ubyte"
                published[name] = hashlib.md5(content).hexdigest()
                if gz:
                    (folder / f"{name}.gz").write_bytes(gzip.compress(content))
                else:
                    (folder / name).write_bytes(content)
        monkeypatch.setitem(idx.MD5, dataset, published)
        return SimpleNamespace(**held)

    return write


def expect(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision take the files under a folder for the published ones."""
    for reader, name, value in expected_checksums(root):
        monkeypatch.setattr(reader, name, value)


@pytest.fixture
def write_svhn(generator, monkeypatch) -> Callable[[Path], SimpleNamespace]:
    """Writes 30 train and 10 test images, and lets torchvision expect their checksums."""

    def write(folder: Path) -> SimpleNamespace:
        held = dataset_files.write_svhn(folder, np.arange(30) % 10, np.arange(10), generator)
        expect(folder, monkeypatch)
        return SimpleNamespace(**held)

    return write


@pytest.fixture
def write_cifar(generator, monkeypatch) -> Callable[[Path, int], SimpleNamespace]:
    """Writes the batches of CIFAR-10 or CIFAR-100, and lets torchvision expect their checksums."""

    def write(root: Path, classes: int) -> SimpleNamespace:
        held = dataset_files.write_cifar(root, classes, generator)
        expect(root, monkeypatch)
        return SimpleNamespace(names=[f"name-{i}" for i in range(classes)], **held)

    return write


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Writes an image of one colour, or a gray one if the colour is a number."""

    def write(path: Path, colour: int | tuple[int, int, int] = (200, 30, 90), size: tuple[int, int] = (12, 10)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path)
        return path

    return write


@pytest.fixture
def write_classes(write_image) -> Callable[..., None]:
    """Writes class folders: `write_classes(root, cat=5, dog=4)`."""

    def write(root: Path, **counts: int) -> None:
        for k, (name, count) in enumerate(counts.items()):
            for i in range(count):
                write_image(root / name / f"{i:02}.png", (40 * k, 10 * i, 7))

    return write


@pytest.fixture
def write_csv() -> Callable[..., Path]:
    def write(path: Path, *rows: tuple[str, ...], encoding: str = "utf-8") -> Path:
        with path.open("w", encoding=encoding, newline="") as file:
            csv.writer(file).writerows(rows)
        return path

    return write


# ----- streamed images


@pytest.fixture(autouse=True)
def _own_cache_and_no_workers(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("AUTODO_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv(WORKERS_VARIABLE, "0")
    yield
    close_pools()


class Clock:
    """Stands in for `time` where files are read again: a sleep takes no time and is counted."""

    def __init__(self) -> None:
        self.now = 0.0
        self.on_sleep: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + 1e-6
        self.on_sleep()


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    for module in (retry, image_files):
        monkeypatch.setattr(module, "time", clock)
    return clock


def picture(number: int, size: tuple[int, int] = (60, 40)) -> Image.Image:
    """Another one for every number: smooth in the large, with grain."""
    generator = np.random.default_rng(number)
    coarse = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((pixels + generator.integers(-20, 21, pixels.shape)).clip(0, 255).astype(np.uint8))


@pytest.fixture
def tree(tmp_path) -> Path:
    """10 JPEGs in each of 3 class folders, of several sizes."""
    root = tmp_path / "tree"
    for number in range(30):
        folder = root / f"class-{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        picture(number, (50 + number, 70 - number)).save(folder / f"{number:02}.jpg", quality=90)
    return root


@pytest.fixture
def write_shards() -> Callable[..., Path]:
    """Writes class folders' images as webdataset writes shards, 8 in each; the samples are named by `key`."""

    def write(tree: Path, root: Path, part: str = "train", **extra: Callable[[Path], object]) -> Path:
        from webdataset import ShardWriter

        root.mkdir(exist_ok=True)
        with ShardWriter(str(root / f"{part}-%02d.tar"), maxcount=8, verbose=0) as writer:
            for file in sorted(tree.rglob("*.jpg")):
                sample = {"__key__": f"{file.parent.name}/{file.stem}", "jpg": file.read_bytes()}
                given = extra or {"cls": lambda path: path.parent.name}
                writer.write(sample | {suffix: value(file) for suffix, value in given.items()})
        return root

    return write


@pytest.fixture
def stream() -> Callable[..., Dataset]:
    """The dataset of streamed images at a path."""

    def read(path: Path, image_size: int = 24, **settings: object) -> Dataset:
        given = {"name": "folder", "path": str(path), "image_size": image_size, "stream": True} | settings
        return load(DatasetConfig(**given))

    return read


@pytest.fixture
def pixels_of() -> Callable[..., np.ndarray]:
    def read(images, crops=None, batch=7) -> np.ndarray:
        batches = [np.arange(len(images))[i : i + batch] for i in range(0, len(images), batch)]
        return np.concatenate([tensor.numpy() for tensor in images.batches(batches, crops)])

    return read
