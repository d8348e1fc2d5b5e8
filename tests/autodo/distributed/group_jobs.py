"""Functions that test_process_group.py runs in several processes, which import them from here."""

import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from autodo.augment import affine
from autodo.bilevel import outer_pass as outer_module
from autodo.config.run import RunConfig
from autodo.data import load, prepare
from autodo.data.batches import Batch, shuffled_batches
from autodo.distributed.batch_norm import WholeBatchNorm2d
from autodo.distributed.process_group import current_process_group
from autodo.errors import ConfigError, TrainingDiverged
from autodo.points.model import PointView
from autodo.points.table import PointTable
from autodo.points.table_storage import ON_DEVICE, TableStorage
from autodo.results import records
from autodo.training import inner_loop
from autodo.training.trainer import Trainer


def start(config: RunConfig, **options: Any) -> Trainer:
    return Trainer(config, prepare(load(config.dataset), config), group=current_process_group(), **options)


def start_with_one_image_less_on_the_second(config: RunConfig) -> None:
    dataset = load(config.dataset)
    if current_process_group().rank == 1:
        dataset = dataclasses.replace(dataset, test=dataset.test.take(np.arange(1, len(dataset.test))))
    Trainer(config, prepare(dataset, config), group=current_process_group())


def start_and_lose_the_images(config: RunConfig, photos: Path) -> None:
    training = start(config)
    training.context.group.gather(None)
    training.context.group.broadcast_object(None)  # only now has each of them begun
    for file in photos.rglob("*.jpg"):
        file.unlink(missing_ok=True)
    list(training)


def train_on_features(config: RunConfig) -> tuple[Tensor, Tensor, list[float]]:
    """Features of all train points, those of this worker's points, and the val loss of each epoch."""
    training = start(config)
    of_all = torch.from_numpy(training.context.data.train.images.read())
    own = training.loaders.train.images[torch.arange(training.loaders.train_size)]
    assert torch.equal(own, of_all[training.loaders.shard.train])
    return of_all, own, [row["val_loss"] for row in training]


# ----- the same batches on several workers and on one

Recording = list[list[tuple[list[int], int]]]


def one_epoch(config: RunConfig, replay: list[Recording] | None = None) -> tuple[dict[str, Tensor], Recording]:
    """An inner loop and an outer pass in float64, with one fixed warp per point; returns also the points of each batch.

    Args:
        replay: the recordings of all workers, whose batches are joined and used again.
    """
    training = start(config)
    shard, group, data = training.loaders.shard, training.context.group, training.context.data
    for module in (training.model.encoder, training.model.head):
        module.double()
    training.model.network = group.wrap_ddp(training.model.encoder, training.model.head)
    pipeline, points = training.model.pipeline, training.points
    pipeline.mean, pipeline.std = pipeline.mean.double(), pipeline.std.double()
    generator = torch.Generator().manual_seed(0)
    table = points.table = moved(points.table, torch.from_numpy(shard.positions), shard.total, generator)
    if points.shared_table is not None:
        count = len(points.shared_table)
        points.shared_table = moved(points.shared_table, torch.arange(count), count, generator)
        points._offsets = points._offsets.double()

    everyone = affine.draw_noise(shard.total, generator, torch.float64)

    # Strokes of digits are the same over several pixels: without texture the largest of a pooling window is chosen by
    # rounding, and with it the pixel that the gradient goes to.
    texture = torch.rand(shard.total, *data.train.images.shape[1:], generator=generator, dtype=torch.float64) / 10

    def pixels_of(points: Tensor, augment: Tensor | None) -> Tensor:
        mine = torch.from_numpy(shard.positions)[points]
        pixels = training.loaders.train.images[points].double() / 255 + texture[mine]
        if augment is not None:
            noise = affine.WarpNoise(everyone.normal[mine], everyone.logistic[mine])
            pixels = affine.warp(pixels, affine.magnitudes(augment, noise))
        return (pixels - pipeline.mean) / pipeline.std

    def themselves(batches: list[Tensor], crops: None) -> Iterator[Tensor]:
        return iter(batches)

    def features(points: Tensor, augment: Tensor | None, generator: object) -> Tensor:
        result: Tensor = training.model.encoder(pixels_of(points, augment))
        return result

    recording: Recording = []
    current: list[Tensor] = []

    def shuffled(points: Tensor, total: int, *rest: Any, **options: Any) -> Iterator[Batch]:
        is_val = total == len(data.val)
        if replay is None:
            batches = list(shuffled_batches(points, total, *rest, **options))
        else:
            together = [worker[len(recording)] for worker in replay]
            batches = [
                Batch(torch.tensor([point for mine, _ in parts for point in mine]), parts[0][1])
                for parts in zip(*together, strict=True)
            ]
        everywhere = torch.arange(group.rank, total, group.size) if is_val else torch.from_numpy(shard.positions)
        recording.append([(everywhere[batch.points].tolist(), batch.size) for batch in batches])
        yield from batches

    point_view = points.view

    def view(batch: Tensor, *lam: Tensor | None) -> PointView:
        current[:] = [batch]
        return point_view(batch, *lam)

    def train_view(images: Tensor, generator: object, augment: Tensor | None) -> Tensor:
        return pixels_of(current[0], augment)

    gradients: dict[str, Tensor] = {}
    optimizer_step = training.model.optimizer.step

    def step() -> None:
        if not gradients:
            names = [*training.model.encoder.named_parameters(), *training.model.head.named_parameters()]
            gradients.update({f"gradient of {name}": parameter.grad.clone() for name, parameter in names})
        optimizer_step()

    with (
        mock.patch.object(inner_loop, "shuffled_batches", shuffled),
        mock.patch.object(outer_module, "shuffled_batches", shuffled),
        mock.patch.object(points, "view", view),
        mock.patch.object(training.model.pipeline, "train_view", train_view),
        mock.patch.object(training.model.optimizer, "step", step),
    ):
        loss = training.inner.run(0).loss
        if training.outer is not None:
            with (
                mock.patch.object(training.outer.outer_pass, "_features", features),
                mock.patch.object(training.loaders.train.images, "batches", themselves),
            ):
                val = training.evaluator.evaluate(training.loaders.val)
                training.outer.outer_pass.run(val, 0.1, torch.Generator().manual_seed(7 + group.rank))
    state = {
        **training.model.encoder.state_dict(),
        **{f"head.{k}": v for k, v in training.model.head.state_dict().items()},
    }
    state |= gradients
    # RMSprop's first step is 10 lr sign(g): the size of g shows in the mean of squares.
    if points.shared_table is not None:
        squares = points.shared_table.square_average
        state |= {"shared rows": points.shared_table.values, "gradient of shared rows": squares.sqrt()}
    state |= {
        "positions": torch.from_numpy(shard.positions),
        "lambda": table.values,
        "gradient of lambda": table.square_average.sqrt(),
        "loss": torch.tensor(loss, dtype=torch.float64),
        "steps": torch.tensor(table.steps),
    }
    return {name: value.detach().clone() for name, value in state.items()}, recording


