"""The table of 10^9 points on 64 workers: one worker's shard at its true size, and all 64 shards of a small one.

    python -m benchmarks.sharded_table [--quick] [--workers 64] [--points 1000000000]

A worker keeps the rows of its own points, so the cost of its step is measured on one shard, really allocated. A check
on fewer points shows that the shards together are the table: every worker steps its rows, one table without workers
takes the same steps, and all bits must agree, also after another number of workers has read the checkpoint. The bytes
that cross the network are counted in a real training by several processes.
docs/explanation/scaling.md builds on these figures.

Times are this thread's. Parts run in processes of their own.
"""

import argparse
import collections
import multiprocessing
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from autodo.config.bilevel import LambdaStorage, PointsConfig
from autodo.data.batches import shuffled_batches
from autodo.data.sharding import shard_by_class
from autodo.distributed.process_group import TorchProcessGroup
from autodo.points.model import PointModel
from autodo.points.table import PointTable
from autodo.points.table_storage import TableStorage
from autodo.seeds import numpy_generator, torch_generator
from autodo.testing.process_groups import FakeGroup, WorkerPool
from autodo.training import checkpoint
from autodo.training.trainer import Trainer
from benchmarks.lambda_table import available_memory, resident_memory
from benchmarks.outer_phase import MeasuredNetwork, config_of, made_up
from benchmarks.table import Row, machine, record_rows

CLASSES = 10
COLUMNS = 14 + CLASSES
BATCH = 256
"""Points of a batch on one worker."""
PASSES = 2
LR = 0.05
T = TypeVar("T")


