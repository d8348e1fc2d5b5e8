from pathlib import Path

import pytest

from orchestration.grid import GridConfig, ResourcesConfig, expand
from orchestration.plan import expected_rows, local_slots, make_plan, seconds_left, wall_seconds
from orchestration.run_state import State
from orchestration.store import Store
from tests.runs import outcome, result_row


def grid(**changes: object) -> GridConfig:
    tree = {"name": "g", "datasets": ["digits"], "distortions": ["1-0.0"], "methods": ["baseline", "autodo-aws"]}
    return GridConfig.model_validate(tree | {"seeds": 2} | changes)


def test_only_what_is_not_done_is_left(store: Store) -> None:
    runs = expand(grid())
    store.save(outcome(runs[0]), runs[0].run_id)
    store.record_failure(runs[1].run_id, kind="E", last_line="e", traceback="")
    plan = make_plan(runs, store)
    assert plan.left == tuple(runs[1:])
    assert plan.counts() == {State.DONE: 1, State.FAILED: 1, State.MISSING: 2}
    assert plan.only([State.FAILED]).left == (runs[1],)
    assert plan.only([State.MISSING]).left == tuple(runs[2:])


def test_a_new_seed_adds_its_runs_alone(store: Store) -> None:
    for run in expand(grid()):
        store.save(outcome(run), run.run_id)
    plan = make_plan(expand(grid(seeds=3)), store)
    assert {run.seed for run in plan.left} == {2}
    assert len(plan.left) == 2


def test_a_store_that_is_not_there_has_nothing_done(tmp_path: Path) -> None:
    assert len(make_plan(expand(grid()), Store(tmp_path / "none")).left) == 4


def test_time_is_estimated_from_the_same_method_then_from_the_same_recipe(store: Store) -> None:
    runs = expand(grid())
    assert seconds_left(make_plan(runs, store), store) is None
    baseline = runs[0]
    store.save(outcome(baseline, seconds=10.0), baseline.run_id)
    # One more baseline, and two of a method that is taken to cost the same.
    assert seconds_left(make_plan(runs, store), store) == pytest.approx([10.0, 10.0, 10.0])
    store.save(outcome(runs[1], seconds=40.0), runs[1].run_id)
    assert seconds_left(make_plan(runs, store), store) == pytest.approx([10.0, 40.0])
    other_recipe = expand(grid(set={"training.epochs": 3}))
    assert seconds_left(make_plan([*runs, *other_recipe], store), store) is None


@pytest.mark.parametrize(
    ("seconds", "slots", "wall"),
    [([], 2, 0.0), ([5.0, 5.0, 5.0], 1, 15.0), ([5.0, 5.0, 5.0], 2, 10.0), ([1.0, 1.0, 9.0], 2, 10.0), ([3.0], 8, 3.0)],
)
def test_runs_side_by_side_take_as_long_as_the_busiest_slot(seconds: list[float], slots: int, wall: float) -> None:
    assert wall_seconds(seconds, slots) == wall


def test_slots_are_known_for_cpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert local_slots(ResourcesConfig(cpus=3)) == 2
    assert local_slots(ResourcesConfig(cpus=9)) == 0
    assert local_slots(ResourcesConfig(cpus=1, gpus=0.5)) == 0


def test_a_damaged_result_makes_the_time_unknown_and_nothing_worse(store: Store) -> None:
    runs = expand(grid())
    store.table_file("results", runs[0].run_id).write_bytes(b"PAR1")
    assert seconds_left(make_plan(runs, store), store) is None


def test_expected_rows_are_the_identity_of_the_results() -> None:
    (run, *_) = expand(grid())
    (expected, *_) = expected_rows([run])
    row = result_row(run)
    assert {key: row[key] for key in expected if key != "config"} == {
        key: value for key, value in expected.items() if key != "config"
    }