def moved(table: PointTable, places: Tensor, total: int, generator: torch.Generator) -> PointTable:
    """A table in float64 whose rows are moved at random, the same way on all workers."""
    change = torch.randn(total, table.values.shape[1], generator=generator, dtype=torch.float64) / 4
    initial = table.values.double() + change[places]
    return PointTable(initial.__getitem__, len(initial), initial.shape[1:], dtype=torch.float64)


# ----- batch norm


def normalise(images: Tensor, weights: Tensor, sizes: list[int]) -> dict[str, Tensor]:
    """Results of the shared batch norm for this worker's `images`, and gradients of sum(weights * result)."""
    group = current_process_group()
    norm = WholeBatchNorm2d(scaled_norm(images), group.all_reduce)
    mine = images.split(sizes)[group.rank].clone().requires_grad_()
    result = norm(mine)
    (result * weights.split(sizes)[group.rank]).sum().backward()
    state = {name: value.detach() for name, value in norm.state_dict().items()}
    with torch.no_grad():
        evaluated = norm.eval()(mine)
    gradients = {"d images": mine.grad, "d weight": norm.weight.grad, "d bias": norm.bias.grad}
    return {"result": result.detach(), "evaluated": evaluated, **gradients, **state}


def scaled_norm(images: Tensor) -> torch.nn.BatchNorm2d:
    norm = torch.nn.BatchNorm2d(images.shape[1], dtype=images.dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, images.shape[1]))
        norm.bias.copy_(torch.linspace(-1, 1, images.shape[1]))
    return norm


# ----- whole runs

TABLE = ("values", "square_average", "last_touched")


def run(
    config: RunConfig, checkpoint: Path | None = None, epochs: int | None = None, storage: TableStorage = ON_DEVICE
) -> dict[str, Any]:
    """State of a worker after training to the end, or for `epochs` epochs."""
    training = start(config, checkpoint=checkpoint, storage=storage)
    began = training.state.epoch
    for row in training:
        if row["epoch"] + 1 == epochs:
            break
    state = {**state_of(training), "began": began, "history": training.state.history, "best": training.state.best.epoch}
    if epochs is None:
        outcome = training.outcome(keep_embeddings=True)
        tables = {name: getattr(outcome, name) for name in records.SCHEMAS}
        state["tables"] = {name: table for name, table in tables.items() if table is not None}
        classifier, images = outcome.classifier, torch.from_numpy(training.context.data.test.images.read())
        with torch.no_grad():
            state["embeddings"] = classifier.encoder((images / 255 - classifier.mean) / classifier.std)
    return state


def run_compiled(config: RunConfig) -> dict[str, Any]:
    """`run` of a config with training.compile."""
    # torch looks at images that a batch norm over all workers, which it does not compile, gave.
    warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor that is not a leaf")
    return run(config)


def restored(config: RunConfig, checkpoint: Path, storage: TableStorage = ON_DEVICE) -> dict[str, Any]:
    """State of a worker that starts from a checkpoint."""
    return state_of(start(config, checkpoint=checkpoint, storage=storage))


def state_of(training: Trainer) -> dict[str, Any]:
    table = {name: getattr(training.points.table, name).clone() for name in TABLE}
    shared = training.points.shared_table
    if shared is not None:
        table |= {f"shared {name}": getattr(shared, name).clone() for name in TABLE}
    positions = training.loaders.shard.positions
    model = training.model
    networks = {
        "network": network_of(model.encoder, model.head),
        "evaluated": network_of(*model.evaluated),
    }
    return {"epoch": training.state.epoch, "positions": positions, **networks, **table}


def network_of(encoder: torch.nn.Module, head: torch.nn.Module) -> dict[str, Tensor]:
    return {**encoder.state_dict(), **{f"head.{name}": value for name, value in head.state_dict().items()}}


def seeds(config: RunConfig) -> list[int]:
    training = start(config)
    return [training.context.generator(phase, 3).initial_seed() for phase in ("inner", "outer")]


def diverge(config: RunConfig) -> str:
    try:
        for _ in start(config):
            pass
    except TrainingDiverged as error:
        return str(error)
    return "no error"


def refused(config: RunConfig) -> str:
    try:
        start(config)
    except ConfigError as error:
        return str(error)
    return "no error"


def restored_at(config: RunConfig, checkpoints: list[Path]) -> int:
    """Epoch at which this worker starts, given the path for each worker."""
    return start(config, checkpoint=checkpoints[current_process_group().rank]).state.epoch
