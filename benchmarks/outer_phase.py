"""Cost of the outer phase: time and memory of its steps beside plain train steps, and of whole runs.

    make bench            # or: python -m benchmarks.outer_phase --device cuda [NETWORK ...]

One thread, all in turns, medians with quartiles of the ratios in a turn; this process's own time on a CPU, because
other programs are at work as well, wall time on a GPU. A plain step is one of the method `baseline`: augmentation,
forward, backward, optimiser. An outer step is a whole outer pass over its number of steps, the solve included. Images
and labels are made up, on which the time does not depend. Everything in a pass is linear in the number of points, so
the passes are over few of them, and the points of the solve's Hessian are scaled down alike, from a train set of FULL.

The oracle is what the paper describes with plain autograd: at every step the val images through the network, the
Neumann series of products with the Hessian by double backward, and double backward to lambda.
"""

import argparse
import collections
import os
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from autodo.bilevel.frozen import frozen_copy
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data import ArrayImages, DataSplits, ImageSet
from autodo.data.prepare import TrainSet
from autodo.evaluation import Evaluation
from autodo.testing.memory import peak_bytes
from autodo.testing.oracles import outer_pass_by_autograd
from autodo.training.trainer import Trainer
from benchmarks.table import Row, machine, record_rows

FULL = 48_000


class MeasuredNetwork(NamedTuple):
    """A network, the shape of its images, and the number of train points to measure with."""

    device: str
    channels: int
    side: int
    classes: int
    batch_size: int
    batches: int


NETWORKS = {
    "small-cnn": MeasuredNetwork("cpu", 1, 28, 10, 128, 20),
    "wrn-16-2": MeasuredNetwork("cpu", 3, 32, 10, 128, 4),
    "wrn-28-10": MeasuredNetwork("cuda", 3, 32, 10, 256, 10),
    "resnet-18": MeasuredNetwork("cuda", 3, 224, 100, 128, 10),
}


class MeasuredMethod(NamedTuple):
    """A method with settings, and the most that its steps may cost over the plain ones.

    Args:
        step, run: limits of an outer step, and of a run with outer passes in half of the epochs.
    """

    text: str
    method: str
    step: float | None = None
    run: float | None = None
    settings: Mapping[str, Any] = {}


METHODS = {
    "autodo-aws": MeasuredMethod("the paper's: val batch and Neumann series at each step", "autodo-aws", 1.05, 1.55),
    "autodo-exact-aws": MeasuredMethod("u once a pass", "autodo-exact-aws", 0.70, 1.40),
    "autodo-exact-ws": MeasuredMethod("weights and soft labels only, u once a pass", "autodo-exact-ws", 0.35),
    "full": MeasuredMethod("the paper's, with a full covariance", "autodo-aws", settings={"points.covariance": "full"}),
    "mixture": MeasuredMethod("the paper's, with a mixture of 16 rows", "autodo-aws", settings={"points.mixture": 16}),
}
MEMORY = 1.10


