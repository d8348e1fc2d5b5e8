"""The command line in this process; Ray is in test_launch.py."""

import json
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

import orchestration
from autodo import data
from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.config.shipped import dataset_names, grid_names
from autodo.errors import DataError
from orchestration.cli import app
from orchestration.display.grid_progress import GridProgress
from orchestration.execution.process import load_dataset
from orchestration.grid.grid import expand, load_grid
from orchestration.planning.run_queue import Job
from orchestration.store.run_state import Cause, State
from orchestration.store.status import StoreStatus
from orchestration.store.store import Store
from tests.runs import outcome

SMALL = ("--set", "training.epochs=2", "--set", "dataset.subsample=300")
COMMANDS = ("launch", "resume", "retry", "plan", "train", "status", "report", "methods", "datasets", "grids")
TRAIN = ("train", "--dataset", "digits", "--method", "baseline", *SMALL)
OPTIMISTIC = "note: in the split test-as-val the test images are val: its errors are optimistic"
GRID = """
name: mine
datasets: [digits]
distortions: ["1-0.0"]
methods: [baseline, autodo-aws]
seeds: 2
"""


class Answer(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def autodo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Answer]:
    """Runs `autodo ARGUMENTS` in an empty working directory."""
    from rich.console import Console

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def call(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["autodo", *arguments])
        monkeypatch.setattr(app, "console", Console(width=120))
        with pytest.raises(SystemExit) as caught:
            app.main()
        return Answer(int(caught.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def grid(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(GRID)
    return str(path)


def fill(store: Store, grid: str, n: int | None = None) -> None:
    store.create().save_grid(load_grid(grid))
    for run in expand(load_grid(grid))[:n]:
        errors = dict.fromkeys(("error_best_val", "error_last", "error_best_test", "minority_error"), 0.1)
        store.save(outcome(run, **errors, seconds=60.0, versions=[]), run.run_id)


class Launched(NamedTuple):
    """What Ray was given to run."""

    jobs: list[Job]
    options: Any

    @property
    def run_ids(self) -> set[str]:
        return {job.run_id for job in self.jobs}


@pytest.fixture
def instead_of_ray(monkeypatch: pytest.MonkeyPatch) -> list[Launched]:
    """Launches end at once, with a result for each run, and are listed here."""
    launched: list[Launched] = []

    def launch(jobs: list[Job], store: Store, *_: object, options: Any, **__: object) -> GridProgress:
        launched.append(Launched(jobs, options))
        for job in jobs:
            store.begin(job.run)
            store.save(outcome(job.run, error_best_val=0.1, error_last=0.1, versions=[]), job.run_id)
        return GridProgress(jobs)

    module = types.ModuleType("orchestration.launch")
    monkeypatch.setattr(module, "launch", launch, raising=False)
    monkeypatch.setitem(sys.modules, "orchestration.launch", module)
    monkeypatch.setattr(orchestration, "launch", module, raising=False)
    return launched


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["plan", "quickstart", "--frob"], "No such option: --frob"),
        (["plan", "quickstrat"], "unknown grid 'quickstrat'; did you mean 'quickstart'?; known: "),
        (["plan", "quickstart", "--set", "training.epochs"], "--set 'training.epochs' is not KEY=VALUE"),
        (["plan", "quickstart", "--set", "training.epoch=2"], "training.epoch: unknown key; did you mean 'epochs'?"),
        (["launch", "quickstart", "--set", "seed=2"], "--set seed: is spanned by the grid; change its seeds instead"),
        (["train", "--dataset", "digits", "--method", "autodo-awz"], "unknown method 'autodo-awz'; did you mean"),
        (["train", "--dataset", "digit", "--method", "baseline"], "unknown dataset 'digit'; did you mean 'digits'"),
        (["train", "--dataset", "digits"], "Missing option '--method'"),
        ([*TRAIN, "--ir", "0.5"], "--ir, --nr: imbalance_ratio: input should be greater than or equal to 1, not 0.5"),
        ([*TRAIN, "--nr", "1"], "--ir, --nr: noise_ratio: input should be less than 1, not 1.0"),
        ([*TRAIN, "--device", "tpu"], "--device 'tpu': is not one of auto, cpu, cuda, cuda:<n>"),
        ([*TRAIN, "--device", "meta"], "--device 'meta': is not one of auto, cpu, cuda, cuda:<n>"),
        ([*TRAIN, "--device", "cpu:0"], "--device 'cpu:0': is not one of auto, cpu, cuda, cuda:<n>"),
        (["plan", "qickstart.yaml"], "qickstart.yaml: no such file; did you mean 'quickstart'?; known: "),
        (["plan", "nowhere/mine"], "nowhere/mine: no such file; known: "),
        (["plan", ""], "unknown grid ''; known: "),
        (
            ["plan", "quickstart", "--store", sys.executable],
            "is a file; a store is a directory, or a URI such as s3://",
        ),
        (["methods", "autodo-awz"], "unknown method 'autodo-awz'; did you mean"),
        (["status", "nowhere"], "nowhere: no such store"),
        (["resume", "nowhere"], "nowhere: no such store"),
        (["retry", "nowhere", "--failed"], "nowhere: no such store"),
        (["launch", "quickstart", "--time-budget", "2 hours"], "--time-budget '2 hours': is not a time such as 2h"),
        (["launch", "quickstart", "--time-budget", "0h"], "--time-budget '0h': is not a time such as 2h"),
        (
            ["launch", "quickstart", "--keep", "embedings"],
            "--keep: unknown name 'embedings'; did you mean 'embeddings'?",
        ),
        (["launch", "quickstart", "--keep", "models,"], "--keep: unknown name ''; known: models, embeddings"),
        (
            [*TRAIN, "--keep", "model"],
            "--keep: unknown name 'model'; did you mean 'models'?; known: models, embeddings",
        ),
        ([*TRAIN, "--set", "method.images=val", "--split", "test-as-val"], "method.images 'val' trains on val, which"),
        (["launch", "quickstart", "--only", "method=autodo-awz"], "unknown method 'autodo-awz'; did you mean"),
        (["launch", "quickstart", "--memory-per-run", "8"], "resources: memory: 8 bytes are less than a MiB; give a"),
        (["launch", "quickstart", "--memory-per-run", "much"], "resources: memory: could not parse"),
        (
            ["launch", "quickstart", "--gpus-per-run", "0.5", "--workers-per-run", "2"],
            "resources: gpus must be a whole number when workers > 1 (got gpus=0.5, workers=2)",
        ),
        (
            ["launch", "quickstart", "--gpus-per-run", "1.5"],
            "resources: gpus must be a whole number, or a share below 1",
        ),
        (["report", "."], ".: is not a store"),
        (["status", "s4://bucket/S"], "s4://bucket/S: unknown scheme 's4'"),
        (["launch", "quickstart", "--store", "s3://AKIA:c2Vj@bucket/S"], "s3://***@bucket/S: contains credentials"),
        ([*TRAIN, "--store", "s3://AKIA:c2Vj@bucket/S"], "s3://***@bucket/S: contains credentials"),
        ([*TRAIN, "--preset", "cpu"], "preset 'cpu': dataset 'digits' has no such preset; its recipe has none"),
    ],
)
def test_an_error_of_the_user_is_one_line_and_exit_code_2(autodo, arguments: list[str], message: str) -> None:
    answer = autodo(*arguments)
    assert answer.code == 2
    assert "Traceback" not in answer.err
    (line,) = answer.err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_help_and_version(autodo) -> None:
    assert autodo("--version").out.startswith("autodo ")
    for arguments, code in ((["--help"], 0), ([], 2)):
        answer = autodo(*arguments)
        assert answer.code == code
        assert answer.err == ""
        assert all(command in answer.out for command in COMMANDS)


