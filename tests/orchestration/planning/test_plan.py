from pathlib import Path

import pytest

from autodo.errors import ConfigError
from orchestration.grid.grid import GridConfig, expand, variant_names
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.plan import (
    continued,
    expected_rows,
    jobs_left,
    launched_grids,
    local_slots,
    make_plan,
    select,
)
from orchestration.store.run_state import Cause, State
from orchestration.store.store import Store
from tests.runs import outcome, result_row


def grid(**changes: object) -> GridConfig:
    tree = {"name": "g", "datasets": ["digits"], "distortions": ["1-0.0"], "methods": ["baseline", "autodo-aws"]}
    return GridConfig.model_validate(tree | {"seeds": 2} | changes)


def test_only_runs_that_are_not_done_are_left(store: Store) -> None:
    runs = expand(grid())
    store.save(outcome(runs[0]), runs[0].run_id)
    store.record_failure(runs[1].run_id, kind="E", last_line="e", traceback="")
    plan = make_plan(runs, store)
    assert list(plan.left.values()) == runs[1:]
    assert plan.counts() == {State.DONE: 1, State.FAILED: 1, State.MISSING: 2}


def test_a_run_that_has_used_up_its_retries_or_diverged_is_given_up(store: Store) -> None:
    often, once, diverged, lost = expand(grid())
    for _ in range(3):
        store.record_failure(often.run_id, kind="E", last_line="e", traceback="")
        store.record_failure(lost.run_id, kind="E", last_line="e", traceback="", cause=Cause.NODE_LOST)
    store.record_failure(once.run_id, kind="E", last_line="e", traceback="")
    store.record_failure(diverged.run_id, kind="E", last_line="e", traceback="", cause=Cause.DIVERGED)
    runs = [often, once, diverged, lost]
    assert make_plan(runs, store, retries=2).given_up == {often.run_id, diverged.run_id}
    assert make_plan(runs, store, retries=3).given_up == {diverged.run_id}
    assert make_plan(runs, store, retries=0).left.keys() == {lost.run_id}
    store.forget_failures(diverged.run_id)
    assert make_plan(runs, store, retries=9).given_up == frozenset()


def test_a_part_of_a_grid_is_chosen_by_keys() -> None:
    runs = expand(grid(distortions=["1-0.0", "100-0.1"]))
    assert {run.method.name for run in select(runs, "method=baseline")} == {"baseline"}
    assert len(select(runs, "method=baseline,seed=0")) == 2
    assert len(select(runs, "method=baseline, method=autodo-aws, seed=1, distortion=100-0.1")) == 2
    assert select(runs, "dataset=digits,split=paper") == runs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("baseline", "--only 'baseline': is not KEY=VALUE, such as method=baseline; keys: dataset, distortion"),
        ("metod=baseline", "unknown key 'metod'"),
        ("method=autodo-awz", "unknown method 'autodo-awz'; did you mean 'autodo-aws'"),
        ("seed=7", "unknown seed '7'; known: 0, 1"),
        ("method=", "is not KEY=VALUE"),
    ],
)
def test_a_selection_that_fits_no_run_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select(expand(grid()), text)


@pytest.mark.parametrize("name", ["train+val+trivialaugment", "trivialaugment+train+val"])
def test_joined_methods_are_selected_in_any_order_also_those_whose_names_have_a_plus(name: str) -> None:
    runs = expand(grid(methods=["baseline", "trivialaugment+train+val"], distortions=["1-0.0"], seeds=1))
    (run,) = select(runs, f"method={name}")
    assert run.method.name == "train+val+trivialaugment"


def test_a_new_seed_adds_its_runs_alone(store: Store) -> None:
    for run in expand(grid()):
        store.save(outcome(run), run.run_id)
    plan = make_plan(expand(grid(seeds=3)), store)
    assert {run.seed for run in plan.left.values()} == {2}
    assert len(plan.left) == 2


def test_a_store_that_is_not_there_has_nothing_done(tmp_path: Path) -> None:
    assert len(make_plan(expand(grid()), Store(tmp_path / "none")).left) == 4


def test_the_jobs_of_a_plan_have_resources_and_expected_seconds(store: Store) -> None:
    runs = expand(grid())
    store.save(outcome(runs[0], seconds=10.0), runs[0].run_id)
    some = ResourcesConfig(cpus=3)
    plan = make_plan(runs, store)
    jobs = jobs_left(plan, store, dict.fromkeys(plan.runs, some))
    assert [one.run for one in jobs] == runs[1:]
    assert {one.resources for one in jobs} == {some}
    assert {one.expected_seconds for one in jobs} == {10.0}


def test_slots_are_known_for_cpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert local_slots(ResourcesConfig(cpus=3)) == 2
    assert local_slots(ResourcesConfig(cpus=9)) == 0
    assert local_slots(ResourcesConfig(cpus=1, gpus=0.5)) == 0


def test_expected_rows_are_the_identity_of_the_results() -> None:
    (run, *_) = expand(grid())
    (expected, *_) = expected_rows([run])
    row = result_row(run)
    rest = {key: value for key, value in expected.items() if key not in ("config", "variant")}
    assert rest == {key: row[key] for key in rest}


def test_runs_are_selected_by_the_variants_of_their_grid() -> None:
    variants = {"E10": {"outer.start_share": 0.25}, "E20": {"outer.start_share": 0.5}}
    given = grid(methods=["baseline", "autodo-aws"], variants=variants)
    runs, names = expand(given), variant_names(given)
    chosen = select(runs, "variant=E10", names)
    assert {(run.method.name, run.outer and run.outer.start_share) for run in chosen} == {("autodo-aws", 0.25)}
    assert {row["variant"] for row in expected_rows(chosen, names)} == {"E10"}
    with pytest.raises(ConfigError, match=r"--only.*E10, E20"):
        select(runs, "variant=E11", names)
    with pytest.raises(ConfigError, match="variant"):
        select(runs, "variant=E10")


def test_a_grid_that_was_launched_before_defaults_changed_means_the_same_runs(store: Store) -> None:
    given = grid(distortions=["1-0.0", "10-0.1"])
    store.save_grid(given)
    lines = store.paths.grid("g").read_text().splitlines(keepends=True)
    store.paths.grid("g").write_text("".join(line for line in lines if not line.startswith("protocol")))
    ((_, runs),) = launched_grids(store)[0].values()
    ids = {run.run_id for run in runs if run.seed == 0}
    assert ids == {
        *("digits_ir1_nr0_baseline_s0_9f659809", "digits_ir10_nr0.1_baseline_s0_2c82c927"),
        *("digits_ir1_nr0_autodo-aws_s0_31c2174b", "digits_ir10_nr0.1_autodo-aws_s0_6c637237"),
    }
    assert len(ids & {run.run_id for run in expand(given)}) == 1, "of the undistorted baseline nothing has changed"

    again, remark = continued(given, store)
    assert expand(again) == runs
    assert "g was launched on it under protocol 1 (distortion.minority: class, outer.schedule: shared" in remark
    assert continued(grid(protocol=2), store) == (grid(protocol=2), "")
    store.save_grid(again)
    assert expand(store.grids()["g"]) == runs  # type: ignore[arg-type]


def test_a_new_grid_has_the_present_defaults(store: Store) -> None:
    assert continued(grid(), store) == (grid(), "")
    store.save_grid(grid())
    assert continued(grid(), store) == (grid(), "")
    assert {run.run_id for run in launched_grids(store)[0]["g"][1]} == {run.run_id for run in expand(grid())}