def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; all of the device")
    parser.add_argument("--repeat", type=int, default=7, help="turns")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(given.device)
    console = Console(width=130)
    where = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"one of {os.cpu_count()} cores, {machine()}"
    )
    console.print(f"{where}, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    for name in given.networks or [name for name, network in NETWORKS.items() if network.device == device.type]:
        console.print(table(name, NETWORKS[name], device, given.repeat))
    console.print(f"load {os.getloadavg()[0]:.1f} at the end")


def table(name: str, network: MeasuredNetwork, device: torch.device, repeat: int) -> Table:
    """Table of one network."""
    points = network.batches * network.batch_size
    data = made_up(network, points)
    configs = {"baseline": config_of("baseline", name, network, points)}
    configs |= {key: config_of(one.method, name, network, points, one.settings) for key, one in METHODS.items()}
    trainers = {method: Trainer(config, data, device=str(device)) for method, config in configs.items()}
    for trainer in trainers.values():
        trainer.inner.run(0)
    evaluations = {method: trainer.evaluator.evaluate(trainer.loaders.val) for method, trainer in trainers.items()}

    phases: dict[str, Callable[[], object]] = {
        "baseline": partial(trainers["baseline"].inner.run, 1),
        "oracle": partial(outer_pass_by_autograd, trainers["autodo-aws"], torch.Generator(device).manual_seed(0)),
        "inner": partial(trainers["autodo-aws"].inner.run, 1),
    }
    for key, backward in (("forward", False), ("both", True)):
        phases[key] = partial(floor_pass, trainers["baseline"], backward=backward)
    for method in METHODS:
        phases[method] = partial(outer_pass, trainers[method], evaluations[method])
    seconds: dict[str, list[float]] = {key: [] for key in [*phases, *(f"run of {method}" for method in configs)]}
    for turn in range(repeat + 1):
        for key, phase in phases.items():
            keep(seconds[key], turn, elapsed(phase, device))
        for method, config in configs.items():
            trainer = Trainer(config, data, device=str(device))
            keep(seconds[f"run of {method}"], turn, elapsed(partial(collections.deque, trainer, 0), device))
    peaks = {key: peak_bytes(phase, device) for key, phase in phases.items()}

    shown = Table(
        "step",
        "ms",
        "x plain",
        "quartiles",
        "at most",
        "peak MB",
        "x plain",
        "run x plain",
        "quartiles",
        "at most",
        title=f"{name}, {network.channels}x{network.side}x{network.side}, batch {network.batch_size}",
    )
    for column in shown.columns[1:]:
        column.justify = "right"
    shown.caption = (
        f"{network.batches} steps; run: outer passes in half of the epochs; peak: above what stays; at most {MEMORY}"
    )
    texts = {
        "baseline": "plain train step",
        "oracle": "outer, plain double backward",
        "inner": "train step with g_A",
        "forward": "floor: the encoder forward",
        "both": "floor: and backward to the images",
    }
    for key in phases:
        one = METHODS.get(key, MeasuredMethod(texts.get(key, ""), key))
        text, most, run_most = one.text, one.step, one.run
        run = seconds.get(f"run of {key}")
        shown.add_row(
            text,
            f"{1000 * statistics.median(seconds[key]) / network.batches:.1f}",
            *ratios(seconds[key], seconds["baseline"]),
            "" if most is None else f"{most:.2f}",
            f"{peaks[key] / 1e6:.1f}",
            f"{peaks[key] / peaks['baseline']:.2f}",
            *(("", "") if run is None else ratios(run, seconds["run of baseline"])),
            "" if run_most is None else f"{run_most:.2f}",
        )
        if key != "baseline":
            record_rows(
                Row(f"{name}, {text}: time over a plain step's", middle(seconds[key], seconds["baseline"]), "x", most)
            )
        if key in METHODS:
            record_rows(Row(f"{name}, {text}: peak over a plain step's", peaks[key] / peaks["baseline"], "x", MEMORY))
        if run is not None and key in METHODS:
            record_rows(
                Row(f"{name}, {text}: run over a plain one", middle(run, seconds["run of baseline"]), "x", run_most)
            )
    return shown


def made_up(network: MeasuredNetwork, points: int) -> DataSplits:
    """Noise with random labels; val and test as large, beside train, as Fashion-MNIST's."""
    generator = np.random.default_rng(0)

    def labels(count: int) -> np.ndarray:
        return generator.integers(network.classes, size=count)

    def images(count: int) -> ArrayImages:
        shape = (count, network.channels, network.side, network.side)
        return ArrayImages(generator.integers(256, size=shape, dtype=np.uint8))

    observed = labels(points)
    train = TrainSet(images(points), observed, observed, np.arange(points), None)
    val, test = (ImageSet(images(count), labels(count)) for count in (points // 4, points // 5))
    return DataSplits(train, val, test, tuple(str(label) for label in range(network.classes)))


def config_of(
    method: str, name: str, network: MeasuredNetwork, points: int, settings: Mapping[str, Any] | None = None
) -> RunConfig:
    """The recipe of Fashion-MNIST, in which no method draws operations, for two epochs."""
    given = {
        **(settings or {}),
        "model.name": name,
        "training.batch_size": network.batch_size,
        "training.epochs": 2,
        "training.warmup_epochs": 1,
    }
    config = build_run("fashion-mnist", method, overrides=given)
    if config.outer is None:
        return config
    whole = config.outer.hessian_points
    few = None if whole is None else max(1, round(whole * points / FULL))
    half = {"outer.start_share": 0.5, "outer.every": 1, "outer.hessian_points": few}
    return build_run("fashion-mnist", method, overrides={**given, **half})


def outer_pass(trainer: Trainer, val: Evaluation) -> None:
    """Run the outer pass that follows epoch 1."""
    assert trainer.outer is not None
    trainer.outer.run(1, val)


def floor_pass(trainer: Trainer, *, backward: bool) -> None:
    """Lower bound of an outer pass: the encoder on each point, and backward to the images if g_A is learned."""
    encoder = frozen_copy(trainer.model.encoder).requires_grad_(False)
    for images in trainer.loaders.train.images.in_order(trainer.config.training.batch_size):
        pixels = trainer.model.pipeline.test_view(images).requires_grad_(backward)
        features = encoder(pixels)
        if backward:
            torch.autograd.grad(features.sum(), pixels)
    trainer.model.encoder.requires_grad_(True)  # the frozen copy has the same weights


def elapsed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, after all work of the device."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = clock()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - started


def keep(seconds: list[float], turn: int, value: float) -> None:
    """Keep the value of each turn but the first, which warms up."""
    if turn:
        seconds.append(value)


def ratios(slow: list[float], fast: list[float]) -> tuple[str, str]:
    """Median and quartiles of the ratios in a turn."""
    each = np.array(slow) / np.array(fast)
    low, middle, high = np.quantile(each, [0.25, 0.5, 0.75])
    return f"{middle:.2f}", f"{low:.2f}-{high:.2f}"


def middle(slow: list[float], fast: list[float]) -> float:
    """Median of the ratios in a turn."""
    return float(np.median(np.array(slow) / np.array(fast)))


if __name__ == "__main__":
    main()
