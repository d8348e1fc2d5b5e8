"""Two processes at the same grid and the same store at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.grid.grid import GridConfig, expand
from orchestration.store.store import Store
from reports.readers.load import load_results

ROOT = Path(__file__).parents[2]
GRID = GridConfig.model_validate(
    {
        "name": "g",
        "datasets": ["digits"],
        "distortions": ["1-0.0"],
        "methods": ["baseline"],
        "seeds": 4,
        "set": {"training.epochs": 3, "dataset.subsample": 300},
    }
)
DRIVER = """
import sys
from orchestration.store import lease
lease.SETTLE_SECONDS = 0.3
from orchestration.execution.execute import execute
from orchestration.grid.grid import expand
from orchestration.store.run_state import RunBusy
from orchestration.store.store import Store
store = Store(sys.argv[1]).create()
(grid,) = store.grids().values()
print("ready", flush=True)
sys.stdin.readline()
for run in expand(grid):
    try:
        if list(execute(run, store)):
            print("trained", run.run_id)
    except RunBusy:
        print("busy", run.run_id)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param("local", marks=pytest.mark.long), "s3"])
def test_every_run_is_done_once(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    uri = str(tmp_path / "S") if kind == "local" else f"{request.getfixturevalue('bucket')}/S"
    store = Store(uri).create()
    store.save_grid(GRID)
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", DRIVER, uri],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for driver in drivers:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
    for driver in drivers:
        assert driver.stdin is not None
        driver.stdin.write("go\n")
        driver.stdin.flush()
    told = [line.split() for driver in drivers for line in driver.communicate(timeout=300)[0].splitlines()]
    assert [driver.returncode for driver in drivers] == [0, 0]
    ids = {run.run_id for run in expand(GRID)}
    assert sorted(run_id for word, run_id in told if word == "trained") == sorted(ids)
    assert store.status.done() == ids
    results = load_results(store.root)
    assert (set(results.frame["run_id"]), results.warnings) == (ids, ())
    for run_id in ids:
        assert store.paths.run(run_id).names() == {"config.json", "log.txt"}
        assert store.paths.log(run_id).read_text().count("from epoch 0") == 1
