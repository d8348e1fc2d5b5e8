"""Cost of the orchestration: planning a large grid, and Ray's share of many short runs.

    make bench            # or: python -m benchmarks.orchestration --runs 1000
    python -m benchmarks.orchestration --parts --before CHECKOUT

Prints seconds, and the ratio of a launch to the bare training of the same runs in this process, measured in turns.
Ray's share is that ratio for the 16 runs of `quickstart`, per core. Two cores that share caches and memory train two
runs more slowly than one, for which no launcher is to blame; so the wall time is also set against the training times
within the launch. What is over 1 then is Ray's start and end, loading, saving, and a core that has no run left.
`--parts` measures only the parts of the command `autodo launch` with two trivial runs; with `--before`, the folder of
an earlier version, in turns with it.
"""

import argparse
import datetime
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from autodo.config.run import RunConfig
from benchmarks.table import Row, record_rows
from orchestration.execution.execute import execute
from orchestration.grid.grid import GridConfig, expand, load_grid
from orchestration.planning.plan import jobs_left, make_plan
from orchestration.store.store import Store

TRIVIAL = {"training.epochs": 1, "training.warmup_epochs": 0, "dataset.subsample": 20}


def main() -> None:
    """Runs everything and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="short runs to launch")
    parser.add_argument("--repeat", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--epochs", type=int, help="of the 16 runs for Ray's share; default: as in quickstart")
    parser.add_argument("--parts", action="store_true", help="only the parts of a launch of two trivial runs")
    parser.add_argument("--before", type=Path, help="folder of an earlier version, whose launches take turns with ours")
    given = parser.parse_args()
    console = Console()
    if given.parts:
        with tempfile.TemporaryDirectory() as folder:
            for row in launch_parts(given.repeat, given.before, Path(folder)):
                console.print(f"{row.what}: {row.value:.2f} {row.unit}", highlight=False)
                record_rows(row)
        return
    table = Table(title=f"orchestration, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", title_justify="left")
    table.add_column("what")
    table.add_column("median", justify="right")
    table.add_column("target", justify="right")
    planned = large_grid()
    with tempfile.TemporaryDirectory() as folder:
        empty, full = Store(Path(folder) / "empty"), Store(Path(folder) / "full").create()
        for run in expand(planned):
            full.paths.table("results", run.run_id).write_bytes(b"")
        rows: dict[str, Callable[[], object]] = {
            f"plan {len(expand(planned)):,} runs, none done": lambda: plan(planned, empty),
            "the same, all done": lambda: plan(planned, full),
        }
        for name, measure in rows.items():
            figure = Row(name, median(measure, given.repeat), "s", at_most=2.0)
            table.add_row(name, f"{figure.value:.2f} s", "2 s")
            record_rows(figure)
        bare, launched = [], []
        for turn in range(given.repeat):
            runs = trivial_runs(given.runs)
            bare.append(seconds(lambda: train_bare(runs[:50], Path(folder) / f"bare{turn}")) / 50)  # noqa: B023
            launched.append(seconds(lambda: launch(runs, Path(folder) / f"launched{turn}")))  # noqa: B023
        slots = os.cpu_count() or 1
        record_rows(
            Row("launch of 1,000 trivial runs", statistics.median(launched) * 1000 / given.runs, "s", at_most=120.0)
        )
        table.add_row(f"launch {given.runs} trivial runs", f"{statistics.median(launched):.0f} s", "120 s per 1,000")
        table.add_row("a bare trivial run, in this process", f"{1000 * statistics.median(bare):.0f} ms", "")
        ratios = [wall * slots / given.runs / one for wall, one in zip(launched, bare, strict=True)]
        table.add_row("slot time per launched run / bare run", f"{statistics.median(ratios):.2f}", "")
        for row in [
            *ray_share(given.repeat, given.epochs, Path(folder)),
            *launch_parts(given.repeat, given.before, Path(folder)),
        ]:
            table.add_row(row.what, f"{row.value:.2f} {row.unit}", "" if row.at_most is None else f"{row.at_most:g}")
            record_rows(row)
    console.print(table)


def ray_share(repeat: int, epochs: int | None, folder: Path) -> list[Row]:
    """Ray's share of the time of 16 short runs, and the part that any launch pays once."""
    slots = os.cpu_count() or 1
    grid = load_grid("quickstart")
    if epochs is not None:
        grid = grid.model_copy(update={"set": {**grid.set, "training.epochs": epochs}})
    runs = expand(grid)
    over_bare, over_training, once = [], [], []
    for turn in range(repeat):
        store = folder / f"short{turn}"
        wall = seconds(lambda: launch(runs, store))  # noqa: B023
        trained = sum(pq.read_table(store / "results", columns=["seconds"])["seconds"].to_pylist())
        bare = seconds(lambda: train_bare(runs, folder / f"short-bare{turn}"))  # noqa: B023
        over_bare.append(wall * slots / bare)
        over_training.append(wall * slots / trained)
        few = trivial_runs(slots)
        once.append(seconds(lambda: launch(few, folder / f"few{turn}")))  # noqa: B023
    what = f"{len(runs)} short runs on {slots} cores: wall x cores"
    return [
        Row(f"{what} over their bare times", statistics.median(over_bare), "x", at_most=1.15),
        Row(f"{what} over the training times within", statistics.median(over_training), "x", at_most=1.15),
        Row(f"launch of {slots} trivial runs: start and end of Ray", statistics.median(once), "s"),
    ]


