"""Runs that `autodo launch`, `resume` and `retry` give to Ray."""

import json
import shutil
from pathlib import Path

import pytest

from autodo import data
from autodo.errors import DataError
from orchestration.execution.process import load_dataset
from orchestration.grid.grid import expand, load_grid
from orchestration.store.run_state import Cause, State
from orchestration.store.store import Store
from tests.orchestration.cli.conftest import FOLDER_SET, GRID, OPTIMISTIC, Launched, fill


def test_launching_a_grid_that_is_done_shows_its_table_and_starts_nothing(autodo, grid: str) -> None:
    fill(Store("S"), grid)
    answer = autodo("launch", grid, "--store", "S")
    assert answer.code == 0
    assert "10.00 ± 0.00" in answer.out
    assert "S/results/*.parquet" in answer.out
    assert "S/report/report.md" in answer.out
    assert "all 4 runs are done" in answer.out


def test_a_part_of_a_grid_is_launched(autodo, grid: str, instead_of_ray: list[Launched]) -> None:
    answer = autodo("launch", grid, "--store", "S", "--only", "method=baseline,seed=1", "--cpus-per-run", "2")
    assert answer.code == 0
    assert "all 1 runs of this part are done, 3 of 4 are left" in answer.out
    (job,) = instead_of_ray[0].jobs
    assert (job.run.method.name, job.run.seed, job.resources.cpus) == ("baseline", 1, 2)


def test_resume_runs_the_missing_runs_with_the_resources_of_their_grids(
    autodo, grid: str, tmp_path: Path, instead_of_ray: list[Launched]
) -> None:
    fill(Store("S"), grid, n=1)
    more = tmp_path / "more.yaml"
    more.write_text(GRID.replace("mine", "more").replace("seeds: 2", "seeds: [1, 2]") + "resources: {cpus: 3}\n")
    Store("S").save_grid(load_grid(str(more)))
    answer = autodo("resume", "S", "--time-budget", "1h30m", "--retries", "4")
    assert answer.code == 0
    assert "mine, more: 5 runs to do, 1 done; store S" in answer.out
    (launched,) = instead_of_ray
    assert (launched.options.seconds, launched.options.retries) == (5400.0, 4)
    assert {(job.run.seed, job.resources.cpus) for job in launched.jobs} == {(0, 1), (1, 3), (2, 3)}
    assert "all 6 runs are done" in answer.out
    assert autodo("resume", "S").code == 0
    assert len(instead_of_ray) == 1


def test_runs_that_were_given_up_are_left_out_until_they_are_retried(
    autodo, grid: str, instead_of_ray: list[Launched]
) -> None:
    store = Store("S").create()
    bad, worse, *_ = expand(load_grid(grid))
    for run in (bad, worse):
        store.begin(run)
        store.record_failure(run.run_id, kind="E", last_line="no luck", traceback="", cause=Cause.DIVERGED)
    answer = autodo("launch", grid, "--store", "S")
    assert answer.code == 1
    assert "2 failed (diverged): no luck" in answer.out
    assert "2 given up: `autodo retry S --failed` tries again" in answer.out
    assert not {bad.run_id, worse.run_id} & instead_of_ray[0].run_ids
    assert autodo("launch", grid, "--store", "S").code == 1
    assert "2 failed for good" in autodo("plan", grid, "--store", "S").out
    assert len(instead_of_ray) == 1, "nothing is left to do"

    assert autodo("retry", "S", bad.run_id).code == 0
    assert instead_of_ray[1].run_ids == {bad.run_id}
    assert autodo("retry", "S", "--failed").code == 0
    assert instead_of_ray[2].run_ids == {worse.run_id}
    assert "no run has failed" in autodo("retry", "S", "--failed").out


def test_a_failed_run_of_no_grid_is_retried_from_its_own_configuration(
    autodo, grid: str, instead_of_ray: list[Launched]
) -> None:
    store = Store("S").create()
    run = expand(load_grid(grid))[0]
    store.begin(run)
    store.record_failure(run.run_id, kind="E", last_line="no luck", traceback="")
    assert autodo("retry", "S", "--failed").code == 0
    assert instead_of_ray[0].jobs[0].run == run
    assert store.status.states([run.run_id]) == {run.run_id: State.DONE}


def test_a_refused_retry_forgets_no_failure(autodo, grid: str) -> None:
    store = Store("S").create()
    run = expand(load_grid(grid))[0]
    store.begin(run)
    store.record_failure(run.run_id, kind="E", last_line="no luck", traceback="", cause=Cause.DIVERGED)
    for wrong in (("--time-budget", "zz"), ("--address", "127.0.0.1:9"), ("--only", "seed=7")):
        assert autodo("retry", "S", "--failed", *wrong).code == 2
        assert store.status.failures()[run.run_id].last_line == "no luck"


def test_an_address_without_a_cluster_stops_a_launch_before_anything_is_written(
    autodo, grid: str, tmp_path: Path
) -> None:
    assert autodo("launch", grid, "--store", "S", "--address", "127.0.0.1:9").code == 2
    assert not (tmp_path / "S").exists()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], ()),
        (["--keep", "embeddings"], ("embeddings",)),
        (["--keep", "embeddings,models"], ("models", "embeddings")),
        (["--keep", "embeddings", "--keep", "models, embeddings"], ("models", "embeddings")),
    ],
)
def test_ray_gets_the_names_given_with_keep(
    autodo, grid: str, instead_of_ray: list[Launched], given: list[str], kept: tuple[str, ...]
) -> None:
    assert autodo("launch", grid, "--store", "S", *given).code == 0
    (launched,) = instead_of_ray
    assert launched.options.keep == kept


