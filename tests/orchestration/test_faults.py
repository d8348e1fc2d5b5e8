"""What happens when things die, with the real thing; docs/reliability.md counts what was seen.

`AUTODO_DRIVER_KILLS=20 make test-slow` kills as often as the figures in the docs were taken with.
"""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from autodo.config import RunConfig
from autodo.recipes import build_run
from orchestration.execute import execute
from orchestration.grid import expand, load_grid
from orchestration.store import Store
from tests.orchestration.conftest import SMALL

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("AUTODO_DRIVER_KILLS", "3"))
TIMES = {"seconds", "inner_seconds", "outer_seconds", "eval_seconds", "images_per_second", "finished_at"}
TIMES |= {"peak_memory_bytes", "device"}


def metrics(store: Store, run_id: str) -> list[object]:
    """All that a run measured but how long it took."""
    tables = [pq.read_table(store.table_file(kind, run_id), partitioning=None) for kind in ("results", "epochs")]
    tables += [pq.read_table(store.table_file(kind, run_id), partitioning=None) for kind in ("predictions", "points")]
    return [table.drop_columns([name for name in table.column_names if name in TIMES]).to_pylist() for table in tables]


def alone(runs: list[RunConfig], folder: Path) -> Store:
    """The same runs in this process, one after another, undisturbed."""
    import torch

    store, threads = Store(folder).create(), torch.get_num_threads()
    torch.set_num_threads(1)  # as many as a run has on Ray: sums of several threads round otherwise
    try:
        for run in runs:
            list(execute(run, store))
    finally:
        torch.set_num_threads(threads)
    return store


def check_no_epoch_was_lost(log: str) -> int:
    """Every attempt begins where the one before was at its last checkpoint; returns the number of attempts."""
    expected, attempts = 0, 0
    for line in log.splitlines():
        if match := re.search(r"from epoch (\d+) of", line):
            # A kill between the checkpoint and its line in the log leaves the checkpoint one ahead.
            assert int(match[1]) in (expected, expected + 1), line
            expected, attempts = int(match[1]), attempts + 1
        elif match := re.search(r" epoch (\d+): train loss", line):
            expected = int(match[1]) + 1
    return attempts


@pytest.fixture
def launching(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Launches to be ended with the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


def start(grid: Path, store: Path, home: Path, *options: str) -> subprocess.Popen[str]:
    """`autodo launch` in a process of its own."""
    environment = {**os.environ, "HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "orchestration.cli", "launch", str(grid), "--store", str(store), *options]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def write_grid(path: Path, *, epochs: int, seeds: int) -> list[RunConfig]:
    path.write_text(
        "name: g\ndatasets: [digits]\ndistortions: ['1-0.0']\nmethods: [baseline, autodo-exact-aws]\n"
        f"seeds: {seeds}\nset: {{training.epochs: {epochs}, dataset.subsample: 300}}\n"
    )
    return expand(load_grid(str(path)))


def stamps(store: Store) -> dict[str, tuple[int, int]]:
    """Which file each result is: another inode or time would mean that it was written again."""
    found = {}
    for run_id in store.done():
        stat = Path(store.table_file("results", run_id)).stat()
        found[run_id] = (stat.st_ino, stat.st_mtime_ns)
    return found


@pytest.mark.slow
def test_a_driver_that_is_killed_again_and_again_finishes_the_grid(
    tmp_path: Path, launching: list[subprocess.Popen[str]]
) -> None:
    runs = write_grid(tmp_path / "g.yaml", epochs=150, seeds=max(2, KILLS // 2))
    store, draw = Store(tmp_path / "S"), random.Random(0)
    done: dict[str, tuple[int, int]] = {}
    for _ in range(KILLS):
        process = start(tmp_path / "g.yaml", store.root, tmp_path)
        launching.append(process)
        time.sleep(draw.uniform(4.0, 16.0))
        process.kill()
        process.communicate()
        now = stamps(store)
        assert done.items() <= now.items(), "a finished result was lost or written again"
        done = now
    last = start(tmp_path / "g.yaml", store.root, tmp_path)
    launching.append(last)
    out, _ = last.communicate(timeout=500)
    assert last.returncode == 0, out
    assert f"all {len(runs)} runs are done" in out
    assert done.items() <= stamps(store).items()
    assert store.done() == {run.run_id for run in runs}
    attempts = [check_no_epoch_was_lost(store.log_file(run.run_id).read_text()) for run in runs]
    print(f"{KILLS} kills, {len(runs)} runs, {len(done)} done before the last launch, attempts {attempts}")
    undisturbed = alone(runs, tmp_path / "undisturbed")
    for run in runs:
        assert metrics(store, run.run_id) == metrics(undisturbed, run.run_id)


@pytest.mark.slow
def test_two_drivers_share_a_grid(tmp_path: Path, launching: list[subprocess.Popen[str]]) -> None:
    runs = write_grid(tmp_path / "g.yaml", epochs=40, seeds=4)
    store = Store(tmp_path / "S")
    launching += [start(tmp_path / "g.yaml", store.root, tmp_path) for _ in range(2)]
    outs = [process.communicate(timeout=400)[0] for process in launching]
    assert [process.returncode for process in launching] == [0, 0], outs
    assert store.done() == {run.run_id for run in runs}
    assert store.failures() == {}
    for run in runs:
        log = store.log_file(run.run_id).read_text()
        assert check_no_epoch_was_lost(log) == 1, "the run was trained twice"


# The steps of saving a run, in their order: what each is called with says where it stands.
_DIES_AT = """
import os, signal, sys
from pathlib import Path
from autodo import atomic
from autodo.config import RunConfig
from orchestration.execute import execute
from orchestration.store import Store
store, run, step = Store(sys.argv[1]), RunConfig.model_validate_json(sys.argv[2]), int(sys.argv[3])
import torch
torch.set_num_threads(1)
count = 0
def die_at(*_):
    global count
    count += 1
    if count == step:
        os.kill(os.getpid(), signal.SIGKILL)
replace, unlink = Path.replace, Path.unlink
def replacing(self, target):
    if not self.exists():             # there is no earlier failure to put aside
        return replace(self, target)
    die_at()                      # the temporary file is written, the real one not there
    result = replace(self, target)
    die_at()                      # the real one is there, nothing after it has been done
    return result
Path.replace = replacing
for _ in execute(run, store):
    pass
print(count)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_step_of_writing_is_whole_after_the_next_attempt(tmp_path: Path) -> None:
    run = build_run("digits", "autodo-exact-aws", overrides={**SMALL, "training.epochs": 2})
    undisturbed = alone([run], tmp_path / "undisturbed")

    def attempt(root: Path, step: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _DIES_AT, str(root), run.model_dump_json(), str(step)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    whole = attempt(tmp_path / "whole", 0)
    steps = int(whole.stdout)
    # Configuration, a checkpoint an epoch, four tables: each before and after it is put in its place.
    assert steps == 2 * (1 + 2 + 4), whole.stderr
    assert metrics(Store(tmp_path / "whole"), run.run_id) == metrics(undisturbed, run.run_id)
    for step in range(1, steps + 1):
        store = Store(tmp_path / f"killed-{step}").create()
        assert attempt(store.root, step).returncode == -signal.SIGKILL
        assert store.done() == ({run.run_id} if step == steps else set()), "results are there only when all is written"
        after = attempt(store.root, 0)
        assert after.returncode == 0, after.stderr
        assert store.done() == {run.run_id}
        assert metrics(store, run.run_id) == metrics(undisturbed, run.run_id)
        check_no_epoch_was_lost(store.log_file(run.run_id).read_text())
