"""What a launch takes besides its runs: measured, kept, estimated; and nothing of it where nothing is to be done."""

import datetime
import itertools
import socket
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import orchestration
from orchestration.cli import app, run_jobs
from orchestration.display.grid_progress import GridProgress
from orchestration.grid.grid import expand, load_grid
from orchestration.planning import launch_times
from orchestration.planning.launch_times import LaunchKind, LaunchTimes, Overhead, expected_overhead, record
from orchestration.planning.run_queue import Job
from orchestration.store.store import Store
from tests.runs import outcome

GRID = """
name: mine
datasets: [digits]
distortions: ["1-0.0"]
methods: [baseline]
seeds: 2
set: {training.epochs: 2}
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTODO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    Path("mine.yaml").write_text(GRID)


@pytest.fixture
def autodo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `autodo ARGUMENTS` prints."""
    from rich.console import Console

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["autodo", *arguments])
        monkeypatch.setattr(app, "console", Console(width=200))
        with pytest.raises(SystemExit):
            app.main()
        return capsys.readouterr().out

    return call


def fill(store: Store, n: int, error: float = 0.1) -> None:
    store.create().save_grid(load_grid("mine.yaml"))
    for run in expand(load_grid("mine.yaml"))[:n]:
        errors = dict.fromkeys(("error_best_val", "error_last", "error_best_test", "minority_error"), error)
        store.save(outcome(run, **errors, seconds=60.0, versions=[]), run.run_id)


def times(first_step: float, **other: Any) -> LaunchTimes:
    parts = {"start": 1.0, "first_step": first_step, "runs": 100.0, "shutdown": 1.0, "report": 2.0, "end": 2.5}
    kind = {"host": socket.gethostname(), "several_workers": False, "joined": False}
    return LaunchTimes.model_validate({"time": datetime.datetime.now(datetime.UTC), **kind, **parts, **other})


def test_the_next_launch_is_expected_to_take_as_long_as_the_last_ones_of_its_kind() -> None:
    store, other = Store("S").create(), Store("T").create()

    def first_step(store: Store, several_workers: bool = False) -> float:
        return expected_overhead(store, LaunchKind(several_workers, joined=False)).first_step

    guess = first_step(store)
    assert first_step(store, several_workers=True) > guess > 0
    record(store, times(100.0, host="elsewhere"))
    assert first_step(store) == 100.0
    for seconds in (50.0, 7.0, 9.0, 8.0):
        record(store, times(seconds))
    record(store, times(30.0, several_workers=True))
    assert first_step(store) == 8.0
    assert first_step(store, several_workers=True) == 30.0
    assert expected_overhead(other, LaunchKind(False, False)) == Overhead(1.0, 8.0, 2.5)
    for _ in range(30):
        record(store, times(1.0))
    assert Path("S/launches.json").read_text().count('"host"') == launch_times.KEPT


def test_unreadable_or_unwritable_launch_times_are_no_error() -> None:
    store = Store("S").create()
    Path("cache").write_text("a file in the place of the folder")
    Path("S/launches.json").write_text("[{")
    record(store, times(3.0))
    assert expected_overhead(store, LaunchKind(False, False)).first_step == 3.0
    Path("S/launches.json").unlink()
    Path("S/launches.json").mkdir()
    record(store, times(3.0))
    assert expected_overhead(store, LaunchKind(False, False)) == launch_times._GUESS[False]


def test_the_remaining_time_has_the_start_and_the_end() -> None:
    run, *_ = expand(load_grid("mine.yaml"))
    now = [0.0]
    job = Job(run.run_id, run, load_grid("mine.yaml").resources, expected_seconds=60.0)
    progress = GridProgress([job], first_step_seconds=10.0, end_seconds=5.0, clock=lambda: now[0])
    assert progress.remaining_seconds() == 75.0
    now[0] = 4.0
    progress.started(run.run_id)
    assert progress.remaining_seconds() == 71.0
    now[0] = 50.0
    assert progress.remaining_seconds() == 65.0
    progress.epoch(run.run_id, 0, 0.5, seconds=30.0)
    assert progress.remaining_seconds() == 35.0
    assert progress.first_step_at == 20.0
    progress.epoch(run.run_id, 1, 0.5, seconds=30.0)
    progress.ended(run.run_id, "done")
    assert progress.remaining_seconds() == 5.0
    assert progress.last_end_at == 50.0


