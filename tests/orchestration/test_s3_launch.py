"""The command line and Ray on an object store: launch, kill, resume, report."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from orchestration.grid.grid import expand, load_grid
from orchestration.store.run_state import State
from orchestration.store.store import Store
from reports.readers.load import load_results
from tests.orchestration.undisturbed import alone

ROOT = Path(__file__).parents[2]
GRID = (
    "name: g\ndatasets: [digits]\ndistortions: ['1-0.0']\nmethods: [autodo-exact-aws]\nseeds: 3\n"
    "set: {training.epochs: 100, dataset.subsample: 300}\n"
)


@pytest.mark.slow
@pytest.mark.long  # test_cli_launch.py shows it without Ray, and test_faults.py a kill on a local store
def test_a_killed_launch_continues_and_ends_as_on_a_local_store(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = tmp_path / "g.yaml"
    grid.write_text(GRID)
    store = Store(f"{bucket}/team/S")
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # for Ray's token
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def autodo(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "orchestration.cli", *arguments]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(*arguments: str) -> str:
        with autodo(*arguments) as process:
            out, _ = process.communicate(timeout=400)
        assert process.returncode == 0, out
        return out

    def unfinished() -> list[str]:
        names = (store.root / "runs").names_in(store.status.run_ids() - store.status.done())
        # The log of a run is sent to the bucket apart from its checkpoint, and tells below that it had begun before.
        return [run_id for run_id, files in names.items() if {"checkpoint.pt", "log.txt"} <= set(files)]

    with autodo("launch", str(grid), "--store", store.uri) as first:
        deadline = time.monotonic() + 200
        # Two run at once: the third begins when they are done, and has seconds to go on any machine.
        while time.monotonic() < deadline and not (len(store.status.done()) == 2 and unfinished()):
            assert first.poll() is None, first.communicate()[0]
            time.sleep(0.2)
        # The driver and every process of Ray's, as when the machine goes down.
        driver = psutil.Process(first.pid)
        for process in [driver, *driver.children(recursive=True)]:
            process.kill()
        first.communicate()
    done, interrupted = store.status.done(), unfinished()
    assert len(done) == 2
    assert interrupted
    deadline = time.monotonic() + 60
    while any(store.status.at_work(run_id) for run_id in interrupted):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    written = {run_id: store.paths.log(run_id).read_text() for run_id in done}

    out = run("launch", str(grid), "--store", store.uri)
    assert "all 3 runs are done" in out
    assert f"{store}/report/report.md" in out
    ids = [run.run_id for run in expand(load_grid(str(grid)))]
    assert set(store.status.states(ids).values()) == {State.DONE}
    assert {run_id: store.paths.log(run_id).read_text() for run_id in done} == written, "a done run was run again"
    starts = {run_id: store.paths.log(run_id).read_text().split("from epoch ")[1:] for run_id in interrupted}
    assert any(len(texts) > 1 and not texts[-1].startswith("0 ") for texts in starts.values()), starts
    for run_id in ids:
        # A kill between the results and the end of the run leaves a lease that nobody holds.
        left = {"lease.json"} if run_id in done else set()
        assert store.paths.run(run_id).names() - left == {"config.json", "log.txt"}
        assert not store.status.at_work(run_id)

    row = next(line for line in run("status", store.uri).splitlines() if " g " in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["g", "3", "·", "·", "·"]
    assert f"report: {store}/report/report.md" in run("report", store.uri)
    assert "3 runs done" in (store.paths.report / "report.md").read_text()

    local = alone(expand(load_grid(str(grid))), tmp_path / "S")
    columns = ["run_id", "error_best_val", "error_last", "error_best_test", "best_val_epoch", "wrong_labels"]
    remote_frame, local_frame = (load_results(s.root).frame[columns] for s in (store, local))
    assert remote_frame.equals(local_frame)