def test_a_grid_can_set_keep(autodo, grid: str, instead_of_ray: list[Launched]) -> None:
    Path(grid).write_text(GRID + "keep: [embeddings]\n")
    autodo("launch", grid, "--store", "S")
    assert [launched.options.keep for launched in instead_of_ray] == [("embeddings",)]
    Path(grid).write_text(GRID + "keep: [embedding]\n")
    assert "keep[0]: input should be 'models' or 'embeddings', not 'embedding'" in autodo("plan", grid).err


def test_a_launch_warns_of_done_runs_that_have_not_kept_something(
    autodo, grid: str, instead_of_ray: list[Launched]
) -> None:
    fill(Store("S"), grid, n=2)
    first = expand(load_grid(grid))[0]
    Store("S").paths.table("embeddings", first.run_id).write_bytes(b"")
    warning = "warning: {} of the 2 runs that are done have not kept their {}, and are not run again; "
    answer = autodo("launch", grid, "--store", "S", "--keep", "models,embeddings")
    printed = " ".join(answer.out.split())
    assert warning.format(2, "models") + "--keep models with another --store runs them again" in printed
    assert warning.format(1, "embeddings") in printed
    assert "not kept" not in autodo("launch", grid, "--store", "S").out


def test_resume_uses_the_options_of_the_launch(autodo, grid: str, instead_of_ray: list[Launched]) -> None:
    autodo(
        "launch",
        grid,
        "--store",
        "S",
        "--only",
        "seed=0",
        "--gpus-per-run",
        "0.5",
        "--memory-per-run",
        "2GiB",
        "--keep",
        "embeddings",
    )
    autodo("resume", "S", "--only", "method=baseline")
    autodo("resume", "S", "--keep", "models")
    assert [launched.options.keep for launched in instead_of_ray[1:]] == [("embeddings",), ("models", "embeddings")]
    (resources,) = {job.resources for job in instead_of_ray[1].jobs}
    assert (resources.gpus, resources.memory) == (0.5, 2 * 2**30)


def test_only_failed_runs_are_retried(autodo, grid: str) -> None:
    fill(Store("S"), grid, n=1)
    done, missing, *_ = expand(load_grid(grid))
    assert autodo("retry", "S", done.run_id).err == (
        f"error: {done.run_id}: has not failed, it is done; `autodo resume S` runs what is left\n"
    )
    assert "has not failed, it is missing" in autodo("retry", "S", missing.run_id).err
    assert "is not a run id" in autodo("retry", "S", "../../etc").err
    assert "nosuchrun: no run of S has this id" in autodo("retry", "S", "nosuchrun").err
    assert f"did you mean '{done.run_id}'" in autodo("retry", "S", done.run_id[:-1]).err
    for arguments in (("retry", "S"), ("retry", "S", done.run_id, "--failed")):
        answer = autodo(*arguments)
        assert (answer.code, answer.err.startswith("error: say which runs: either --failed")) == (2, True)


def test_a_missing_dataset_stops_a_launch_before_anything_is_written(
    autodo, grid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object, **options: object) -> None:
        raise DataError("digits: no such file")

    load_dataset.cache_clear()
    monkeypatch.setattr(data, "load", missing)
    answer = autodo("launch", grid, "--store", "S")
    assert (answer.code, answer.err) == (2, "error: digits: no such file\n")
    assert not (tmp_path / "S").exists()


def test_a_table_with_the_test_images_as_val_notes_that_errors_are_optimistic(
    autodo, grid: str, instead_of_ray: list[Launched]
) -> None:
    assert OPTIMISTIC not in autodo("launch", grid, "--store", "S").out
    Path(grid).write_text(GRID + "splits: [paper, test-as-val]\n")
    assert OPTIMISTIC in autodo("launch", grid, "--store", "S").out


def test_the_grid_in_the_store_names_the_images_that_were_launched(
    autodo, photos: Path, instead_of_ray: list[Launched]
) -> None:
    grid = GRID.replace("digits", "folder") + f"set: {json.dumps(FOLDER_SET)}\n"
    Path("mine.yaml").write_text(grid)

    assert "all 4 runs are done" in autodo("launch", "mine.yaml", "--store", "S").out
    assert load_dataset.cache_info().currsize == 0
    assert all(job.run.dataset.content is not None for job in instead_of_ray[0].jobs)
    assert "left: nothing" in autodo("plan", "mine.yaml", "--store", "S").out
    (photos / "cat" / "00.png").rename(photos / "dog" / "cat.png")
    assert "left: 4 runs" in autodo("plan", "mine.yaml", "--store", "S").out

    shutil.rmtree(photos)
    row = next(line for line in autodo("status", "S").out.splitlines() if " mine " in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["mine", "4", "·", "·", "·"]
    assert "(2/2)" not in autodo("report", "S").out
    answer = autodo("plan", "mine.yaml", "--store", "S")
    assert (answer.code, answer.err.partition(";")[0]) == (2, "error: photos: no such directory or file")
