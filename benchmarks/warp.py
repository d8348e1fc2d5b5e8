"""How the images of the per-point warp are sampled: likeness to the truth, time, and what a training makes of it.

    python -m benchmarks.warp                 # likeness and time
    python -m benchmarks.warp --train 0 1 2   # test errors on Fashion-MNIST with these seeds

The truth is a photograph of four times the size, warped there and averaged down; what is warped is the photograph
averaged down. `4x` is what the published code does: up four times, warp, down. Bicubic sampling leaves [0, 1], to which
its images are clipped here. A second table has the time of the settings of `points.warp`, which give the same images.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from autodo.augment import affine
from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.testing import pil_policy
from autodo.training.trainer import Trainer

FACTOR = 4
Warp = Callable[[Tensor, Tensor], Tensor]


def sampled(images: Tensor, magnitude: Tensor, mode: str) -> Tensor:
    """`affine.warp` with another interpolation. Shape: images [B, C, H, W], magnitude [B, 7] -> [B, C, H, W]."""
    height, width = images.shape[-2:]
    grid = affine.sampling_grid(affine.sampling_maps(magnitude, height, width), height, width)
    return F.grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)


def bicubic(images: Tensor, magnitude: Tensor) -> Tensor:
    """Shape: as `sampled`."""
    return sampled(images, magnitude, "bicubic").clamp(0, 1)


def upscaled(images: Tensor, magnitude: Tensor) -> Tensor:
    """Four times as large, warped, and back. Shape: as `sampled`."""
    large = F.interpolate(images, scale_factor=FACTOR, mode="bilinear", align_corners=False)
    return F.avg_pool2d(sampled(large, magnitude, "bilinear"), FACTOR)


WARPS: dict[str, Warp] = {"bilinear": affine.warp, "bicubic": bicubic, "4x": upscaled}
# Channels, height, width: digits, Fashion-MNIST, CIFAR.
SIZES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
# Name -> column of the magnitudes, standard deviation or value.
MAPS = {
    "rotation, sigma 15 degrees": ("rotate", 0.262),
    "shrink by 0.6": ("scale", -0.511),
    "shift, sigma 0.05": ("translate", 0.05),
}


def main() -> None:
    """Prints a table of likeness and time, or one of test errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, nargs="+", metavar="SEED")
    parser.add_argument("--methods", nargs="+", default=["autodo-exact-aws"])
    parser.add_argument("--warps", nargs="+", default=list(WARPS), choices=list(WARPS), help="to train with")
    parser.add_argument("--distortion", default="10-0.1")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=15, help="turns")
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=120)
    console.print(f"one of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    if given.train is None:
        console.print(likeness_table(given.repeat))
        console.print(kornia_table(given.repeat))
    else:
        for method in given.methods:
            console.print(error_table(method, given.distortion, given.epochs, given.train, given.warps))


def likeness_table(repeat: int) -> Table:
    """PSNR in dB against the truth, and milliseconds forward and backward, for 128 images of 3x32x32."""
    table = Table("warp", *MAPS, "ms", "x bilinear", title="PSNR in dB over the middle; time, forward and backward")
    truth = to_float(pil_policy.photographs(32 * FACTOR, 32 * FACTOR, 3))
    truth = truth[torch.arange(128) % len(truth)]
    images = F.avg_pool2d(truth, FACTOR)
    seconds = timed(images, WARPS, repeat)
    for name, warp in WARPS.items():
        figures = [f"{psnr(warp, images, truth, magnitudes(*which)):.1f}" for which in MAPS.values()]
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["bilinear"], strict=True))
        table.add_row(name, *figures, f"{1000 * statistics.median(seconds[name]):.1f}", f"{ratio:.1f}")
    return table


