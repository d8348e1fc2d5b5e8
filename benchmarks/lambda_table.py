"""Cost of a step of lambda: time against the number of points and against dense RMSprop, and memory.

    python -m benchmarks.lambda_table [--device cuda] [--repeat 20] [--most 100000000] [--quick]

Each figure is measured in its own process. A step reads the rows of a batch, updates them by RMSprop and writes them.
Times are this thread's on a CPU, on the wall beside a GPU; medians.
"""

import argparse
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from autodo.config.bilevel import LambdaStorage, PointsConfig
from autodo.points.model import PointModel
from autodo.points.table_storage import TableStorage
from benchmarks.table import Row, machine, record_rows

BATCH = 256
IMAGENET, IMAGENET_CLASSES = 1_281_167, 1000
CIFAR = 50_000
SMALL = 24
"""Columns that a set of 10 classes has, but for the weight: 14 and 10."""


class TableSpec(NamedTuple):
    """A table to measure."""

    points: int
    classes: int
    storage: LambdaStorage
    repeat: int
    device: str = "cpu"
    options: dict[str, Any] = {}  # noqa: RUF012
    dense: bool = False
    fill: bool = False
    """Write all rows, as a pass does, before the memory is measured."""


class StepCost(NamedTuple):
    """Seconds of a step on rows never touched, of one on the same rows again, of dense RMSprop; and bytes."""

    first: float
    step: float
    dense: float | None
    own_memory: int
    """Resident memory of the process that no file stands behind, over what it had before the table."""
    file_memory: int
    """Resident pages of files, over what it had before; the system takes them back when it needs them."""
    device_memory: int | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--most", type=int, default=10**8, help="Points of the largest table.")
    parser.add_argument("--quick", action="store_true", help="no table over 3 GB, nor the memory of ImageNet's")
    given = parser.parse_args()
    if given.quick:
        given.most = min(given.most, 10**7)
    console = Console(width=140)
    name = torch.cuda.get_device_name() if given.device != "cpu" else machine()
    console.print(f"{name}, torch {torch.__version__}, {torch.get_num_threads()} thread(s), batch {BATCH}")
    console.print(flat(given))
    console.print(against_dense(given))
    if not given.quick:
        console.print(memory(given))


def flat(given: argparse.Namespace) -> Table:
    """Milliseconds of a step against N."""
    table = _table("a step against the number of points", "points", "columns", "kept in", "size", "first", "again")
    table.caption = "ms a step: on rows that were never touched, and on the same rows again"
    for count in (10**4, 10**5, 10**6, 10**7, 10**8):
        _row(table, given, count, SMALL - 14, ("device", "host", "file") if count <= 10**6 else ("file",))
    if not given.quick:
        _row(table, given, IMAGENET, IMAGENET_CLASSES, ("file",))
    return table


def _row(
    table: Table, given: argparse.Namespace, count: int, classes: int, storages: tuple[LambdaStorage, ...]
) -> None:
    columns = 14 + classes
    size = count * (8 * columns + 4)
    for storage in storages:
        head = f"{count:,}", str(columns), storage, _gigabytes(size)
        if count > given.most or (storage == "file" and size > shutil.disk_usage(tempfile.gettempdir()).free / 2):
            table.add_row(*head, "not measured: no room")
            continue
        measured = _alone(TableSpec(count, classes, storage, given.repeat, given.device))
        table.add_row(*head, f"{1e3 * measured.first:.2f}", f"{1e3 * measured.step:.2f}")
        record_rows(Row(f"step of {count:,} x {columns}, {storage}", 1e3 * measured.step, "ms"))


def against_dense(given: argparse.Namespace) -> Table:
    """The row-sparse step and torch's on the whole table with a dense gradient, in turns."""
    table = _table("against torch.optim.RMSprop", "points", "columns", "ms a step", "ms dense", "ratio")
    for count in (CIFAR, IMAGENET):
        spec = TableSpec(count, SMALL - 14, "device", given.repeat if count == CIFAR else 7, given.device, dense=True)
        measured = _alone(spec)
        assert measured.dense is not None
        ms = f"{1e3 * measured.step:.2f}", f"{1e3 * measured.dense:.1f}"
        table.add_row(f"{count:,}", str(SMALL), *ms, f"{measured.dense / measured.step:,.0f}")
        record_rows(Row(f"dense RMSprop over a step of {count:,} x {SMALL}", measured.dense / measured.step, "x"))
    return table


