"""Time and memory of a report: of the paper's small-image grids, and of 10,000 runs.

    make bench            # or: python -m benchmarks.report --store PATH

Each row is measured in a process of its own. The synthetic stores are written first, which takes some minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.table import Row, record_rows
from orchestration.testing.synthetic_store import ALL, LIGHT, paper_grids, runs_of, write_store

FORMATS = ("html", "md", "latex", "csv")
# Runs -> seconds and GB (10^9 bytes) allowed for the whole report.
TARGETS: dict[int, tuple[float | None, float | None]] = {384: (15.0, None), 10_000: (60.0, 2.0)}

# Prints wall and processor seconds after the imports, and peak memory in bytes.
_MEASURE = """
import json, resource, sys, time
{imports}
started, used = time.perf_counter(), time.process_time()
{call}
seconds = time.perf_counter() - started, time.process_time() - used
print(json.dumps([*seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""
READ = _MEASURE.format(
    imports="from reports.readers.load import load_epochs, load_results",
    call="""results = load_results(sys.argv[1])
columns = ["run_id", "epoch", "train_loss", "test_loss", "test_error", "outer_phase"]
_, warnings = load_epochs(sys.argv[1], results.frame["run_id"], columns)
assert not results.warnings and not warnings, (results.warnings, warnings)""",
)
REPORT = _MEASURE.format(
    imports="""from orchestration.planning.plan import expected_in_store
from orchestration.store.store import Store
from reports.write import write_report
wanted, _ = expected_in_store(Store(sys.argv[1]).open())""",
    call=f"""write_report(sys.argv[1], out=sys.argv[2],
    expected=wanted, formats={FORMATS})""",
)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--store", type=Path, action="append", help="measure this store in place of synthetic ones; repeatable"
    )
    given = parser.parse_args()
    table = Table(title=f"report, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", title_justify="left")
    for column in ("what", "runs", "wall", "target", "all cores", "peak memory", "target"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with tempfile.TemporaryDirectory() as folder:
        for store in given.store or [make_store(Path(folder) / str(runs), runs) for runs in TARGETS]:
            add_rows(table, store, Path(folder) / "report")
    Console().print(table)
    sys.exit("failed" in (cell for column in table.columns for cell in column.cells))


def make_store(root: Path, runs: int) -> Path:
    """Write a synthetic store with `runs` runs; points and predictions only in the small one."""
    grids = paper_grids(runs)
    write_store(root, runs_of(grids)[:runs], ALL if runs == min(TARGETS) else LIGHT, grids=grids)
    return root


def add_rows(table: Table, store: Path, out: Path) -> None:
    """Measure reading alone, and the whole report."""
    runs = sum(1 for _ in (store / "results").iterdir())
    for what, program in {"reading results and epochs": READ, "the report, all formats": REPORT}.items():
        most_seconds, most_memory = TARGETS.get(runs, (None, None)) if program == REPORT else (None, None)
        done = measured(program, store, out)
        if isinstance(done, str):
            table.add_row(what, f"{runs:,}", "failed", "", done)
            continue
        figures = (
            Row(f"{what}, {runs:,} runs", done.wall, "s", most_seconds),
            Row(f"{what}, {runs:,} runs: peak memory", done.peak_bytes / 1e9, "GB", most_memory),
        )
        record_rows(*figures)
        wall, memory = (f"{figure.value:.1f} {figure.unit}" for figure in figures)
        most = [f"{figure.at_most:g} {figure.unit}" if figure.at_most else "" for figure in figures]
        table.add_row(what, f"{runs:,}", wall, most[0], f"{done.used:.1f} s", memory, most[1])


class Measured(NamedTuple):
    """Wall seconds, processor seconds and peak memory of a fresh process."""

    wall: float
    used: float
    peak_bytes: int


def measured(program: str, store: Path, out: Path) -> Measured | str:
    """The measurement, or the reason of a failure."""
    command = [sys.executable, "-c", program, str(store), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr.splitlines() or ["no output"])[-1]
    return Measured(*json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
