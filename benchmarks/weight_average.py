"""Time of epochs with averaged weights (`training.ema`) over that of epochs without.

    make bench            # or: python -m benchmarks.weight_average [--repeat 20] [--device cuda]

An epoch is the steps, the evaluation of val and test, and for a method that learns lambda the outer pass; a turn has
three epochs, one of them with a pass (7 of 20 in a whole run). Both sides take a turn one after the other, with one
thread; the side that begins alternates. The time is this process's own (on a GPU that of the wall). Images and labels
are made up, on which the time does not depend.
"""

import argparse
import os
import statistics
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from autodo.config.recipes import build_run
from autodo.data import ArrayImages, DataSplits, ImageSet
from autodo.data.prepare import TrainSet
from autodo.training.trainer import Trainer
from benchmarks.outer_phase import ratios
from benchmarks.table import Row, machine, record_rows

CASES = [("small-cnn", "baseline"), ("wrn-10-1", "baseline"), ("small-cnn", "autodo-exact-ws")]
GOAL = 1.03
TRAIN, VAL, TEST = 2048, 512, 512
EPOCHS = (4, 5, 6)
"""Epochs of a turn, of 20; `autodo-exact-ws` has a pass after every second one from epoch 5 on."""


def main() -> None:
    """Print a table of all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=20, help="turns")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=130)
    name = torch.cuda.get_device_name(given.device) if given.device != "cpu" else machine()
    console.print(f"{name}, one thread, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    shown = Table("network", "method", "ms a turn", "with the average", "ratio of medians", "quartiles of the turns")
    shown.title = f"{len(EPOCHS)} epochs of {TRAIN} images of 1x28x28, {VAL} of val, {TEST} of test, batch 128"
    shown.caption = f"at most {GOAL:.2f}"
    for column in shown.columns[2:]:
        column.justify = "right"
    for network, method in CASES:
        plain, averaged = measure(network, method, given.device, given.repeat)
        middle, other = statistics.median(plain), statistics.median(averaged)
        _, quartiles = ratios(averaged, plain)
        times = (f"{1000 * middle:.0f}", f"{1000 * other:.0f}")
        shown.add_row(network, method, *times, f"{other / middle:.3f}", quartiles)
        goal = GOAL if method == "baseline" else None
        record_rows(
            Row(f"{network}, {method}: epochs with averaged weights over plain ones", other / middle, "x", goal)
        )
    console.print(shown)
    console.print(f"load {os.getloadavg()[0]:.1f} at the end")


def measure(network: str, method: str, device: str, repeat: int) -> tuple[list[float], list[float]]:
    """Seconds of each turn without and with the average."""
    data = made_up()
    trainings = []
    for decay in (None, 0.999):
        overrides = {"model.name": network, "training.lr": 1e-6, "training.ema": decay}
        trainings.append(Trainer(build_run("fashion-mnist", method, overrides=overrides), data, device=device))
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeat + 1):
        for side in (turn % 2, 1 - turn % 2):
            clock = time.process_time if device == "cpu" else trainings[side].context.clock
            begun = clock()
            for epoch in EPOCHS:
                trainings[side].train_epoch(epoch)
            if turn:  # the first turn warms up
                seconds[side].append(clock() - begun)
    return seconds


def made_up() -> DataSplits:
    """Noise with random labels."""
    generator = np.random.default_rng(0)
    total = TRAIN + VAL + TEST
    images = generator.integers(256, size=(total, 1, 28, 28), dtype=np.uint8)
    labels = generator.integers(10, size=total)
    train = TrainSet(ArrayImages(images[:TRAIN]), labels[:TRAIN], labels[:TRAIN], np.arange(TRAIN), None)
    val, test = (
        ImageSet(ArrayImages(images[part]), labels[part])
        for part in (slice(TRAIN, TRAIN + VAL), slice(TRAIN + VAL, None))
    )
    return DataSplits(train, val, test, tuple(str(label) for label in range(10)))


if __name__ == "__main__":
    main()