def memory(given: argparse.Namespace) -> Table:
    """Memory of a table of soft labels and augmentation for ImageNet after every row has moved."""
    table = _table(
        f"memory of {IMAGENET:,} x {14 + IMAGENET_CLASSES}; on the host when every row has moved",
        "kept in", "precision", "square_average", "own memory", "of files", "on the device", "ms a step",
    )  # fmt: skip
    full, half = {"precision": "fp32"}, {"precision": "fp16"}
    part = {"square_average": "part"}
    kinds: list[tuple[LambdaStorage, dict[str, str]]] = [
        ("host", {**half, **part}),
        ("host", half),
        ("host", {**full, **part}),
        ("file", full),
    ]
    for storage, options in kinds:
        head = storage, options["precision"], options.get("square_average", "element")
        bytes_of = IMAGENET * (14 + IMAGENET_CLASSES) * (2 if "fp16" in options.values() else 4)
        bytes_of *= 1 if "part" in options.values() else 2
        if storage == "host" and bytes_of > 0.7 * available_memory():
            table.add_row(*head, "not measured: no room")
            continue
        # To write 10 GB to a disk says nothing about memory.
        fill = storage == "host"
        spec = TableSpec(IMAGENET, IMAGENET_CLASSES, storage, given.repeat, given.device, options, fill=fill)
        measured = _alone(spec)
        on_device = "-" if measured.device_memory is None else _gigabytes(measured.device_memory)
        table.add_row(
            *head, _gigabytes(measured.own_memory), _gigabytes(measured.file_memory), on_device,
            f"{1e3 * measured.step:.2f}",
        )  # fmt: skip
        what = f"{IMAGENET:,} x {14 + IMAGENET_CLASSES}, {', '.join(head)}"
        record_rows(Row(f"step of {what}", 1e3 * measured.step, "ms", at_most=3.0))
        record_rows(Row(f"own memory of {what}", measured.own_memory / 1e9, "GB"))
    return table


# ----- in a process of its own


def _alone(spec: TableSpec) -> StepCost:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (spec,))


def measure(spec: TableSpec) -> StepCost:
    """Measure a table in this process."""
    torch.set_num_threads(1)
    device = torch.device(spec.device)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(spec.classes, (spec.points,), generator=generator).to(device)
    _model(TableSpec(BATCH, spec.classes, "device", 0, spec.device, spec.options))  # loads what the first use loads
    before = resident_memory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    on_device = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    table = _model(spec, labels).table
    gradient = torch.randn(BATCH, 14 + spec.classes, generator=generator).to(device)
    if spec.fill:
        for part in torch.arange(spec.points, device=device).split(BATCH):
            table.rows(part)
            table.rmsprop_step(part, gradient[: len(part)], 0.05)
    # Anywhere in the table, so that each row is as far away as any.
    order = torch.randint(spec.points, (spec.repeat + 5, 2 * BATCH), generator=generator)
    batches = [part.unique()[torch.randperm(len(part.unique()), generator=generator)][:BATCH] for part in order]
    steps = iter([batch.to(device) for batch in batches * 2])

    def step() -> None:
        index = next(steps)
        table.rows(index)
        table.rmsprop_step(index, gradient, 0.05)

    dense = _dense_step(spec, device) if spec.dense else None
    seconds: dict[str, list[float]] = {"step": [], "dense": []}
    for turn in range(2 * len(batches)):
        seconds["step"].append(_seconds(step, device))
        if dense is not None and turn < spec.repeat:
            seconds["dense"].append(_seconds(dense, device))
    table.state_dict()  # waits for pending writes
    after = resident_memory()
    return StepCost(
        statistics.median(seconds["step"][5 : len(batches)]),
        statistics.median(seconds["step"][len(batches) :]),
        statistics.median(seconds["dense"][1:]) if dense else None,
        after[0] - before[0],
        after[1] - before[1],
        torch.cuda.max_memory_allocated(device) - on_device if device.type == "cuda" else None,
    )


def _model(spec: TableSpec, labels: torch.Tensor | None = None) -> PointModel:
    labels = torch.zeros(spec.points, dtype=torch.int64, device=spec.device) if labels is None else labels
    config = PointsConfig(learn=("augment", "soft-label"), **spec.options)
    storage, device = TableStorage(spec.storage), torch.device(spec.device)
    return PointModel(
        config, labels, spec.classes, storage=storage, rounding=lambda step: torch.Generator(device).manual_seed(step)
    )


def _dense_step(spec: TableSpec, device: torch.device) -> Callable[[], None]:
    """A step of torch's RMSprop on a parameter [N, K] with a dense gradient, zero outside the batch."""
    parameter = torch.zeros(spec.points, 14 + spec.classes, device=device, requires_grad=True)
    optimizer = torch.optim.RMSprop([parameter], lr=0.05)
    generator = torch.Generator().manual_seed(1)

    def step() -> None:
        index = torch.randint(spec.points, (BATCH,), generator=generator).to(device)
        optimizer.zero_grad(set_to_none=True)
        parameter[index].square().sum().backward()
        optimizer.step()

    return step


def _seconds(function: Callable[[], None], device: torch.device) -> float:
    clock = time.perf_counter if device.type == "cuda" else time.thread_time
    started = clock()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - started


def resident_memory() -> tuple[int, int]:
    """Resident bytes of this process: anonymous memory, and pages of files."""
    with open("/proc/self/status") as file:  # noqa: PTH123
        lines = dict(line.split(":", 1) for line in file)
    own, of_files, shared = (int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile", "RssShmem"))
    return own, of_files + shared


def available_memory() -> int:
    """Bytes of memory that this machine can still give to processes."""
    with open("/proc/meminfo") as file:  # noqa: PTH123
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["MemAvailable"].split()[0]) * 1024


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, title=title)
    for column in table.columns:
        column.justify = "right"
    return table


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


if __name__ == "__main__":
    main()