def kornia_table(repeat: int) -> Table:
    """Milliseconds of a batch of 128, forward and backward, of both settings of `points.warp`, and their ratio."""
    table = Table("images", "fused, ms", "kornia, ms", "ratio", title="the same warp by kornia")
    for channels, height, width in SIZES:
        images = torch.rand(128, channels, height, width, generator=torch.Generator().manual_seed(2))
        seconds = timed(images, {str(name): warp for name, warp in affine.WARPS.items()}, repeat)
        medians = [f"{1000 * statistics.median(seconds[name]):.2f}" for name in ("fused", "kornia")]
        ratio = statistics.median(a / b for a, b in zip(seconds["kornia"], seconds["fused"], strict=True))
        table.add_row(f"{channels}x{height}x{width}", *medians, f"{ratio:.2f}")
    return table


def timed(images: Tensor, warps: Mapping[str, Warp], repeat: int) -> dict[str, list[float]]:
    """Seconds of this thread for a batch, forward and backward, by turns; the first turn is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in warps}
    magnitude = (0.2 * torch.randn(128, 7, generator=torch.Generator().manual_seed(0))).requires_grad_()
    for turn in range(repeat + 1):
        for name, warp in warps.items():
            started = time.thread_time()
            torch.autograd.grad(warp(images, magnitude).sum(), magnitude)
            if turn:
                seconds[name].append(time.thread_time() - started)
    return seconds


def magnitudes(kind: str, size: float) -> Tensor:
    """Magnitudes for 128 images: one operation, in both directions if it has two. Shape: -> [128, 7]."""
    columns = [place for place, name in enumerate(affine.WARP_OPERATIONS) if name.startswith(kind)]
    drawn = torch.randn(128, len(columns), generator=torch.Generator().manual_seed(1))
    result = torch.zeros(128, len(affine.WARP_OPERATIONS))
    result[:, columns] = size if kind == "scale" else size * drawn
    return result


def psnr(warp: Warp, images: Tensor, truth: Tensor, magnitude: Tensor) -> float:
    """Mean over the images, of the middle, into which hardly any border moves."""
    expected = F.avg_pool2d(sampled(truth, magnitude, "bilinear"), FACTOR)
    error = (warp(images, magnitude) - expected)[..., 8:24, 8:24].square().mean((1, 2, 3))
    return float((-10 * error.clamp(min=1e-10).log10()).mean())


def to_float(images: Tensor) -> Tensor:
    """Shape: uint8 -> float in [0, 1]."""
    return images.float() / 255


def error_table(method: str, distortion: str, epochs: int, seeds: list[int], warps: list[str]) -> Table:
    """Test error in percent at the epoch of lowest val error, on 12,000 images of Fashion-MNIST."""
    table = Table("warp", *(f"seed {seed}" for seed in seeds), "mean", "std", "s an epoch")
    table.title = f"{method}, {distortion}, {epochs} epochs"
    errors: dict[str, list[float]] = {name: [] for name in warps}
    cost: dict[str, list[float]] = {name: [] for name in warps}
    for seed in seeds:
        for name in warps:
            overrides = {"dataset.subsample": 12_000, "training.epochs": epochs, "training.warmup_epochs": 1}
            config = build_run(
                "fashion-mnist", method, distortion=DistortionConfig.parse(distortion), seed=seed, overrides=overrides
            )
            with mock.patch.dict(affine.WARPS, fused=WARPS[name]):
                training = Trainer(config, prepare(load(config.dataset), config))
                rows = list(training)
            best = min(rows, key=lambda row: (row["val_error"], row["val_loss"]))
            errors[name].append(100 * best["test_error"])
            cost[name].append(statistics.median(row["inner_seconds"] + row["outer_seconds"] for row in rows))
            print(method, distortion, seed, name, f"{errors[name][-1]:.2f}", flush=True)
    for name in warps:
        figures = [f"{error:.2f}" for error in errors[name]]
        deviation = f"{statistics.stdev(errors[name]):.2f}" if len(seeds) > 1 else "-"
        mean = f"{statistics.mean(errors[name]):.2f}"
        table.add_row(name, *figures, mean, deviation, f"{statistics.median(cost[name]):.1f}")
    return table


if __name__ == "__main__":
    main()