def test_several_workers_are_started_for_every_run(autodo: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    store = Store("S").create()
    record(store, times(8.5, several_workers=True))
    fill(store, 1)
    Path("mine.yaml").write_text(GRID.replace("seeds: 2", "seeds: 3"))
    out = autodo("plan", "mine.yaml", "--store", "S", "--workers-per-run", "2")
    # 1.0 to start, twice 8.5 and 60, 2.5 at the end.
    assert "\nstart-up and report take about 20 s more: about 2 min 20 s in all here\n" in out

    resources = load_grid("mine.yaml").resources.model_copy(update={"workers": 2})
    runs = expand(load_grid("mine.yaml"))[1:]
    jobs = [Job(run.run_id, run, resources, expected_seconds=60.0) for run in runs]
    progress = GridProgress(jobs, first_step_seconds=8.5, end_seconds=2.5)
    assert progress.remaining_seconds() == 2 * 68.5 + 2.5
    for job in jobs:
        progress.started(job.run_id)
        assert progress.remaining_seconds() == (2 - jobs.index(job)) * 68.5 + 2.5
        for epoch in (0, 1):
            progress.epoch(job.run_id, epoch, 0.5, seconds=30.0)
        progress.ended(job.run_id, "done")


def test_plan_counts_start_up_and_report(autodo: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    store = Store("S").create()
    record(store, times(8.5))
    assert "\nstart-up and report take about 12 s more\n" in autodo("plan", "mine.yaml", "--store", "S")
    fill(store, 1)
    out = autodo("plan", "mine.yaml", "--store", "S")
    assert "\nstart-up and report take about 12 s more: about 1 min 12 s in all here\n" in out
    fill(store, 2)
    assert "start-up" not in autodo("plan", "mine.yaml", "--store", "S")


def test_a_launch_records_the_times_of_its_parts(autodo: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(100.0)

    def launch(jobs: list[Job], store: Store, *_: object, overhead: Overhead, **__: object) -> GridProgress:
        assert overhead == launch_times._GUESS[False]
        progress = GridProgress(jobs, clock=lambda: next(clock))
        fill(store, len(jobs))
        for job in jobs:
            progress.started(job.run_id)
            progress.epoch(job.run_id, 0, 0.5, seconds=0.25)
            progress.ended(job.run_id, "done")
        return progress

    module = types.ModuleType("orchestration.launch")
    monkeypatch.setattr(module, "launch", launch, raising=False)
    monkeypatch.setitem(sys.modules, "orchestration.launch", module)
    monkeypatch.setattr(orchestration, "launch", module, raising=False)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    # A download of the data, which the next launch need not repeat.
    monkeypatch.setattr(run_jobs, "_check_data", lambda *_: [next(clock) for _ in range(1000)])
    autodo("launch", "mine.yaml", "--store", "S")
    (kept,) = launch_times._read(Store("S").paths.launches)
    assert min(kept.start, kept.first_step, kept.report, kept.end) > 0
    assert kept.start < 1000
    assert kept.runs == 2.25  # ends are 2 ticks apart
    assert launch_times._read(launch_times._machine_file()) == [kept]


def test_with_nothing_to_do_neither_ray_nor_torch_nor_the_plots_are_imported(
    autodo: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store("S")
    fill(store, 2)
    assert "unchanged" not in autodo("launch", "mine.yaml", "--store", "S")
    with monkeypatch.context() as patch:
        for name in ("ray", "torch", "scipy.stats", "matplotlib", "reports.write", "orchestration.ray_cluster.session"):
            patch.setitem(sys.modules, name, None)
        out = autodo("launch", "mine.yaml", "--store", "S")
    assert "report:  S/report/report.html\n" in out
    assert "unchanged, since the results are the same; `autodo report S` writes it again\n" in out
    assert "all 2 runs are done" in out

    before = Path("S/report/report.md").read_text()
    fill(store, 2, error=0.2)
    assert "unchanged" not in autodo("launch", "mine.yaml", "--store", "S")
    assert Path("S/report/report.md").read_text() != before
    autodo("report", "S", "--select", "seed=0")
    assert "unchanged" not in autodo("launch", "mine.yaml", "--store", "S")
