"""Speed of reading images from their files, in images a second, and memory over several epochs.

    make bench            # or: python -m benchmarks.streaming [--images 5000] [--workers 2] [--device cuda]

A synthetic tree of JPEGs of about 500x375 in class folders, and the same in tar shards, is read in random order with
RandomResizedCrop to 224: by torchvision's ImageFolder with ToTensor in a DataLoader, and by StreamedImages from the
folders and from the shards. In each round every reader reads all images. StreamedImages gives bytes, a quarter of what
ToTensor gives; they become floats on the device, in a batch.

Decoding times of one processor, for training and for evaluation, are this thread's CPU time: for files of about 55 kB,
and as large as those of ImageNet's train set.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from autodo.config.dataset import DatasetConfig
from autodo.data import load
from autodo.data.files.decode import pixels_of
from autodo.data.images.crop import CropParameters
from autodo.data.stream.pool import WORKERS_VARIABLE
from autodo.data.stream.streamed_images import StreamedImages
from autodo.testing.image_files import scene, write_shards, write_tree
from autodo.testing.memory import resident_mb
from benchmarks.table import Row, machine, record_rows

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SIZE = 224
BATCH = 256
PLAIN = "ImageFolder"
SCALE = (0.08, 1.0)
Epoch = Callable[[int], Iterator[Tensor]]


def main() -> None:
    """Prints three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", help="take every batch to this device; default: leave it in host memory")
    given = parser.parse_args()
    os.environ[WORKERS_VARIABLE] = str(given.workers)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTODO_CACHE"] = f"{folder}/cache"
        tree, shards = Path(folder, "tree"), Path(folder, "shards")
        write_tree(tree, given.images)
        write_shards(tree, shards)
        started = time.perf_counter()
        streamed = streamed_images(tree)
        index_seconds = time.perf_counter() - started
        readers: dict[str, Epoch] = {
            PLAIN: image_folder(tree, given.workers, pinned=given.device is not None and given.device != "cpu"),
            "StreamedImages, folders": streamed_epoch(streamed),
            "StreamedImages, shards": streamed_epoch(streamed_images(shards)),
        }
        memory = memory_of(streamed_epoch(streamed), given.rounds, given.device)
        rates = measure(readers, given.rounds, given.device)
        own = decoding_ms()
        size = sum(file.stat().st_size for file in tree.rglob("*.jpg")) / given.images
    console = Console()
    console.print(
        f"{given.images:,} JPEGs of {size / 1e3:.0f} kB; checked once in {index_seconds:.1f} s; "
        f"{given.workers} workers; {machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    console.print(rate_table(rates))
    console.print(memory_table(memory))
    console.print(decoding_table(own))
    for name, ratio in ratios(rates).items():
        record_rows(Row(f"{name}: images a second over those of {PLAIN}", ratio, "x", at_least=1.0))
    for (kilobytes, what), milliseconds in own.items():
        record_rows(Row(f"pixels of a JPEG of {kilobytes} kB for {what}, one processor", milliseconds, "ms"))
    record_rows(Row("memory after the last epoch over that after the first", memory[-1] / memory[0], "x", at_most=1.05))


def memory_of(epoch: Epoch, rounds: int, device: str | None) -> list[float]:
    """Memory in MB of this process and its children after each epoch."""
    memory = []
    for number in range(rounds):
        read(epoch(number), device)
        memory.append(resident_mb())
    return memory


def measure(readers: dict[str, Epoch], rounds: int, device: str | None) -> dict[str, list[float]]:
    """Images a second of each reader in each round."""
    for epoch in readers.values():
        read(epoch(0), device, most=4)  # starts processes and fills the page cache
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for number in range(1, rounds + 1):
        for name, epoch in readers.items():
            started = time.perf_counter()
            images = read(epoch(number), device)
            rates[name].append(images / (time.perf_counter() - started))
    return rates


def read(batches: Iterator[Tensor], device: str | None, most: int | None = None) -> int:
    """Reads batches; returns the number of images."""
    images = 0
    for number, batch in enumerate(batches, start=1):
        images += len(batch if device is None else batch.to(device, non_blocking=True))
        if number == most:
            break
    if device is not None and device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return images


def image_folder(tree: Path, workers: int, *, pinned: bool) -> Epoch:
    """An epoch of torchvision's ImageFolder."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = transforms.Compose([transforms.RandomResizedCrop(IMAGE_SIZE, SCALE), transforms.ToTensor()])
    dataset = ImageFolder(str(tree), steps)
    loader: DataLoader[Tensor] = DataLoader(
        dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0, pin_memory=pinned
    )
    return lambda number: (batch for batch, _ in loader)


def streamed_images(path: Path) -> StreamedImages:
    """All images of class folders or shards."""
    dataset = load(DatasetConfig(name="folder", path=str(path), image_size=IMAGE_SIZE, stream=True))
    images = dataset.train.images.concatenate(dataset.test.images)
    assert isinstance(images, StreamedImages)
    return images


def streamed_epoch(images: StreamedImages) -> Epoch:
    """An epoch of StreamedImages, read as in training."""

    def epoch(number: int) -> Iterator[Tensor]:
        order = np.random.default_rng(number).permutation(len(images))
        return images.batches(
            [order[i : i + BATCH] for i in range(0, len(order), BATCH)], CropParameters(SCALE, seed=number)
        )

    return epoch


def decoding_ms(count: int = 60, turns: int = 5) -> dict[tuple[int, str], float]:
    """Median CPU time per JPEG of 500x375 in milliseconds, by size in kB and purpose."""
    scenes = [scene(np.random.default_rng(number)).crop((0, 0, 500, 375)) for number in range(count)]
    files = {size: [_jpeg(image, 1000 * size) for image in scenes] for size in (55, 110)}
    purposes = {"training": CropParameters(SCALE, seed=0), "evaluation": None}
    taken: dict[tuple[int, str], list[float]] = {(size, what): [] for size in files for what in purposes}
    for _ in range(turns):
        for (size, what), milliseconds in taken.items():
            started = time.thread_time()
            for number, content in enumerate(files[size]):
                pixels_of(content, IMAGE_SIZE, purposes[what], number)
            milliseconds.append(1e3 * (time.thread_time() - started) / count)
    return {key: statistics.median(milliseconds) for key, milliseconds in taken.items()}


def _jpeg(image: "Image.Image", size: int) -> bytes:
    """An image as a JPEG of about `size` bytes."""
    files = []
    for quality in range(70, 100):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        files.append(file.getvalue())
    return min(files, key=lambda content: abs(len(content) - size))


def ratios(rates: dict[str, list[float]]) -> dict[str, float]:
    """Median over the rounds of images a second relative to the plain reader."""
    plain = rates[PLAIN]
    return {
        name: statistics.median(ours / theirs for ours, theirs in zip(rounds, plain, strict=True))
        for name, rounds in rates.items()
        if name != PLAIN
    }


def rate_table(rates: dict[str, list[float]]) -> Table:
    """Table of medians and ranges over the rounds."""
    table = Table("reader", "median", "range", f"over {PLAIN}", title="images a second", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, rounds in rates.items():
        ratio = ratios(rates).get(name)
        range_ = f"{min(rounds):.0f}-{max(rounds):.0f}"
        table.add_row(name, f"{statistics.median(rounds):.0f}", range_, "" if ratio is None else f"{ratio:.2f}")
    return table


def decoding_table(own: dict[tuple[int, str], float]) -> Table:
    """Table of decoding times of one processor."""
    table = Table("JPEG", "for", "ms", "images/s", title="pixels of a file, one processor", title_justify="left")
    for (kilobytes, what), milliseconds in own.items():
        table.add_row(f"{kilobytes} kB", what, f"{milliseconds:.2f}", f"{1e3 / milliseconds:.0f}")
    return table


def memory_table(memory: list[float]) -> Table:
    """Table of memory after each epoch."""
    table = Table(title="memory of all processes after each epoch, MB", title_justify="left")
    for number in range(1, len(memory) + 1):
        table.add_column(str(number), justify="right")
    table.add_row(*(f"{value:.0f}" for value in memory))
    return table


if __name__ == "__main__":
    main()
