"""Throughput of plain training, beside an ordinary pipeline: PIL image by image in a DataLoader with two workers.

    make bench            # or: python -m benchmarks.throughput --device cuda

All in turns, medians with quartiles of the ratios in a turn, on the wall, because the DataLoader's workers are other
processes; their start is not counted. Both sides train with the same number of threads, 2 unless --threads says more
or less. Images and labels are made up, on which the time
does not depend. The ordinary side does the same with the same network: crop, flip, (RandAugment,) normalise, erase; it
trains in float32 with channels first.

`data` is what a step does before the network sees a batch: the gather from uint8 images and the augmentation.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from autodo.augment.pipeline import Pipeline, channel_statistics
from autodo.augment.policies import build_policy
from autodo.config.policy import RandAugment
from autodo.config.recipes import build_run
from autodo.config.run import AugmentationConfig, RunConfig
from autodo.data import ArrayImages, DataSplits, ImageSet
from autodo.data.batches import epoch_batches
from autodo.data.prepare import TrainSet
from autodo.models import build
from autodo.training.task_model import computes_in_bf16
from autodo.training.trainer import Trainer
from benchmarks.outer_phase import ratios
from benchmarks.table import Row, machine, record_rows

BATCH = 128
SHAPES = {"3x32x32, as CIFAR": (3, 32, True), "1x28x28, as Fashion-MNIST": (1, 28, True)}
DATA_GOAL, END_TO_END_GOAL = 6.0, 2.0
SHARE_GOAL = {"cpu": 0.15, "cuda": 0.10}
IMAGES_A_SECOND_GOAL = 8_000


class Load(NamedTuple):
    """The network that is trained, on how many images a turn."""

    model: str
    batch_size: int
    images: int


LOADS = {"cpu": Load("wrn-16-2", BATCH, 4 * BATCH), "cuda": Load("wrn-28-10", 256, 100 * 256)}


def main() -> None:
    """Prints a table of the data path and one of the training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7, help="turns")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of this process; 1 where others are at work too")
    parser.add_argument("--images", type=int, default=8192, help="of a turn of the data path")
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled rows out")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    console = Console(width=130)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine()
    console.print(f"{name}, {given.threads} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    console.print(data_table(given.images, device, given.repeat))
    console.print(training_table(LOADS[device.type], device, given.repeat, compiled=not given.no_compile))
    console.print(f"load {os.getloadavg()[0]:.1f} at the end")


# ----- the ordinary side


class Pictures(Dataset[Any]):
    """uint8 images through PIL and torchvision's transforms, one at a time."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, pipeline: Pipeline, *, policy: bool) -> None:
        channels, size = images.shape[1], images.shape[-1]
        self.images = [Image.fromarray(image.transpose(1, 2, 0).squeeze()) for image in images]
        self.labels = labels.tolist()
        config = pipeline.config
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(size, padding=config.crop_padding),
                *([transforms.RandomHorizontalFlip()] if config.flip else []),
                *([transforms.RandAugment(2, 9)] if policy else []),
                transforms.ToTensor(),
                transforms.Normalize(pipeline.mean.view(channels).tolist(), pipeline.std.view(channels).tolist()),
                transforms.RandomErasing(config.erase_probability, scale=(0.02, 0.4)),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def loader(pictures: Pictures, batch_size: int, device: torch.device) -> DataLoader[Any]:
    """Two workers that go on from epoch to epoch."""
    return DataLoader(
        pictures,
        batch_size,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
        # The numbers of an epoch come from here, not from the global generator.
        generator=torch.Generator().manual_seed(0),
    )


def ordinary_epoch(
    batches: Iterable[tuple[Tensor, Tensor]], network: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> float:
    """One epoch of training as most scripts do it."""
    network.train()
    total = torch.zeros((), device=device)
    for images, labels in batches:
        logits = network(images.to(device, non_blocking=True))
        loss = F.cross_entropy(logits, labels.to(device, non_blocking=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
    return float(total)


# ----- the data path


def data_table(count: int, device: torch.device, repeat: int) -> Table:
    """Thousands of images a second."""
    table = Table("images", "policy", "ours", "ordinary", "ratio", "quartiles", "at least", title="data path alone")
    table.caption = "thousands of images a second"
    for column in table.columns[2:]:
        column.justify = "right"
    for title, (channels, size, flip) in SHAPES.items():
        generator = np.random.default_rng(0)
        images = generator.integers(256, size=(count, channels, size, size), dtype=np.uint8)
        labels = generator.integers(10, size=count)
        mean, std = (statistic.to(device) for statistic in channel_statistics([torch.from_numpy(images)]))
        for name, policy in (
            ("none", None),
            ("RandAugment", RandAugment(operations="original", draws=2, magnitude=9, fixed=True)),
        ):
            drawn = None if policy is None else build_policy(policy)
            pipeline = Pipeline(AugmentationConfig(flip=flip), mean, std, drawn)
            pictures = loader(Pictures(images, labels, pipeline, policy=policy is not None), BATCH, device)
            on_device = torch.from_numpy(images).to(device)
            draws = torch.Generator(device).manual_seed(0)
            seconds = in_turns(
                {
                    "ours": partial(data_epoch, on_device, pipeline, BATCH, draws),
                    "ordinary": partial(exhaust, pictures, device),
                },
                repeat,
                device,
            )
            rate = {key: f"{count / statistics.median(values) / 1000:.1f}" for key, values in seconds.items()}
            ratio = ratios(seconds["ordinary"], seconds["ours"])
            table.add_row(title, name, rate["ours"], rate["ordinary"], *ratio, f"{DATA_GOAL:.0f}")
            record_rows(Row(f"data path beside PIL, {title}, policy: {name}", float(ratio[0]), "x", at_least=DATA_GOAL))
    return table


def data_epoch(images: Tensor, pipeline: Pipeline, batch_size: int, generator: torch.Generator) -> None:
    """Every image once as a network would get it."""
    points = torch.arange(len(images), device=images.device)
    for batch in epoch_batches(points, batch_size, generator):
        pipeline.train_view(images[batch], generator)


def exhaust(batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> None:
    """Every image once, on the device."""
    for images, _ in batches:
        images.to(device, non_blocking=True)


# ----- the training


def training_table(load: Load, device: torch.device, repeat: int, *, compiled: bool) -> Table:
    """Images a second of whole train steps, and the share of the data path in them."""
    data = made_up(load.images)
    kinds: dict[str, dict[str, object]] = {"bf16": {"training.precision": "bf16"}, "fp32": {}}
    if not computes_in_bf16(device):
        del kinds["bf16"]  # it would take minutes a step
    if compiled:
        kinds |= {f"{name}, compiled": {**changes, "training.compile": True} for name, changes in kinds.items()}
    trainings = {
        f"ours, {name}": Trainer(config_of(load, changes), data, device=str(device)) for name, changes in kinds.items()
    }
    ours = next(iter(kinds))
    first = trainings[f"ours, {ours}"]
    images = first.loaders.train.images[torch.arange(load.images, device=device)]
    encoder, head = build(load.model, in_channels=3, image_size=32, classes=10)
    network = nn.Sequential(encoder, head).to(device).to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    pictures = loader(
        Pictures(data.train.images.read(), data.train.labels, first.model.pipeline, policy=False),
        load.batch_size,
        device,
    )
    phases: dict[str, Callable[[], object]] = {
        "ordinary": partial(ordinary_epoch, pictures, network, optimizer, device),
        **{name: partial(training.inner.run, 0) for name, training in trainings.items()},
        "data": partial(
            data_epoch, images, first.model.pipeline, load.batch_size, torch.Generator(device).manual_seed(0)
        ),
    }
    seconds = in_turns(phases, repeat, device)

    table = Table("training", "images/s", "x ordinary", "quartiles", "data", "quartiles")
    table.title = f"{load.model}, 3x32x32, batch {load.batch_size}, {load.images // load.batch_size} steps a turn"
    table.caption = (
        f"at least {END_TO_END_GOAL} x ordinary with {ours}; data at most {SHARE_GOAL[device.type]:.2f} of a step"
    )
    if device.type == "cuda":
        table.caption += f"; at least {IMAGES_A_SECOND_GOAL} images a second on one H100"
    for column in table.columns[1:]:
        column.justify = "right"
    for name in ("ordinary", *trainings):
        speed = ratios(seconds["ordinary"], seconds[name])
        part = ratios(seconds["data"], seconds[name]) if name in trainings else ("", "")
        table.add_row(name, f"{load.images / statistics.median(seconds[name]):.0f}", *speed, *part)
    fastest = seconds[f"ours, {ours}"]
    share = float(ratios(seconds["data"], fastest)[0])
    record_rows(
        Row(
            f"{load.model}, {ours}, beside ordinary",
            float(ratios(seconds["ordinary"], fastest)[0]),
            "x",
            at_least=END_TO_END_GOAL,
        ),
        Row(f"{load.model}, {ours}, data path in a step", share, "share", at_most=SHARE_GOAL[device.type]),
    )
    if device.type == "cuda":
        rate = load.images / statistics.median(fastest)
        record_rows(Row(f"{load.model}, {ours}", rate, "images/s", at_least=IMAGES_A_SECOND_GOAL))
    return table


def config_of(load: Load, changes: dict[str, object]) -> RunConfig:
    """`baseline` with CIFAR-10's recipe."""
    overrides = {"model.name": load.model, "training.batch_size": load.batch_size, **changes}
    return build_run("cifar10", "baseline", overrides=overrides)


def made_up(count: int) -> DataSplits:
    """Noise with random labels; val and test are as good as none."""
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(count + 20, 3, 32, 32), dtype=np.uint8)
    labels = generator.integers(10, size=count + 20)
    train = TrainSet(ArrayImages(images[:count]), labels[:count], labels[:count], np.arange(count), None)
    val, test = (
        ImageSet(ArrayImages(images[part]), labels[part])
        for part in (slice(count, count + 10), slice(count + 10, None))
    )
    return DataSplits(train, val, test, tuple(str(label) for label in range(10)))


def in_turns(phases: dict[str, Callable[[], object]], repeat: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds on the wall of each in every turn, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in phases}
    for turn in range(repeat + 1):
        for name, phase in phases.items():
            took = elapsed(phase, device)
            if turn:
                seconds[name].append(took)
    return seconds


def elapsed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds on the wall."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