def main() -> None:
    """Print the measurements; fail if the shards differ from one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--points", type=int, default=10**9, help="of the table whose shard is measured")
    parser.add_argument("--quick", action="store_true", help="fewer points to shard, and no shard in a file")
    given = parser.parse_args()
    console = Console(width=120)
    console.print(f"{machine()}, torch {torch.__version__}")

    def add(row: Row, text: str) -> None:
        console.print(f"{row.what}: {text}", highlight=False)
        record_rows(row)

    shard = given.points // given.workers
    storages: tuple[LambdaStorage, ...] = ("host",) if given.quick else ("host", "file")
    for storage in storages:
        if storage == "host" and shard * (8 * COLUMNS + 4) > 0.7 * available_memory():
            console.print(f"a shard of {shard:,} x {COLUMNS}, {storage}: not measured, no room")
            continue
        own = _alone(measure_shard, shard, storage)
        what = f"{shard:,} x {COLUMNS}, {storage}"
        add(Row(f"step of {what}, on rows never touched", 1e3 * own.first, "ms"), f"{1e3 * own.first:.2f} ms")
        add(Row(f"step of {what}, on others", 1e3 * own.again, "ms", at_most=3.0), f"{1e3 * own.again:.2f} ms")
        if own.part is None:
            continue
        add(Row(f"resident, {what}", own.resident / 1e9, "GB"), f"{own.resident / 1e9:.2f} GB")
        text = f"{own.part.size / 1e9:.2f} GB in {own.part.saved:.1f} s, read in {own.part.loaded:.1f} s"
        add(Row(f"checkpoint part of {what}, written", own.part.saved, "s"), text)

    count = 10**7 if given.quick else 10**8
    seconds, peak = _alone(measure_sharding, count, given.workers)
    what = f"sharding {count:,} points to {given.workers} workers, on each"
    add(Row(what, seconds, "s"), f"{seconds:.2f} s")
    add(Row(f"{what}: peak besides the labels", peak / count, "bytes/point"), f"{peak / count:.1f} bytes/point")

    # In whole vectors of the processor: torch's pow gives the elements that are left over another last bit.
    each, other = (20 if given.quick else 80) * BATCH, given.workers * 3 // 4
    whole = _alone(measure_whole, given.workers, each, other)
    uneven = _alone(measure_whole, given.workers, each - BATCH // 2, other)
    what = f"{given.workers} shards of {each:,}"
    add(Row(f"{what}: rows that differ from one table's", whole.different, "rows", at_most=0), f"{whole.different}")
    add(Row(f"{what}: points that not exactly one worker has", whole.unowned, "points", at_most=0), f"{whole.unowned}")
    add(Row(f"{what}: most points of a class over fewest", whole.spread, "points", at_most=1), f"{whole.spread}")
    add(
        Row(f"{what}: rows that differ after a checkpoint read by {other}", whole.different_read, "rows", at_most=0),
        f"{whole.different_read}; one worker reads its rows in {whole.read_seconds:.2f} s",
    )
    add(
        Row(
            f"{given.workers} shards of {each - BATCH // 2:,}: largest difference",
            1e6 * uneven.far,
            "millionths",
        ),
        f"{uneven.different} rows differ in a bit, by {uneven.far:.1e} of a number at most",
    )
    for size in (2, 4):
        counted = measure_network(size)
        console.print(network_table(counted))
        what = f"bytes a worker gives, {size} workers"
        record_rows(Row(f"{what}: of lambda", counted.sent["lambda"], "bytes", at_most=0))
        record_rows(Row(f"{what}: gradients, a train step", counted.sent["gradients"] / counted.steps, "bytes"))
        record_rows(Row(f"{what}: solve, an outer pass", counted.sent["solve"] / counted.passes, "bytes"))
    assert (whole.different, whole.unowned, whole.different_read) == (0, 0, 0), whole
    assert uneven.far < 1e-5, uneven


# ----- one worker's shard


class CheckpointCost(NamedTuple):
    """Bytes of a checkpoint, and seconds to write and to read it."""

    size: int
    saved: float
    loaded: float


class ShardCost(NamedTuple):
    """Seconds of a step; resident bytes and the checkpoint after every row has moved."""

    first: float
    again: float
    resident: int
    part: CheckpointCost | None


def measure_shard(count: int, storage: LambdaStorage) -> ShardCost:
    """Step on rows that were never touched, all of them on the host, and then again on some of them.

    Writing all rows of a file would only measure the disk.
    """
    kept = TableStorage(storage)
    labels = torch.arange(count) % CLASSES
    _model(labels[:BATCH], kept).table.state_dict()
    before = sum(resident_memory())
    table = _model(labels, kept).table
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(BATCH, COLUMNS, generator=generator)
    order = torch.randperm(count, generator=generator)
    if storage == "file":
        order = order[: 2000 * BATCH]
    seconds: list[list[float]] = []
    for points in (order, order[: 2000 * BATCH]):
        seconds.append([])
        for index in points.split(BATCH):
            begun = time.thread_time()
            table.rows(index)
            table.rmsprop_step(index, gradient[: len(index)], LR)
            seconds[-1].append(time.thread_time() - begun)
    resident = sum(resident_memory()) - before
    part = _checkpoint(table, kept) if storage == "host" else None
    return ShardCost(statistics.median(seconds[0]), statistics.median(seconds[1]), resident, part)


def _checkpoint(table: PointTable, storage: TableStorage) -> CheckpointCost:
    with tempfile.TemporaryDirectory() as folder:
        path, positions = Path(folder) / "checkpoint.pt", torch.arange(len(table))
        begun = time.perf_counter()
        assert checkpoint.save(path, "run", {"epoch": 0}, table.state_dict(), positions, apart=True)
        saved = time.perf_counter() - begun
        size = sum(file.stat().st_size for file in checkpoint.files(path))
        begun = time.perf_counter()
        state = checkpoint.load(path, "run", positions, allocate=storage.allocate_on_host)
        assert state is not None
        table.load_state_dict(state["points"])
        return CheckpointCost(size, saved, time.perf_counter() - begun)


def measure_sharding(count: int, workers: int) -> tuple[float, int]:
    """Seconds of sharding the points, and its peak memory in bytes."""
    import tracemalloc

    labels = np.random.default_rng(0).integers(CLASSES, size=count)
    group, generator = FakeGroup(1, workers), numpy_generator(0, "shards")
    tracemalloc.start()
    begun = time.thread_time()
    shard_by_class(labels, labels[:0], group, generator)
    return time.thread_time() - begun, tracemalloc.get_traced_memory()[1]


# ----- all shards of a smaller table


class ShardComparison(NamedTuple):
    """Differences between the shards and one table, and the seconds to read the rows of one worker."""

    different: int
    far: float
    """The largest difference of a value, relative to it, or to the learning rate where that is larger."""
    unowned: int
    spread: int
    different_read: int
    read_seconds: float


def measure_whole(workers: int, each: int, other: int) -> ShardComparison:
    """The shards step one after another; then one table takes the same steps, of all workers' batches together."""
    total = workers * each
    labels = np.random.default_rng(0).integers(CLASSES, size=total)
    slopes = torch.randn(total, COLUMNS, generator=torch.Generator().manual_seed(1))
    shards = [_shard(labels, rank, workers) for rank in range(workers)]
    owners = np.bincount(np.concatenate(shards), minlength=total)
    counts = np.array([np.bincount(labels[shard], minlength=CLASSES) for shard in shards])
    tables = []
    steps: list[list[Tensor]] = []
    for rank, shard in enumerate(shards):
        positions = torch.from_numpy(shard)
        table = _model(torch.from_numpy(labels)[positions], TableStorage("host")).table
        batches = _batches(rank, workers, each)
        for index in batches:
            _step(table, index, slopes[positions[index]])
        tables.append(table)
        steps.append([positions[index] for index in batches])
    whole = _model(torch.from_numpy(labels), TableStorage("host")).table
    for parts in zip(*steps, strict=True):
        index = torch.cat(parts)
        _step(whole, index, slopes[index])
    different = sum(
        _different(table.state_dict(), whole, torch.from_numpy(shard))
        for table, shard in zip(tables, shards, strict=True)
    )
    far = max(
        _far(table.values, whole.values[torch.from_numpy(shard)]) for table, shard in zip(tables, shards, strict=True)
    )
    different_read, seconds = _through_checkpoint(tables, shards, whole, labels, other)
    spread = int(np.ptp(counts, axis=0).max())
    return ShardComparison(different, far, int((owners != 1).sum()), spread, different_read, statistics.median(seconds))