class Parts(NamedTuple):
    """Wall seconds of the command `autodo launch`."""

    first_step: float
    """From its start until the first run trains."""
    end: float
    """From the end of the last run until the command has ended."""
    in_all: float
    nothing: float
    """The same command once more, with nothing left to do: in all."""


def launch_parts(repeat: int, before: Path | None, folder: Path) -> list[Row]:
    """Durations of the parts of a launch of two trivial runs; with an earlier version, also the ratios to its parts."""
    here = Path(__file__).parents[1]
    ours, theirs = [], []
    for turn in range(repeat):
        if before is not None:
            theirs.append(command_parts(before, folder / f"before{turn}"))
        ours.append(command_parts(here, folder / f"parts{turn}"))
    names = {
        "first_step": "until the first run trains",
        "end": "after the last run",
        "in_all": "in all",
        "nothing": "with nothing left to do",
    }
    rows = []
    for field, name in names.items():
        what = f"autodo launch, 2 trivial runs: {name}"
        rows.append(Row(what, statistics.median(getattr(parts, field) for parts in ours), "s"))
        if theirs:
            ratios = [getattr(our, field) / getattr(their, field) for our, their in zip(ours, theirs, strict=True)]
            rows.append(Row(f"{what}, over before", statistics.median(ratios), "x", at_most=0.6))
    return rows


def command_parts(checkout: Path, store: Path) -> Parts:
    """Two launches by the code in a folder. The runs' logs say when they began and ended, in every version."""
    sets = [option for key, value in TRIVIAL.items() for option in ("--set", f"{key}={value}")]
    only = ["--only", "method=baseline,seed=0"]
    command = [sys.executable, "-m", "orchestration.cli", "launch", "quickstart", "--store", str(store), *sets, *only]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "RAY_USAGE_STATS_ENABLED": "0"}

    def launch_once() -> tuple[float, float]:
        begun = time.time()
        subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
        return begun, time.time()

    begun, ended = launch_once()
    lines = sorted(line for log in store.glob("runs/*/log.txt") for line in log.read_text().splitlines())
    first, last = (
        datetime.datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp() for line in lines[:: len(lines) - 1]
    )
    again, done = launch_once()
    return Parts(first - begun, ended - last, ended - begun, done - again)


def median(measure: Callable[[], object], repeat: int) -> float:
    """Seconds of `measure`."""
    return statistics.median(seconds(measure) for _ in range(repeat))


def seconds(measure: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    measure()
    return time.perf_counter() - started


def large_grid() -> GridConfig:
    """5 datasets x 12 distortions x 5 methods x 34 seeds = 10,200 runs."""
    return GridConfig(
        name="large",
        datasets=("digits", "fashion-mnist", "svhn", "cifar10", "cifar100"),
        distortions=tuple(f"{ir}-{nr}" for ir in (1, 10, 100) for nr in ("0.0", "0.1", "0.2", "0.3")),
        methods=("baseline", "autodo-aw", "autodo-aws", "autodo-exact-aws", "autodo-exact-ws"),
        seeds=tuple(range(34)),
        set={},
        policies={},
        variants={},
    )


def plan(grid: GridConfig, store: Store) -> None:
    """All that happens before the first run starts."""
    plan = make_plan(expand(grid), store)
    jobs_left(plan, store, dict.fromkeys(plan.runs, grid.resources))


def trivial_runs(count: int) -> list[RunConfig]:
    """Runs of one epoch on 20 images."""
    return expand(
        GridConfig(
            name="trivial",
            policies={},
            variants={},
            datasets=("digits",),
            distortions=("1-0.0",),
            methods=("baseline",),
            seeds=tuple(range(count)),
            set=TRIVIAL,
        )
    )


def train_bare(runs: list[RunConfig], folder: Path) -> None:
    """The runs one after another in this process, on one thread, results written."""
    import torch

    torch.set_num_threads(1)
    store = Store(folder).create()
    for run in runs:
        for _ in execute(run, store):
            pass


def launch(runs: list[RunConfig], folder: Path) -> None:
    """The runs on a Ray of this machine, its start and end included."""
    from orchestration import launch as on_ray
    from orchestration.execution.options import LaunchSettings
    from orchestration.ray_cluster.cluster import Cluster

    store = Store(folder).create()
    plan = make_plan(runs, store)
    progress = on_ray.launch(
        jobs_left(plan, store, dict.fromkeys(plan.runs, large_grid().resources)),
        store,
        Console(file=io.StringIO()),
        cluster=Cluster(),
        options=LaunchSettings(),
    )
    assert progress.done == len(runs), progress.failed


if __name__ == "__main__":
    main()
