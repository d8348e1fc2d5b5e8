"""`autodo status`."""

import pytest

from autodo.config.recipes import build_run
from orchestration.grid.grid import expand, load_grid
from orchestration.store.status import StoreStatus
from orchestration.store.store import Store
from tests.orchestration.cli.conftest import fill
from tests.runs import outcome


def test_status_counts_by_grid_and_groups_failures(autodo, grid: str) -> None:
    store = Store("S")
    fill(store, grid, n=1)
    for run in expand(load_grid(grid))[1:3]:
        store.record_failure(run.run_id, kind="E", last_line="out of luck", traceback="")
    answer = autodo("status", "S")
    assert answer.code == 0
    assert "2 failed (error): out of luck" in answer.out
    row = next(line for line in answer.out.splitlines() if " mine " in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["mine", "1", "2", "·", "1"]


def test_status_distinguishes_runs_at_work_from_interrupted_ones(autodo, grid: str) -> None:
    fill(Store("S"), grid, n=1)
    store = Store("S")
    _, working, interrupted, _ = expand(load_grid(grid))
    store.begin(interrupted)
    with store.attempt(working.run_id) as attempt:
        store.begin(working)
        attempt.log.write("2026-01-01 epoch 7: train loss 0.1\n")
        attempt.log.flush()
        out = autodo("status", "S").out
    assert "1 run at work:" in out
    assert f"  {working.run_id}: 2026-01-01 epoch 7: train loss 0.1\n" in out
    assert "1 run interrupted" in out
    assert "left: 3 runs, about 3 min 00 s of training (0.05 core-hours), one at a time now" in out


def test_a_run_that_begins_or_ends_while_status_looks_is_not_called_interrupted(
    autodo, grid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(Store("S"), grid, n=1)
    store = Store("S")
    _, ends, begins, _ = expand(load_grid(grid))
    store.begin(ends)
    store.begin(begins)
    at_work = StoreStatus.at_work
    looks: list[str] = []

    def look(self: StoreStatus, run_id: str) -> bool:
        looks.append(run_id)
        if run_id == ends.run_id and len(looks) <= 2:
            store.save(outcome(ends, error_best_val=0.1, error_last=0.1, versions=[]), run_id)
        return at_work(self, run_id) or (run_id == begins.run_id and len(looks) > 2)

    monkeypatch.setattr(StoreStatus, "at_work", look)
    out = autodo("status", "S").out
    assert "interrupted" not in out


def test_a_run_whose_policy_train_searches_is_at_work(autodo, grid: str) -> None:
    store = Store("S").create()
    run = build_run("digits", "dada-searched", overrides={"training.epochs": 2})
    store.begin(run)
    assert "1 run interrupted: `autodo resume S` continues" in autodo("status", "S").out
    with store.search_attempt(str(run.search_id)):
        out = autodo("status", "S").out
    assert "interrupted" not in out
    assert f"1 run at work:\n  {run.run_id}: starting\n" in out


def test_a_watched_store_is_shown_until_nothing_is_left(autodo, grid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestration.cli import status

    fill(Store("S"), grid, n=3)
    monkeypatch.setattr(status.time, "sleep", lambda _: fill(Store("S"), grid))
    out = autodo("status", "S", "--watch").out
    rows = [line.split("│")[1:-1] for line in out.splitlines() if " mine " in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells == [["mine", "3", "·", "·", "1"], ["mine", "4", "·", "·", "·"]]
