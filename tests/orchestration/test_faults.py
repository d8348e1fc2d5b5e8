"""What happens when things die, with the real thing; docs/explanation/reliability.md counts what was seen.

`AUTODO_DRIVER_KILLS=20 make test-slow` kills as often as the figures in the docs were taken with; CI kills once.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from orchestration.grid.grid import expand, load_grid
from orchestration.store.store import Store
from tests.orchestration.undisturbed import alone, check_no_epoch_was_lost, metrics

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("AUTODO_DRIVER_KILLS", "3"))
EPOCHS = 150


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
    for run_id in store.status.done():
        stat = Path(store.paths.table("results", run_id)).stat()
        found[run_id] = (stat.st_ino, stat.st_mtime_ns)
    return found


def logged(store: Path, what: str) -> int:
    """How often the logs of all runs say so."""
    return sum(log.read_text().count(what) for log in store.glob("runs/*/log.txt"))


def wait_until(process: "subprocess.Popen[str]", happened: Callable[[], bool]) -> None:
    """Waits for what a launch does, or its end."""
    deadline = time.monotonic() + 400
    while process.poll() is None and not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, pytest.param(KILLS, marks=pytest.mark.long)])
def test_a_driver_that_is_killed_again_and_again_finishes_the_grid(
    kills: int, tmp_path: Path, launching: list[subprocess.Popen[str]]
) -> None:
    runs = write_grid(tmp_path / "g.yaml", epochs=EPOCHS, seeds=max(2, kills // 2))
    store, draw = Store(tmp_path / "S"), random.Random(0)
    done: dict[str, tuple[int, int]] = {}
    in_writing = 0
    for kill in range(kills):
        begun = logged(tmp_path / "S", "from epoch")
        process = start(tmp_path / "g.yaml", store.root, tmp_path)
        launching.append(process)
        # Starting takes as long as it takes; the moment that counts is one of the work, on any machine.
        wait_until(process, lambda before=begun: logged(tmp_path / "S", "from epoch") > before)
        if kill % 3 != 1:
            epochs = logged(tmp_path / "S", "train loss") + draw.randrange(EPOCHS)
            wait_until(process, lambda least=epochs: logged(tmp_path / "S", "train loss") >= least)
        else:  # a run writes its tables: the first is there, the last is not
            tables = len(list((tmp_path / "S" / "points").glob("*")))
            wait_until(process, lambda before=tables: len(list((tmp_path / "S" / "points").glob("*"))) > before)
        process.kill()
        process.communicate()
        now = stamps(store)
        in_writing += len(list((tmp_path / "S" / "points").glob("[!.]*"))) > len(now)
        assert done.items() <= now.items(), "a finished result was lost or written again"
        done = now
    last = start(tmp_path / "g.yaml", store.root, tmp_path)
    launching.append(last)
    out, _ = last.communicate(timeout=500)
    assert last.returncode == 0, out
    assert f"all {len(runs)} runs are done" in out
    assert done.items() <= stamps(store).items()
    assert store.status.done() == {run.run_id for run in runs}
    attempts = [check_no_epoch_was_lost(store.paths.log(run.run_id).read_text()) for run in runs]
    print(f"{kills} kills, {in_writing} while results were written, {len(runs)} runs, {len(done)} done before the last")
    print(f"launch, attempts {attempts}")
    assert sum(attempts) > len(runs), "no kill hit a run"
    undisturbed = alone(runs, tmp_path / "undisturbed")
    for run in runs:
        assert metrics(store, run.run_id) == metrics(undisturbed, run.run_id)


@pytest.mark.slow
@pytest.mark.long
def test_two_drivers_share_a_grid(tmp_path: Path, launching: list[subprocess.Popen[str]]) -> None:
    runs = write_grid(tmp_path / "g.yaml", epochs=40, seeds=4)
    store = Store(tmp_path / "S")
    launching += [start(tmp_path / "g.yaml", store.root, tmp_path) for _ in range(2)]
    outs = [process.communicate(timeout=400)[0] for process in launching]
    assert [process.returncode for process in launching] == [0, 0], outs
    assert store.status.done() == {run.run_id for run in runs}
    assert store.status.failures() == {}
    for run in runs:
        log = store.paths.log(run.run_id).read_text()
        assert check_no_epoch_was_lost(log) == 1, "the run was trained twice"


# Forks a process for each line "STEP STORE" that it reads: one that trains the run and kills itself at that step of
# saving it. All is imported before and nothing is computed before, so that a fork is as good as a new process.
_DIES_AT = """
import os, signal, sys
from pathlib import Path
import torch
import sklearn.datasets
import autodo.training.trainer
from autodo.config.run import RunConfig
from orchestration.execution.execute import execute
from orchestration.store.store import Store

run = RunConfig.model_validate_json(sys.argv[1])
count, replace = 0, Path.replace

def attempt(root, step):
    def die_at():
        global count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
    def replacing(self, target):
        if not self.exists():         # there is no earlier failure to put aside
            return replace(self, target)
        die_at()                      # the temporary file is written, the real one not there
        result = replace(self, target)
        die_at()                      # the real one is there, nothing after it has been done
        return result
    Path.replace = replacing
    torch.set_num_threads(1)
    for _ in execute(run, Store(root)):
        pass

for line in sys.stdin:
    step, root = line.strip().split(maxsplit=1)
    child = os.fork()
    if child == 0:
        attempt(root, int(step))
        print("steps", count, flush=True)
        os._exit(0)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_run_that_is_killed_at_any_step_of_writing_is_whole_after_the_next_attempt(
    tmp_path: Path, launching: list[subprocess.Popen[str]]
) -> None:
    run = build_run("digits", "autodo-exact-aws", overrides={"training.epochs": 2, "dataset.subsample": 100})
    undisturbed = alone([run], tmp_path / "undisturbed")
    command = [sys.executable, "-c", _DIES_AT, run.model_dump_json()]
    forks = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    launching.append(forks)

    def attempt(root: Path, step: int) -> tuple[int, int]:
        """Exit code, and the number of steps if the run was finished."""
        assert forks.stdin is not None
        assert forks.stdout is not None
        print(step, root, file=forks.stdin, flush=True)
        steps = 0
        for line in forks.stdout:
            what, number = line.split()
            if what == "ended":
                return int(number), steps
            steps = int(number)
        raise AssertionError("the process that forks has ended")

    code, steps = attempt(Path(Store(tmp_path / "whole").create().uri), 0)
    # Configuration, a checkpoint an epoch, four tables: each before and after it is put in its place.
    assert (code, steps) == (0, 2 * (1 + 2 + 4))
    assert metrics(Store(tmp_path / "whole"), run.run_id) == metrics(undisturbed, run.run_id)
    for step in range(1, steps + 1):
        store = Store(tmp_path / f"killed-{step}").create()
        root = tmp_path / f"killed-{step}"
        assert attempt(root, step)[0] == -signal.SIGKILL
        expected = {run.run_id} if step == steps else set()
        assert store.status.done() == expected, "results are there only when all is written"
        assert attempt(root, 0)[0] == 0
        assert store.status.done() == {run.run_id}
        assert metrics(store, run.run_id) == metrics(undisturbed, run.run_id)
        check_no_epoch_was_lost(store.paths.log(run.run_id).read_text())
    forks.communicate()
