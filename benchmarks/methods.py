"""Time of a run of each method over that of the baseline: what `cost` in configs/methods/ is taken from.

    python -m benchmarks.methods [--dataset digits] [--split union] [--device cuda] [--csv FILE.csv]
        [METHOD ...]

Every round trains each method once, for a few epochs, outer passes as often as in the recipes, with
one thread. The time is this process's own, so that other work on the machine counts little (wall time on a GPU); there
is nearly no evaluation in it, and no search. Medians over rounds of the ratios in a round.
"""

import argparse
import collections
import dataclasses
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from autodo.config.policy import FilePolicy, SearchedPolicy
from autodo.config.recipes import build_run
from autodo.config.shipped import method_names
from autodo.data import DataSplits, load, prepare
from autodo.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--split", default="paper", help="union: all methods train on train and val")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--csv", type=Path, metavar="FILE.csv", help="write the ratios there, too")
    given = parser.parse_args()
    torch.set_num_threads(1)
    methods = ["baseline", *(name for name in given.methods or _without_search() if name != "baseline")]
    prepared: dict[str, DataSplits] = {}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for round_number in range(given.rounds + 1):
        for name in methods:
            overrides = {
                "training.epochs": given.epochs,
                "dataset.subsample": given.images,
                "training.warmup_epochs": 1,
            }
            config = build_run(given.dataset, name, split=given.split, overrides=overrides)
            if not prepared:
                everything = prepare(load(config.dataset), config)
                # A run evaluates on the test images after each epoch, which all methods do alike.
                few = everything.test.take(np.arange(100))
                prepared["all"] = dataclasses.replace(everything, test=few)
            training = Trainer(config, prepared["all"], device=given.device)
            clock = time.process_time if given.device == "cpu" else time.perf_counter
            begun = clock()
            collections.deque(training, maxlen=0)
            training.outcome()  # solves the head of methods that have one
            if round_number:  # the first round warms up
                seconds[name].append(clock() - begun)
    table = Table(
        "method", "seconds", "x baseline", title=f"{given.epochs} epochs of {given.images} images, {given.device}"
    )
    ratios = {
        name: statistics.median(mine / base for mine, base in zip(seconds[name], seconds["baseline"], strict=True))
        for name in methods
    }
    for name, ratio in ratios.items():
        table.add_row(name, f"{statistics.median(seconds[name]):.2f}", f"{ratio:.2f}")
    if given.csv is not None:
        lines = (f"{name},{ratio:.3f}" for name, ratio in ratios.items())
        given.csv.write_text("\n".join(["method,cost", *lines]) + "\n")
    Console().print(table)


def _without_search() -> list[str]:
    def needs_nothing(name: str) -> bool:
        return not name.endswith(("-published", "-searched"))

    runs = {name: build_run("fashion-mnist", name) for name in method_names() if needs_nothing(name)}
    return [name for name, run in runs.items() if not isinstance(run.policy, SearchedPolicy | FilePolicy)]


if __name__ == "__main__":
    main()
