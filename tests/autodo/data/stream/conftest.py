"""Small photographs in class folders and in tar shards."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autodo.config.dataset import DatasetConfig
from autodo.data import load
from autodo.data.image_set import Dataset
from autodo.data.stream.pool import WORKERS_VARIABLE, close_pools


@pytest.fixture(autouse=True)
def _own_cache_and_no_workers(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("AUTODO_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv(WORKERS_VARIABLE, "0")
    yield
    close_pools()


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
