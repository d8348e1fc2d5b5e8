"""Images per second of the policy engine, beside PIL image by image, kornia's and torchvision's batch classes.

    make bench            # or: python -m benchmarks.augmentation --device cuda

All on one thread, in turns, medians; ratios are those of the same turn. `PIL` does what the engine does, with the same
draws, from an array of images to an array of images. kornia's and torchvision's classes draw for themselves, and draw
the operations once for a whole batch, which is less work and less variety.
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable, Mapping

import kornia.augmentation.auto
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision import transforms

from autodo.augment.apply_draws import apply_draws
from autodo.augment.magnitude_ranges import PUBLISHED, OperationSampler
from autodo.augment.operations import NAMES, to_float
from autodo.augment.policies import add_centres, build_policy
from autodo.config.policy import AutoAugment, PolicyConfig, RandAugment, TrivialAugment, UniformAugment
from autodo.seeds import host_generator
from autodo.testing import pil_policy
from benchmarks.table import Row, record_rows

BATCH = 256
GOAL = 10.0
"""Times PIL."""
SHAPES = {"32x32 colour": (3, 32), "28x28 grey": (1, 28)}
POLICIES: dict[str, PolicyConfig] = {
    "RandAugment, paper's, N=3": RandAugment(draws=3, magnitude=15),
    "RandAugment, original, N=2": RandAugment(operations="original", draws=2, magnitude=9, fixed=True),
    "AutoAugment": AutoAugment(table="cifar10"),
    "TrivialAugment": TrivialAugment(),
    "UniformAugment": UniformAugment(),
}
TORCHVISION: dict[str, type[torch.nn.Module]] = {
    "RandAugment, original, N=2": transforms.RandAugment,
    "AutoAugment": transforms.AutoAugment,
    "TrivialAugment": transforms.TrivialAugmentWide,
}
KORNIA: dict[str, Callable[[], torch.nn.Module]] = {
    "RandAugment, original, N=2": lambda: kornia.augmentation.auto.RandAugment(n=2, m=9),
    "AutoAugment": lambda: kornia.augmentation.auto.AutoAugment("cifar10"),
    "TrivialAugment": kornia.augmentation.auto.TrivialAugment,
}


def main() -> None:
    """Prints a table of the policies and one of the operations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=15, help="turns")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(given.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"one of {os.cpu_count()} cores"
    console = Console(width=120)
    console.print(f"batch {BATCH}, {where}, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    for title, (channels, side) in SHAPES.items():
        images = pictures(channels, side)
        console.print(policy_table(title, images, device, given.repeat))
        console.print(operation_table(title, images, device, given.repeat))


def pictures(channels: int, side: int) -> Tensor:
    """A batch of pieces of photographs. Shape: -> [BATCH, channels, side, side] uint8."""
    pieces = pil_policy.photographs(side, side, channels)
    return pieces[torch.arange(BATCH) % len(pieces)].contiguous()


def policy_table(title: str, images: Tensor, device: torch.device, repeat: int) -> Table:
    """Thousands of images a second."""
    table = Table("policy", "engine", "PIL", "ratio", "kornia", "ratio", "torchvision", title=title)
    table.caption = "thousands of images a second"
    for column in table.columns[1:]:
        column.justify = "right"
    on_device = images.to(device)
    floats = to_float(on_device, torch.float32)
    generator = torch.Generator(device).manual_seed(0)
    for name, config in POLICIES.items():
        policy = build_policy(config)
        measured: dict[str, Callable[[], object]] = {
            "engine": lambda policy=policy: apply_draws(on_device, policy.draw(BATCH, host_generator(generator))),  # type: ignore[misc]
            "PIL": lambda policy=policy: pil_policy.apply(  # type: ignore[misc]
                images, policy.draw(BATCH, torch.Generator().manual_seed(0))
            ),
        }
        if name in KORNIA and images.shape[1] == 3:  # kornia refuses Color on grey images
            module = KORNIA[name]()
            measured["kornia"] = lambda module=module: module(floats)  # type: ignore[misc]
        if name in TORCHVISION:
            module = TORCHVISION[name]()
            measured["torchvision"] = lambda module=module: module(on_device)  # type: ignore[misc]
        turns = in_turns(measured, repeat, device)
        rate = {key: f"{BATCH / statistics.median(seconds) / 1000:.1f}" for key, seconds in turns.items()}
        ratios = {key: f"{ratio(seconds, turns['engine']):.1f}" for key, seconds in turns.items()}
        for other in [key for key in turns if key != "engine"]:
            what = f"{name}, {title}: {other}'s time over the engine's"
            record_rows(Row(what, ratio(turns[other], turns["engine"]), "x", at_least=GOAL if other == "PIL" else None))
        table.add_row(
            name,
            rate["engine"],
            rate["PIL"],
            ratios["PIL"],
            rate.get("kornia", "-"),
            ratios.get("kornia", "-"),
            rate.get("torchvision", "-"),
        )
    return table


def operation_table(title: str, images: Tensor, device: torch.device, repeat: int) -> Table:
    """Microseconds an image."""
    table = Table("operation", "engine", "PIL", "ratio", title=title)
    table.caption = "microseconds an image, if a whole batch has one operation"
    for column in table.columns[1:]:
        column.justify = "right"
    generator = torch.Generator().manual_seed(0)
    sampler = OperationSampler(PUBLISHED)
    on_device = images.to(device)
    for name in PUBLISHED:
        operation = torch.full((BATCH, 1), NAMES.index(name))
        level = torch.rand(BATCH, 1, generator=generator)
        draws = add_centres(operation, sampler.draw_values(operation, level, generator), generator)
        there = draws._replace(**{key: column.to(device) for key, column in draws._asdict().items()})
        turns = in_turns(
            {
                "engine": lambda there=there: apply_draws(on_device, there),  # type: ignore[misc]
                "PIL": lambda draws=draws: pil_policy.apply(images, draws),  # type: ignore[misc]
            },
            repeat,
            device,
        )
        cost = {key: f"{1e6 * statistics.median(seconds) / BATCH:.1f}" for key, seconds in turns.items()}
        table.add_row(name, cost["engine"], cost["PIL"], f"{ratio(turns['PIL'], turns['engine']):.1f}")
    return table


def in_turns(measured: Mapping[str, Callable[[], object]], repeat: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each in every turn, after one that is not counted."""
    # This thread's time on a CPU, because other programs are at work as well; a GPU's time is on the wall.
    clock = time.perf_counter if device.type == "cuda" else time.thread_time
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kornia's, about its own implementation
        for turn in range(repeat + 1):
            for name, function in measured.items():
                started = clock()
                function()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if turn:
                    seconds[name].append(clock() - started)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the turns."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


if __name__ == "__main__":
    main()
