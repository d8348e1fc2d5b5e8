"""Time of a training on 10,000 points with 512 features, and the error of the hypergradient of the last outer pass.

    make bench            # or: python -m benchmarks.features [--points 10000] [--features 512] [--epochs 30]

A fifth of the labels is redrawn. Features are made up: positive parts of random projections of a mixture of two normal
distributions per class. The time is this process's own, on one thread, from the first epoch to the tables.

With `autodo-solved-ws` the pass is exact up to the rounding and the tolerance of its solvers. Its gradient is compared,
as one vector over all points, with that of precise solvers in float64.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from autodo.bilevel.head_solve import HeadProblem, linear_head, solve_head
from autodo.bilevel.hypergradient import validation_gradient
from autodo.bilevel.last_layer import LastLayer
from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.losses import LOSSES, InnerLoss
from autodo.points.model import Leaves, PointModel
from autodo.training.trainer import Trainer
from benchmarks.table import Row, machine, record_rows

METHODS = ("baseline", "autodo", "autodo-exact-ws+solved-head", "autodo-solved-ws")
CLASSES = 10
GOAL_SECONDS = 60.0
GOAL_ERROR = 0.01


def main() -> None:
    """Print a table of all methods."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10_000, help="train points")
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=130)
    console.print(f"{machine()}, one thread, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    shown = Table("method", "seconds", "test error", "relative error of the last gradient")
    shown.title = f"{given.points} points with {given.features} features, {given.epochs} epochs"
    shown.caption = f"at most {GOAL_SECONDS:.0f} seconds"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.npy"
        write(path, given.points, given.features)
        for method in METHODS:
            seconds, error, inexact = measure(path, method, given.epochs)
            record_rows(Row(f"{method}: {shown.title}", seconds, "s", GOAL_SECONDS))
            if inexact is not None:
                record_rows(Row(f"{method}: relative error of the gradient", inexact, "", GOAL_ERROR))
            shown.add_row(method, f"{seconds:.1f}", f"{error:.1%}", "" if inexact is None else f"{inexact:.1e}")
    console.print(shown)


def write(path: Path, points: int, features: int) -> None:
    """Write `points` train points, a quarter of it for val, and as many test points."""
    generator, inner = np.random.default_rng(0), 32
    count = 2 * points + points // 4
    labels = np.arange(count) % CLASSES
    centres = 1.1 * generator.standard_normal((CLASSES, 2, inner))
    values = generator.standard_normal((count, inner)) + centres[labels, generator.integers(2, size=count)]
    projection = generator.standard_normal((inner, features)) / np.sqrt(inner)
    np.save(path, np.maximum(values @ projection, 0).astype(np.float32))
    sets = {"train": points, "val": points // 4, "test": points}
    for name, column in {"label": labels, "split": np.repeat(list(sets), list(sets.values()))}.items():
        np.save(path.with_name(f"{path.stem}.{name}.npy"), column)


def measure(path: Path, method: str, epochs: int) -> tuple[float, float, float | None]:
    """Seconds of a training, its test error, and the error of its gradient if that should be exact."""
    distortion = DistortionConfig(noise_ratio=0.2)
    overrides = {"dataset.path": str(path), "training.epochs": epochs}
    config = build_run("features", method, distortion=distortion, overrides=overrides)
    training = Trainer(config, prepare(load(config.dataset), config))
    exact = config.outer is not None and config.outer.inner == "head"
    passes: list[tuple[Tensor, Tensor]] = []
    if exact:
        _watch(training.points, passes)
    begun = time.process_time()
    for _ in training:
        pass
    outcome = training.outcome()
    seconds = time.process_time() - begun
    test_error = float(outcome.results["error_best_val"][0].as_py())
    return seconds, test_error, _error(training, *passes[-1]) if exact else None


def _watch(points: PointModel, passes: list[tuple[Tensor, Tensor]]) -> None:
    """Keep the rows and the gradient of each pass."""
    step = points.rmsprop_step

    def watched(index: Tensor, gradient: Leaves, *more: Any) -> None:
        if int(index[0]) == 0:
            passes[:] = [(points.table.values.clone(), torch.zeros_like(points.table.values))]
        passes[-1][1][index] = gradient.rows
        step(index, gradient, *more)

    setattr(points, "rmsprop_step", watched)  # noqa: B010


def _error(training: Trainer, rows: Tensor, gradient: Tensor) -> float:
    """Relative error of a gradient of all points. Shape: rows, gradient [N, K]."""
    config, device_points = training.config, training.points
    assert config.head is not None
    assert config.outer is not None
    decay = float(config.head.weight_decay)
    features, val = (
        torch.cat([training.model.pipeline.test_view(part) for part in images.in_order(10_000)]).flatten(1).double()
        for images in (training.loaders.train.images, training.loaders.val.images)
    )
    points = PointModel(config.points, device_points.labels, CLASSES, torch.float64)
    leaves = Leaves(rows.double().requires_grad_(), None)
    view = points.view(torch.arange(len(rows)), *leaves)
    weights, targets = view.weights.detach(), view.log_targets.detach().exp()
    problem = HeadProblem(features, targets, weights, targets.new_zeros(CLASSES), decay, len(rows))
    head = linear_head(solve_head(problem, tolerance=1e-9, max_iterations=2000)).requires_grad_(False)
    precise = config.outer.model_copy(update={"iterations": 1000})
    layer = LastLayer(precise, InnerLoss(LOSSES[config.loss]), head, weight_decay=decay)
    labels = training.loaders.val.labels
    val_gradient = validation_gradient(head(val), layer.inputs(val), labels)
    u = layer.solve(features, points.labels, weights, None, len(rows), val_gradient)
    batch = config.outer.batch_size or config.training.batch_size
    # Each step divides by the size of its batch.
    sizes = torch.tensor([len(part) for part in torch.arange(len(rows)).split(batch) for _ in part]).double()
    expected = layer.hypergradient(leaves, points.labels, view, features, u, len(rows)).rows * len(rows)
    return float((gradient.double() * sizes[:, None] - expected).norm() / expected.norm())


if __name__ == "__main__":
    main()
