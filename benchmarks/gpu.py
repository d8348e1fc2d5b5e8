"""All that only a GPU shows, in eight minutes: whether the CUDA and NCCL paths are right, and how fast they are.

    make gpu-check        # or: python -m benchmarks.gpu [--data-dir FOLDER] [--out gpu.md] [NAME ...]

Each check runs in a process of its own with a limit of time, the most informative first, so that neither a crash nor a
hang costs the others. The table is written again after each check. --data-dir is the folder of Fashion-MNIST, without
which no real run is trained. `--device cpu --small` does the same on a CPU within minutes, with other figures.
Needs of this project's dependencies only those that `autodo` imports for training; a check says what it lacks.
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

from benchmarks.table import ROWS, Row, markdown, read_rows

# Name of a check in `gpu_checks` -> the most seconds that it may take.
CHECKS: dict[str, int] = {
    "device": 60,
    "policies": 40,
    "batch_norm": 30,
    "gradients": 40,
    "waits": 50,
    "storage": 40,
    "nccl": 60,
    "repeat": 40,
    "speed": 90,
    "outer": 100,
    "run": 150,
    "cuda_tests": 60,
    "compiled": 120,
}
# What the process of a check gets beside our own variables: cuBLAS repeats its sums only with it.
ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes and prints the table; exit code 1 if a check failed or a goal is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CHECKS)}; all by default")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the script")
    parser.add_argument("--data-dir", type=Path, help="folder of Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=Path("gpu.md"), help="the table, written as it grows")
    parser.add_argument("--minutes", type=float, default=8.0, help="of all checks together")
    parser.add_argument("--small", action="store_true", help="small networks and few images")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in CHECKS]
    if unknown:
        parser.error(f"unknown check {unknown[0]!r}; known: {', '.join(CHECKS)}")
    if given.inside:
        from benchmarks import gpu_checks

        gpu_checks.run(given.names, gpu_checks.Setting(given.device, given.small, given.data_dir))
        return
    options = ["--device", given.device, *(["--small"] if given.small else [])]
    options += [] if given.data_dir is None else ["--data-dir", str(given.data_dir.absolute())]
    commands = {
        name: [sys.executable, "-m", "benchmarks.gpu", name, "--inside", *options] for name in given.names or CHECKS
    }
    rows: list[tuple[str, Row | str]] = []
    begun = time.monotonic()
    for row in measured(commands, 60 * given.minutes):
        rows.append(row)
        minutes = (time.monotonic() - begun) / 60
        text = f"{date.today().isoformat()}, {minutes:.1f} minutes:\n\n{markdown(rows)}\n"
        given.out.write_text(text)
    print(f"\n{text}")
    sys.exit(any(isinstance(row, str) or row.met is False for _, row in rows))


def measured(commands: dict[str, list[str]], seconds: float) -> Iterator[tuple[str, Row | str]]:
    """Rows of each check, its duration, and its error if there is one.

    Args:
        seconds: after which no check goes on, and none begins.
    """
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        for name, command in commands.items():
            begun = time.monotonic()
            left = end - begun
            if left <= 0:
                yield name, "left out: no time was left"
                continue
            limit, path = min(left, CHECKS.get(name, left)), Path(folder) / name
            print(f"{name} …", flush=True)
            try:
                done = subprocess.run(
                    command,
                    env={**ENVIRONMENT, **os.environ, ROWS: str(path)},
                    stderr=subprocess.PIPE,
                    text=True,
                    timeout=limit,
                    check=False,
                )
                why = _last_line(done.stderr) if done.returncode else None
                print(done.stderr, file=sys.stderr, end="")
            except subprocess.TimeoutExpired:
                why = f"stopped after {limit:.0f} s"
            for row in read_rows(path):
                yield name, row
            yield name, Row("seconds of this check", time.monotonic() - begun, "s")
            if why is not None:
                yield name, why


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return f"failed: {lines[-1]}" if lines else "failed without a word"


if __name__ == "__main__":
    main()