def test_a_store_of_a_later_format_is_refused_by_every_command(autodo, grid: str, tmp_path: Path) -> None:
    fill(Store("S"), grid, n=1)
    (done,) = Store("S").status.done()
    (tmp_path / "S/store.json").write_text('{"format": 3, "more": 1}')
    before = sorted((tmp_path / "S").rglob("*"))
    commands = [
        ["launch", grid, "--store", "S"],
        ["plan", grid, "--store", "S"],
        ["resume", "S"],
        ["retry", "S", "--failed"],
        ["status", "S"],
        ["report", "S"],
        ["inspect", "S", done],
        ["policy", "show", "S"],
        [*TRAIN, "--store", "S"],
    ]
    for command in commands:
        answer = autodo(*command)
        assert answer.code == 2, command
        assert answer.err == (
            "error: S: a store of format 3, written by a later version of autodo; this version reads formats up to 2: "
            "update it, or use another store\n"
        ), command
    assert sorted((tmp_path / "S").rglob("*")) == before


def test_a_misspelt_grid_file_is_answered_with_those_that_are_near(autodo, grid: str, tmp_path: Path) -> None:
    told = autodo("plan", str(tmp_path / "mime.yml")).err
    assert told.startswith(f"error: {tmp_path}/mime.yml: no such file; did you mean '{grid}'?; known: ")
    assert "; did you mean 'mine.yaml'?; known: " in autodo("plan", "mime").err


