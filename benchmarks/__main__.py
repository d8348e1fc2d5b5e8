"""Runs benchmarks one after another, each in a process of its own, and prints one table of all of their figures.

    make bench            # or: python -m benchmarks [--full] [--device cuda] [--out TABLE.md] [NAME ...]

The table is Markdown. A benchmark that fails has a line in it, after the figures that it recorded before. Without
--full those that would take long measure less, so that all together take about half an hour on 2 cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import torch

from benchmarks.table import ROWS, Row, machine, markdown, read_rows

# Name of the module -> options for a shorter run. One that takes --device is in ON_DEVICE too.
BENCHMARKS: dict[str, tuple[str, ...]] = {
    "orchestration": ("--runs", "200", "--repeat", "1"),
    "augmentation": ("--repeat", "5"),
    "outer_phase": ("--repeat", "3"),
    "throughput": ("--repeat", "3", "--images", "4096", "--no-compile"),
    "weight_average": ("--repeat", "10"),
    "lambda_table": ("--quick",),
    "sharded_table": ("--quick",),
    "streaming": ("--images", "1000", "--rounds", "3"),
    "features": (),
    "report": (),
}
ON_DEVICE = frozenset({"augmentation", "outer_phase", "throughput", "weight_average", "lambda_table", "streaming"})


def main() -> None:
    """Prints the table; exit code 1 if a benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--full", action="store_true", help="measure all that they can")
    parser.add_argument("--device", default="cpu", help="cuda runs those only that use it")
    parser.add_argument("--out", type=Path, help="write the table here too")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; known: {', '.join(BENCHMARKS)}")
    on_device = given.device != "cpu"
    names = [name for name in given.names or BENCHMARKS if not on_device or name in ON_DEVICE]
    commands: dict[str, Sequence[str]] = {
        name: [
            sys.executable, "-m", f"benchmarks.{name}", *(() if given.full else BENCHMARKS[name]),
            *(("--device", given.device) if on_device else ()),
        ]
        for name in names
    }  # fmt: skip
    begun, load = time.monotonic(), os.getloadavg()[0]
    rows: list[tuple[str, Row | str]] = []
    try:
        for row in measured(commands):
            rows.append(row)
    except KeyboardInterrupt:
        rows.append(("", "stopped: what is above was measured before"))
    where = torch.cuda.get_device_name(given.device) if on_device else f"{machine()}, {os.cpu_count()} cores"
    text = (
        f"{where}, torch {torch.__version__}, {date.today().isoformat()}, "
        f"load {load:.1f} at the start and {os.getloadavg()[0]:.1f} at the end, "
        f"{(time.monotonic() - begun) / 60:.0f} minutes:\n\n{markdown(rows)}"
    )
    print(f"\n{text}")
    if given.out is not None:
        given.out.write_text(text + "\n")
    sys.exit(any(isinstance(row, str) for _, row in rows))


def measured(commands: dict[str, Sequence[str]]) -> Iterator[tuple[str, Row | str]]:
    """Yield the rows of each command under its name, followed by its exit code if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        for name, command in commands.items():
            path = Path(folder) / name
            print(f"\n{name}: {' '.join(command[1:])}", flush=True)
            code = subprocess.run(command, env={**os.environ, ROWS: str(path)}, check=False).returncode
            for row in read_rows(path):
                yield name, row
            if code:
                yield name, f"failed with exit code {code}"


if __name__ == "__main__":
    main()