def _far(values: Tensor, others: Tensor) -> float:
    return float(((values - others).abs() / others.abs().clamp(min=LR)).max())


def _through_checkpoint(
    tables: list[PointTable], shards: list[Any], whole: PointTable, labels: Any, other: int
) -> tuple[int, list[float]]:
    """Rows that differ when `other` workers read what these wrote, and the seconds of each."""
    different, seconds = 0, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        # The file that names the parts is the first worker's, and comes last.
        for rank in reversed(range(len(tables))):
            group, positions = FakeGroup(rank, len(tables)), torch.from_numpy(shards[rank])
            assert checkpoint.save(path, "run", {"epoch": 0}, tables[rank].state_dict(), positions, group)
        for rank in range(other):
            positions = torch.from_numpy(_shard(labels, rank, other))
            begun = time.thread_time()
            state = checkpoint.load(path, "run", positions, FakeGroup(rank, other))
            seconds.append(time.thread_time() - begun)
            assert state is not None
            different += _different(state["points"], whole, positions)
    return different, seconds


def _shard(labels: Any, rank: int, size: int) -> Any:
    return shard_by_class(labels, labels[:0], FakeGroup(rank, size), numpy_generator(0, "shards", size))[0]


def _batches(rank: int, workers: int, each: int) -> list[Tensor]:
    group, points = FakeGroup(rank, workers), torch.arange(each)
    return [
        batch.points
        for number in range(PASSES)
        for batch in shuffled_batches(
            points, workers * each, workers * BATCH, torch_generator(0, "outer", number, rank), group
        )
    ]


def _step(table: PointTable, index: Tensor, slopes: Tensor) -> None:
    """A gradient that depends on the point and on where its row is."""
    table.rmsprop_step(index, slopes + 0.1 * table.rows(index), LR)


def _different(state: dict[str, Any], whole: PointTable, positions: Tensor) -> int:
    """Number of rows that differ in any bit."""
    assert state["steps"] == whole.steps
    wrong = torch.zeros(len(positions), dtype=torch.bool)
    for name, column in whole.state_dict().items():
        if isinstance(column, Tensor):
            wrong |= (state[name] != column[positions]).reshape(len(positions), -1).any(1)
    return int(wrong.sum())


def _model(labels: Tensor, storage: TableStorage) -> PointModel:
    return PointModel(PointsConfig(learn=("augment", "soft-label")), labels, CLASSES, storage=storage)


# ----- what crosses the network


class Traffic(NamedTuple):
    """Bytes that each worker passes to collectives, by kind; a ring of W sends 2 (W - 1) / W of those of a sum."""

    size: int
    sent: dict[str, int]
    calls: dict[str, int]
    steps: int
    passes: int
    parameters: int
    shape: tuple[int, int]