def test_what_is_a_list_in_a_grid_is_asked_for_as_one(autodo, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("{name: g, datasets: digits, distortions: 1-0.0, methods: baseline, seeds: 1}")
    assert autodo("plan", "g.yaml").err.splitlines() == [
        "error: g.yaml: datasets: must be a list: [digits]",
        "error: g.yaml: distortions: must be a list: [1-0.0]",
        "error: g.yaml: methods: must be a list: [baseline]",
    ]


@pytest.mark.parametrize(
    ("device", "built", "there", "message"),
    [
        ("cuda", None, 0, "torch 9.9+cpu is built without CUDA; give --device cpu, or leave it out"),
        ("cuda:1", "13.0", 0, "torch finds no GPU here (does nvidia-smi?); give --device cpu, or leave it out"),
        ("cuda:1", "13.0", 1, "there is 1 GPU, cuda:0"),
        ("cuda:4", "13.0", 4, "there are 4 GPUs, cuda:0 to cuda:3"),
        ("cuda:3", "13.0", 4, "cannot be used: it is busy; give --device cpu, or leave it out"),
    ],
)
def test_a_gpu_that_is_not_there_is_told_in_our_words(
    autodo, monkeypatch: pytest.MonkeyPatch, device: str, built: str | None, there: int, message: str
) -> None:
    import torch

    def busy(*_: object, **__: object) -> None:
        raise RuntimeError("it is busy\nand more")

    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch, "__version__", "9.9+cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(torch, "zeros", busy)
    answer = autodo(*TRAIN, "--device", device)
    assert answer.err == f"error: --device {device!r}: {message}\n"
    assert answer.code == 2


def test_a_method_is_shown_with_all_that_it_sets(autodo) -> None:
    out = autodo("methods", "randaugment+ldam-drw").out
    assert out.splitlines()[0].strip() == "ldam-drw+randaugment"
    for part in ("larger margins for rare classes", "Cubuk et al.", "methods/randaugment.yaml", "kind: ldam-drw\n"):
        assert part in out
    assert "both:\n  nothing\n" in autodo("methods", "baseline").out


def test_datasets_and_grids_are_listed(autodo) -> None:
    listed = autodo("datasets").out.splitlines()
    assert [line.split()[0] for line in listed[1:-1] if line[0] != " "] == dataset_names()
    (digits,) = (line for line in listed if line.startswith("digits"))
    assert re.split("  +", digits.strip())[1:] == [
        "1,797 scans of handwritten digits, gray, 8x8, 10 classes", "included in scikit-learn", "small-cnn", "40"
    ]  # fmt: skip
    listed = autodo("grids").out.splitlines()
    rows = [re.split("  +", line.strip()) for line in listed[1:-1]]
    assert [row[0] for row in rows] == grid_names()
    assert all(len(row) == 4 and row[1] and row[3] for row in rows), "a summary and a cost in each, on one line"
    assert rows[-1] == [
        "quickstart",
        "AutoDO on digits; nothing to download",
        "16",
        "1 minute on 2 cores",
    ]


def test_methods_are_listed_with_what_they_learn(autodo) -> None:
    assert "baseline" in autodo("methods").out
    assert "soft labels" in autodo("methods").out


def test_plan_counts_what_is_left_and_writes_nothing(
    autodo, grid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = autodo("plan", grid, "--store", "S")
    assert answer.code == 0
    assert "4 runs; time unknown" in answer.out
    assert not (tmp_path / "S").exists()
    fill(Store("S"), grid, n=2)
    left = "left: 2 runs, about 2 min 00 s of training"
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    left += " (0.033 core-hours)"
    assert f"{left}, about 1 min 00 s at 2 at a time here\n" in autodo("plan", grid, "--store", "S").out
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert f"{left}, one at a time here\n" in autodo("plan", grid, "--store", "S").out
    Path(grid).write_text(GRID + "resources: {gpus: 0.5}\n")
    left = left.replace("0.033 core", "0.017 GPU")
    assert f"{left}\n" in autodo("plan", grid, "--store", "S").out
    listed = autodo("plan", grid, "--store", "S", "--list").out.splitlines()
    assert [line.split()[0] for line in listed] == ["done", "done", "missing", "missing"]
    assert listed[0].split()[1] == expand(load_grid(grid))[0].run_id


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


def test_report_shows_holes_and_says_where_it_lies(autodo, grid: str, tmp_path: Path) -> None:
    fill(Store("S"), grid, n=2)
    (tmp_path / "S" / "results" / "cut.parquet").write_bytes(b"PAR1")
    answer = autodo("report", "S")
    assert answer.code == 0
    assert "10.00 (1/2)" in answer.out
    assert "warning: S/results/cut.parquet: left out: damaged" in answer.out
    assert "report: S/report/report.md" in answer.out
    assert (tmp_path / "S/report/report.md").exists()


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


def test_what_the_grids_of_a_store_lack_is_resumed_with_the_resources_of_each(
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


def test_a_retry_that_does_not_come_about_forgets_no_failure(autodo, grid: str) -> None:
    store = Store("S").create()
    run = expand(load_grid(grid))[0]
    store.begin(run)
    store.record_failure(run.run_id, kind="E", last_line="no luck", traceback="", cause=Cause.DIVERGED)
    for wrong in (("--time-budget", "zz"), ("--address", "127.0.0.1:9"), ("--only", "seed=7")):
        assert autodo("retry", "S", "--failed", *wrong).code == 2
        assert store.status.failures()[run.run_id].last_line == "no luck"


def test_an_address_where_nothing_answers_stops_a_launch_before_anything_is_written(
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
def test_what_a_launch_is_to_keep_is_told_to_ray(
    autodo, grid: str, instead_of_ray: list[Launched], given: list[str], kept: tuple[str, ...]
) -> None:
    assert autodo("launch", grid, "--store", "S", *given).code == 0
    (launched,) = instead_of_ray
    assert launched.options.keep == kept


def test_a_grid_says_what_its_runs_keep(autodo, grid: str, instead_of_ray: list[Launched]) -> None:
    Path(grid).write_text(GRID + "keep: [embeddings]\n")
    autodo("launch", grid, "--store", "S")
    assert [launched.options.keep for launched in instead_of_ray] == [("embeddings",)]
    Path(grid).write_text(GRID + "keep: [embedding]\n")
    assert "keep[0]: input should be 'models' or 'embeddings', not 'embedding'" in autodo("plan", grid).err


def test_a_launch_that_is_to_keep_what_done_runs_have_not_kept_says_so(
    autodo, grid: str, instead_of_ray: list[Launched]
) -> None:
    fill(Store("S"), grid, n=2)
    first = expand(load_grid(grid))[0]
    Store("S").paths.table("embeddings", first.run_id).write_bytes(b"")
    warning = "warning: {} of the 2 runs that are done have not kept their {}, and are not run again; "
    answer = autodo("launch", grid, "--store", "S", "--keep", "models,embeddings")
    told = " ".join(answer.out.split())
    assert warning.format(2, "models") + "--keep models with another --store runs them again" in told
    assert warning.format(1, "embeddings") in told
    assert "not kept" not in autodo("launch", grid, "--store", "S").out


def test_what_a_launch_asked_for_is_asked_for_again_by_resume(
    autodo, grid: str, instead_of_ray: list[Launched]
) -> None:
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


def test_a_plan_is_of_the_part_and_the_resources_that_are_asked_for(autodo, grid: str) -> None:
    fill(Store("S"), grid, n=1)
    out = autodo("plan", grid, "--store", "S", "--only", "seed=0", "--gpus-per-run", "1").out
    assert "left: 1 run, about 1 min 00 s of training (0.017 GPU-hours)" in out


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


def test_status_tells_runs_at_work_from_interrupted_ones(autodo, grid: str) -> None:
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


def test_train_runs_once_then_shows_what_it_has(autodo) -> None:
    first = autodo(*TRAIN)
    assert (first.code, first.err) == (0, "")
    assert "test error, epoch of lowest val error" in first.out
    assert len(Store("outputs/single").status.done()) == 1
    second = autodo(*TRAIN)
    assert second.code == 0
    assert second.out.startswith("done before; nothing to do\n")


def test_train_of_a_run_that_a_launch_did_without_its_classifier_says_how_to_get_it(autodo, grid: str) -> None:
    fill(Store("S"), grid, n=1)
    answer = autodo("train", "--dataset", "digits", "--method", "baseline", "--store", "S")
    assert answer.code == 0
    assert answer.out.splitlines()[0] == (
        "done before; nothing to do. It has not kept its models: the same command with another --store does"
    )


def test_train_keeps_the_embeddings_if_asked_to_and_says_when_it_is_too_late(autodo) -> None:
    assert autodo(*TRAIN, "--store", "without").code == 0
    late = autodo(*TRAIN, "--store", "without", "--keep", "embeddings")
    told = " ".join(late.out.split())
    assert "It has not kept its embeddings: the same command with another --store does" in told
    assert not Store("without").status.kept("embeddings", Store("without").status.done())
    assert autodo(*TRAIN, "--store", "S", "--keep", "embeddings").code == 0
    done = Store("S").status.done()
    assert Store("S").status.kept("embeddings", done) == Store("S").status.kept("models", done) == done


def test_train_on_the_test_images_as_val_says_what_that_is_worth(autodo) -> None:
    answer = autodo(*TRAIN, "--split", "test-as-val")
    assert answer.code == 0
    assert OPTIMISTIC in answer.out
    assert OPTIMISTIC not in autodo(*TRAIN).out


def test_a_table_with_the_test_images_as_val_says_what_that_is_worth(
    autodo, grid: str, instead_of_ray: list[Launched]
) -> None:
    assert OPTIMISTIC not in autodo("launch", grid, "--store", "S").out
    Path(grid).write_text(GRID + "splits: [paper, test-as-val]\n")
    assert OPTIMISTIC in autodo("launch", grid, "--store", "S").out


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of 12 images of 8x8, each image another gray."""
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("L", (8, 8), 100 * k + i).save(tmp_path / "photos" / name / f"{i:02}.png")
    return tmp_path / "photos"


FOLDER_SET = {
    "dataset.path": "photos",
    "dataset.image_size": 8,
    "model.name": "small-cnn",
    "training.epochs": 2,
    "training.warmup_epochs": 0,
}


def test_train_on_other_images_is_another_run(autodo, photos: Path) -> None:
    overrides = [part for key, value in FOLDER_SET.items() for part in ("--set", f"{key}={value}")]
    train = ("train", "--dataset", "folder", "--method", "baseline", "--store", "S", *overrides)
    assert autodo(*train).code == 0
    assert autodo(*train).out.startswith("done before")
    for file in ("00.png", "01.png"):
        (photos / "cat" / file).rename(photos / "dog" / f"cat-{file}")
    answer = autodo(*train)
    assert answer.code == 0
    assert "done before" not in answer.out
    assert len(Store("S").status.done()) == 2


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


def test_train_that_diverges_is_one_line_and_exit_code_1(autodo) -> None:
    answer = autodo(*TRAIN, "--set", "training.lr=1e20", "--store", "S")
    assert answer.code == 1
    (line,) = answer.err.splitlines()
    assert line.startswith("error: the train loss is not finite in epoch 0")
    assert len(Store("S").status.failures()) == 1


def test_train_with_an_unforeseen_error_says_where_the_traceback_is(autodo, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(data, "prepare", broken)
    answer = autodo(*TRAIN, "--store", "S")
    assert answer.code == 1
    assert "failed: RuntimeError: a bug; traceback in S/runs/" in answer.out
    assert "Traceback" not in answer.out + answer.err
    (failure,) = Store("S").status.failures().values()
    assert "in broken" in failure.traceback


def test_train_interrupted_continues(autodo, monkeypatch: pytest.MonkeyPatch) -> None:
    from autodo.training.trainer import Trainer

    run_epoch = Trainer.train_epoch

    def interrupted_in_the_second(self: Trainer, epoch: int) -> object:
        if epoch == 1 and self._checkpoint is not None:  # not while an epoch is only timed
            raise KeyboardInterrupt
        return run_epoch(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", interrupted_in_the_second)
        answer = autodo(*TRAIN, "--store", "S")
    assert answer.code == 130
    assert "interrupted after epoch 1/2; the same command continues" in answer.out
    assert autodo(*TRAIN, "--store", "S").code == 0
    (log,) = Path("S/runs").glob("*/log.txt")
    assert "from epoch 1 of 2" in log.read_text()


def test_train_says_that_the_store_has_the_run_with_older_defaults(autodo) -> None:
    distortion = DistortionConfig(imbalance_ratio=10)
    settings = {"training.epochs": 2, "training.warmup_epochs": 1, "dataset.subsample": 300}
    older = build_run("digits", "baseline", distortion=distortion, overrides=settings, protocol=1)
    Store("S").create().begin(older)
    overrides = [f"--set={key}={value}" for key, value in settings.items()]
    command = ["train", "--dataset", "digits", "--method", "baseline", "--store", "S", *overrides, "--ir"]
    says = "S has this run as it was with older defaults (distortion.minority: class"
    assert says in autodo(*command, "10").out
    assert says not in autodo(*command, "5").out


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "quickstart"], ["methods"], ["grids"]])
def test_quick_commands_are_quick(arguments: list[str], tmp_path: Path) -> None:
    code = f"import sys; sys.argv = ['autodo', *{arguments!r}]; from orchestration.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], check=True, capture_output=True, text=True)
    # What takes the time is what is imported.
    imports = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"torch", "ray", "pandas"} & imports


def test_a_grid_that_cannot_be_read_is_named_in_the_report(autodo, grid: str, tmp_path: Path) -> None:
    launched = autodo("train", "--dataset", "digits", "--method", "baseline", "--store", "S", *SMALL)
    assert launched.code == 0
    (tmp_path / "S/grids").mkdir(exist_ok=True)
    (tmp_path / "S/grids/mine.yaml").write_text("xx: [")
    answer = autodo("report", "S", "--format", "html", "--out", "R")
    assert answer.code == 0
    assert "its missing runs are unknown" in answer.out.replace("\n", " ")
    assert "its missing runs are unknown" in (tmp_path / "R/report.html").read_text()
    assert {path.name for path in (tmp_path / "R").iterdir()} >= {"report.html"}
    assert not (tmp_path / "R/report.md").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "pdf"), "unknown format 'pdf'"),
        (("--metric", "eror_last"), "unknown metric 'eror_last'; did you mean 'error_last'?"),
        (("--select", "method=autodo"), "--select 'method=autodo': unknown method 'autodo'"),
        (("--out", "file"), "file: cannot be written"),
    ],
)
def test_what_report_cannot_do_is_told_before_anything_is_written(
    autodo, tmp_path: Path, arguments: tuple[str, str], message: str
) -> None:
    (tmp_path / "file").touch()
    autodo("train", "--dataset", "digits", "--method", "baseline", "--store", "S", *SMALL)
    answer = autodo("report", "S", *arguments)
    assert answer.code == 2
    assert message in answer.err
    assert not (tmp_path / "S/report/report.html").exists()


@pytest.mark.slow
def test_a_streamed_folder_is_trained_on_inspected_and_reported(autodo, tmp_path, monkeypatch) -> None:
    import numpy as np
    import pyarrow.parquet as pq

    from autodo.data.stream.pool import close_pools

    monkeypatch.setenv("AUTODO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AUTODO_LOADER_WORKERS", raising=False)
    generator = np.random.default_rng(0)
    for label in range(3):
        (tmp_path / "images" / f"kind{label}").mkdir(parents=True)
        for number in range(70):
            pixels = generator.normal(60 + 60 * label, 30, (40, 50, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / f"kind{label}" / f"{number}.jpg")
    keys = {
        "dataset.path": "images",
        "dataset.stream": "true",
        "dataset.image_size": "24",
        "augmentation.resized_crop": "[0.3, 1]",
        "model.name": "small-cnn",
        "training.epochs": "3",
        "training.warmup_epochs": "1",
        "training.batch_size": "32",
        "outer.start_share": "0.3",
    }
    overrides = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    command = ("train", "--dataset", "folder", "--method", "autodo-exact-ws", "--nr", "0.3", *overrides, "--store", "S")
    answer = autodo(*command, "--keep", "embeddings", "--loader-workers", "1", "--checkpoint-steps", "2")
    close_pools()
    assert answer.code == 0, answer
    store = Store("S")
    (run_id,) = store.status.done()
    points = pq.read_table(str(store.paths.table("points", run_id)))
    assert points.num_rows == round(0.8 * 0.8 * 210)
    assert points["thumbnail"].null_count < points.num_rows
    assert all(source.endswith(".jpg") for source in points["source"].to_pylist())
    shown = autodo("inspect", "S", run_id, "--out", "I")
    assert shown.code == 0, shown
    assert "kind" in shown.out
    assert autodo("report", "S").code == 0
    html = Path("S/report/report.html")
    assert "data:image/png" in html.read_text()
