"""`autodo launch`, `resume` and `retry` to their exit codes, without Ray and with runs that are only acted."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autodo.errors import DataError
from orchestration.grid.grid import expand, load_grid
from orchestration.planning.run_queue import RunQueue
from orchestration.store import lease
from orchestration.store.run_state import State
from orchestration.store.store import Store
from tests.orchestration.cli.conftest import GRID, Answer
from tests.orchestration.undisturbed import alone, metrics

SETTINGS = "set: {training.epochs: 6, dataset.subsample: 300}\n"
Autodo = Callable[..., Answer]
pytestmark = pytest.mark.usefixtures("without_ray")


@pytest.fixture
def grid(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(GRID + "set: {training.epochs: 4, training.warmup_epochs: 0}\n")
    return str(path)


def test_a_launch_is_done_and_has_its_table_and_report(autodo: Autodo, grid: str, actor: Any) -> None:
    answer = autodo("launch", grid, "--store", "S")
    assert (answer.code, answer.err) == (0, "")
    assert "mine: 4 runs to do, 0 done; store S" in answer.out
    assert "4 of 4 runs done, 0 running" in answer.out
    assert "S/report/report.md" in answer.out
    assert "all 4 runs are done" in answer.out
    assert sorted(actor.began) == sorted(run.run_id for run in expand(load_grid(grid)))
    assert autodo("launch", grid, "--store", "S").code == 0
    assert len(actor.began) == 4


@pytest.mark.parametrize(
    ("stop", "code", "reason", "then"),
    [
        ([signal.SIGINT], 130, "interrupted", "launch"),
        ([signal.SIGTERM], 130, "interrupted", "resume"),
        ([signal.SIGINT] * 2, 130, "interrupted", "launch"),
        ([], 124, "out of time", "resume"),
    ],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C twice", "time budget"],
)
def test_a_launch_that_stops_says_so_and_the_next_command_continues(
    autodo: Autodo,
    grid: str,
    actor: Any,
    monkeypatch: pytest.MonkeyPatch,
    stop: list[signal.Signals],
    code: int,
    reason: str,
    then: str,
) -> None:
    stopped: list[str] = []

    def stop_in_the_second_run() -> None:
        if len(actor.began) == 2 and not stopped:
            stopped.append(actor.began[-1])
            for one in stop:
                signal.raise_signal(one)

    actor.scripts = {run.run_id: [[0, stop_in_the_second_run, 1, 2, 3]] for run in expand(load_grid(grid))}
    with monkeypatch.context() as patch:
        patch.setattr(RunQueue, "out_of_time", property(lambda _: bool(stopped and not stop)))
        answer = autodo("launch", grid, "--store", "S", "--max-concurrent", "1")
    done = Store("S").status.done()
    assert (answer.code, done) == (code, {actor.began[0]})
    assert answer.out.splitlines()[-1] == f"{reason}: 1 of 4 runs are done; the same command continues"
    assert Store("S").status.states(stopped) == {stopped[0]: State.STARTED}
    answer = autodo(*(("launch", grid, "--store", "S") if then == "launch" else ("resume", "S")))
    assert answer.code == 0
    assert "all 4 runs are done" in answer.out
    assert {run_id: actor.began.count(run_id) for run_id in [*done, *stopped]} == {actor.began[0]: 1, stopped[0]: 2}


def test_a_run_that_fails_for_good_is_reported_and_retried(autodo: Autodo, grid: str, actor: Any) -> None:
    bad = expand(load_grid(grid))[1]
    actor.scripts = {bad.run_id: [[0, DataError("no images")]] * 3}
    answer = autodo("launch", grid, "--store", "S", "--retries", "1")
    assert answer.code == 1
    assert actor.began.count(bad.run_id) == 2
    assert "no images; it is tried again" in answer.out
    assert "1 failed (error): no images" in answer.out
    assert "1 of 4 runs failed; 1 given up: `autodo retry S --failed` tries again" in answer.out
    assert autodo("launch", grid, "--store", "S", "--retries", "1").code == 1
    assert actor.began.count(bad.run_id) == 2, "it is given up"
    assert Store("S").status.states([bad.run_id]) == {bad.run_id: State.FAILED}
    # Its failures forgotten, the run has all of its attempts again.
    answer = autodo("retry", "S", "--failed", "--retries", "1")
    assert (answer.code, actor.began.count(bad.run_id)) == (0, 4)
    assert Store("S").status.failures() == {}
    assert autodo("launch", grid, "--store", "S").code == 0


def test_a_run_of_another_launch_is_left_to_it(
    autodo: Autodo, grid: str, actor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration.planning import run_queue
    from orchestration.store import patience
    from orchestration.store.run_state import RunBusy

    monkeypatch.setattr(run_queue, "BUSY_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(patience, "BUSY_SECONDS", 0.0)
    other = expand(load_grid(grid))[0]
    actor.scripts = {other.run_id: [[RunBusy("elsewhere")]] * 1000}
    answer = autodo("launch", grid, "--store", "S")
    assert answer.code == 0
    assert "1 of 4 runs are left; another launch is running them, or they have not started" in answer.out


def test_a_launch_on_an_object_store_continues_and_ends_as_on_a_local_one(
    autodo: Autodo, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.05)
    grid = tmp_path / "mine.yaml"
    grid.write_text(GRID.replace("autodo-aws", "autodo-exact-aws").replace("seeds: 2", "seeds: 1") + SETTINGS)
    store = Store(f"{bucket}/team/S")
    runs = expand(load_grid(str(grid)))
    begun = property(lambda _: any(store.paths.checkpoint(run.run_id).exists() for run in runs))
    with monkeypatch.context() as patch:
        patch.setattr(RunQueue, "out_of_time", begun)
        answer = autodo("launch", str(grid), "--store", store.uri, "--max-concurrent", "1")
    assert answer.code == 124
    interrupted = [
        run_id for run_id, state in store.status.states([run.run_id for run in runs]).items() if state == "started"
    ]
    assert interrupted
    assert not any(store.status.at_work(run_id) for run_id in interrupted)
    # One at a time, since what a process logs goes to the logs of all runs that it is at work on.
    answer = autodo("launch", str(grid), "--store", store.uri, "--max-concurrent", "1")
    assert answer.code == 0
    assert "all 2 runs are done" in answer.out
    assert f"{store}/report/report.md" in answer.out
    for run_id in interrupted:
        starts = store.paths.log(run_id).read_text().split("from epoch ")[1:]
        assert (len(starts), starts[-1].startswith("0 ")) == (2, False)
    assert all(store.paths.run(run.run_id).names() == {"config.json", "log.txt"} for run in runs)
    row = next(line for line in autodo("status", store.uri).out.splitlines() if " mine " in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["mine", "2", "·", "·", "·"]
    assert f"report: {store}/report/report.md" in autodo("report", store.uri).out
    assert "2 runs done" in (store.paths.report / "report.md").read_text()
    local = alone(runs, tmp_path / "S")
    for run in runs:
        assert metrics(store, run.run_id) == metrics(local, run.run_id)
