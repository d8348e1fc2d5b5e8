"""The differentiable operations of policy searches by kornia and by our own code: how far apart, and what they cost.

    python -m benchmarks.search_operations

The largest difference is over photographs and the whole range of values. Time is of this thread for 64 images, forward
and backward in images and levels, by turns; ratios are medians over the turns.
"""

import argparse
import os
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from autodo.augment.operations import OPERATIONS
from autodo.augment.policy_file import OperationName
from autodo.config.policy import Implementation
from autodo.search.gradient.differentiable_operations import SEARCHED, DifferentiableOperations, differentiable
from autodo.testing import pil_policy

BATCH = 64
SIZES = {"32x32 colour": (32, 32, 3), "28x28 grey": (28, 28, 1)}
BOTH: tuple[Implementation, Implementation] = ("own", "kornia")


def main() -> None:
    """Prints a table of each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=31, help="turns")
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=120)
    console.print(f"one of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    for title, size in SIZES.items():
        table = Table("operation", "largest difference, levels", "own, ms", "kornia, ms", "kornia / own", title=title)
        total = dict.fromkeys(BOTH, 0.0)
        photographs = pil_policy.photographs(*size)
        images = (photographs.float() / 255)[torch.arange(BATCH) % len(photographs)]
        for name in (name for name in SEARCHED if name in differentiable("kornia")):
            seconds = timed(name, images, given.repeat)
            medians = {who: 1000 * statistics.median(taken) for who, taken in seconds.items()}
            total = {who: total[who] + medians[who] for who in BOTH}
            ratio = statistics.median(k / o for k, o in zip(seconds["kornia"], seconds["own"], strict=True))
            own, kornia = (f"{medians[who]:.2f}" for who in BOTH)
            table.add_row(name, f"{largest_difference(name, images):.3f}", own, kornia, f"{ratio:.2f}")
        own, kornia = (f"{total[who]:.2f}" for who in BOTH)
        table.add_row("all", "", own, kornia, f"{total['kornia'] / total['own']:.2f}")
        console.print(table)


def values(name: OperationName, level: Tensor) -> Tensor:
    """Values of the levels in the operation's units, every second one negated if it has a sign. Shape: [b] -> [b]."""
    operation = OPERATIONS[name]
    value = operation.low + level * (operation.high - operation.low)
    return torch.where(torch.arange(len(level)) % 2 == 0, value, -value) if operation.signed else value


def largest_difference(name: OperationName, images: Tensor) -> float:
    """Largest difference over 50 draws, in levels of 0..255."""
    generator = torch.Generator().manual_seed(0)
    found = 0.0
    for _ in range(50):
        level = torch.rand(len(images), generator=generator)
        own, kornia = (applied(name, images, level, who) for who in BOTH)
        found = max(found, 255 * float((own - kornia).abs().max()))
    return found


def timed(name: OperationName, images: Tensor, repeat: int) -> dict[Implementation, list[float]]:
    """Seconds of each turn; the first is left out."""
    seconds: dict[Implementation, list[float]] = {who: [] for who in BOTH}
    level = torch.rand(len(images), generator=torch.Generator().manual_seed(1))
    for turn in range(repeat + 1):
        for who in BOTH:
            leaves = images.clone().requires_grad_(), level.clone().requires_grad_()
            started = time.thread_time()
            torch.autograd.grad(applied(name, *leaves, who).sum(), leaves, allow_unused=True)
            if turn:
                seconds[who].append(time.thread_time() - started)
    return seconds


def applied(name: OperationName, images: Tensor, level: Tensor, implementation: Implementation) -> Tensor:
    """Images after the operation. Shape: images [b, C, H, W], level [b] -> like images."""
    centre = torch.full((len(images), 2), 0.5)
    return DifferentiableOperations(implementation).apply(name, images, level, values(name, level), centre)


if __name__ == "__main__":
    main()