class CountingGroup(TorchProcessGroup):
    """A process group that counts the bytes passed to its collectives.

    Args:
        shape: of theta, [C, D].
        columns: of lambda.
    """

    def __init__(self, shape: tuple[int, int], columns: int) -> None:
        super().__init__()
        self.sent = dict.fromkeys(("gradients", "batch norm", "solve", "scores", "lambda", "points table", "else"), 0)
        self.calls = dict(self.sent)
        self._shape, self._columns = shape, columns

    def all_reduce(self, tensor: Tensor) -> Tensor:
        # Statistics are float64 on the way there, and [2, channels] on the way back.
        norm = tensor.dtype == torch.float64 or (tensor.ndim == 2 and len(tensor) == 2)
        self._count("batch norm" if norm else self._kind(tensor), tensor.nbytes)
        return super().all_reduce(tensor)

    def broadcast(self, tensor: Tensor) -> Tensor:
        self._count(self._kind(tensor), tensor.nbytes)
        return super().broadcast(tensor)

    def all_gather(self, shard: Tensor, total: int) -> Tensor:
        self._count("scores", shard.nbytes)
        return super().all_gather(shard, total)

    def gather(self, thing: T) -> Sequence[T]:
        self._count("points table", len(pickle.dumps(thing)))
        return super().gather(thing)

    def wrap_ddp(self, encoder: nn.Module, head: nn.Module) -> nn.Module:
        network = super().wrap_ddp(encoder, head)

        def hook(state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
            self._count("gradients", bucket.buffer().nbytes)
            return allreduce_hook(dist.distributed_c10d._get_default_group(), bucket)

        network.register_comm_hook(None, hook)  # type: ignore[operator]
        return network

    def _kind(self, tensor: Tensor) -> str:
        if tuple(tensor.shape) == self._shape:
            return "solve"
        return "lambda" if self._columns in tensor.shape else "else"

    def _count(self, kind: str, size: int) -> None:
        self.sent[kind] += size
        self.calls[kind] += 1


def measure_network(size: int) -> Traffic:
    """A training of two epochs, with an outer pass after the second, by `size` processes."""
    pool = WorkerPool(size)
    try:
        return pool.each(size, count_network)[0]
    finally:
        pool.close()


def count_network() -> Traffic:
    """Train in one of the processes, and count what it sends."""
    network = MeasuredNetwork("cpu", 1, 28, CLASSES, 64, 4)
    points = network.batches * network.batch_size
    data, config = made_up(network, points), config_of("autodo-exact-aws", "small-cnn", network, points)
    probe = Trainer(config, data)
    shape = (probe.model.head.weight.shape[0], probe.model.head.weight.shape[1])
    group = CountingGroup(shape, probe.points.table.values.shape[1])
    trainer = Trainer(config, data, group=group)
    collections.deque(trainer, maxlen=0)
    trainer.outcome()
    parameters = sum(one.numel() for one in [*trainer.model.encoder.parameters(), *trainer.model.head.parameters()])
    passes = sum(row["outer_phase"] for row in trainer.state.history)
    return Traffic(
        group.size, group.sent, group.calls, network.batches * len(trainer.state.history), passes, parameters, shape
    )


def network_table(counted: Traffic) -> Table:
    """Table of the bytes by their kind."""
    table = Table("what", "bytes", "calls", "is", title=f"given to collectives by each of {counted.size} workers")
    classes, width = counted.shape
    texts = {
        "gradients": f"{counted.steps} train steps x 4 bytes x {counted.parameters:,} parameters",
        "batch norm": f"{counted.steps} train steps, there and back",
        "solve": f"{counted.passes} pass(es) x 4 bytes x {classes} x {width}, each sum",
        "scores": "24 bytes for each of the worker's val and test images, each epoch",
        "lambda": "never sent while it trains",
        "points table": "with what lambda says of each point, once at the end",
        "else": "train loss, sum of lambda",
    }
    for kind, text in texts.items():
        table.add_row(kind, f"{counted.sent[kind]:,}", str(counted.calls[kind]), text)
    return table


def _alone(function: Callable[..., T], *arguments: Any) -> T:
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (1,)) as pool:
        return pool.apply(function, arguments)


if __name__ == "__main__":
    main()
