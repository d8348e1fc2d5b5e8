"""The command line in this process, and launches without Ray."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

import orchestration
from orchestration.cli import app
from orchestration.display.grid_progress import GridProgress
from orchestration.grid.grid import expand, load_grid
from orchestration.planning.run_queue import Job
from orchestration.store.store import Store
from tests.runs import outcome

SMALL = ("--set", "training.epochs=2", "--set", "dataset.subsample=300")
TRAIN = ("train", "--dataset", "digits", "--method", "baseline", *SMALL)
OPTIMISTIC = "note: in the split test-as-val the test images are val: its errors are optimistic"
GRID = """
name: mine
datasets: [digits]
distortions: ["1-0.0"]
methods: [baseline, autodo-aws]
seeds: 2
"""
FOLDER_SET = {
    "dataset.path": "photos",
    "dataset.image_size": 8,
    "model.name": "small-cnn",
    "training.epochs": 2,
    "training.warmup_epochs": 0,
}


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


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of 12 images of 8x8, each image another gray."""
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("L", (8, 8), 100 * k + i).save(tmp_path / "photos" / name / f"{i:02}.png")
    return tmp_path / "photos"
