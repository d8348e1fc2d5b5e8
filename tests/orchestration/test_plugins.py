"""A grid over plug-ins and an own network, launched on Ray, killed, resumed, reported; and its store without them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autodo import plugins
from orchestration.execution.options import ExecutionOptions
from orchestration.execution.trial import RunTrial
from orchestration.grid.grid import expand, load_grid, pin_plugins
from orchestration.store.store import Store
from tests.orchestration.undisturbed import alone, check_no_epoch_was_lost, metrics
from tests.pages import write_files

ROOT = Path(__file__).parents[2]
FILES = ("plugins/focal.py", "plugins/shapes.py")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_registry", plugins._Registry())


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The example of the docs."""
    write_files(ROOT / "docs/how-to/plug-ins.md", tmp_path)
    return tmp_path


@pytest.fixture
def loaded(study: Path) -> Iterator[Path]:
    for file in FILES:
        plugins.load_file(study / file)
    return study


def options(study: Path) -> list[str]:
    return [word for file in FILES for word in ("--plugin", str(study / file))]


def autodo(study: Path, *words: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "HOME": str(study), "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "orchestration.cli", *words]
    return subprocess.Popen(
        command, cwd=study, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_process_of_ray_loads_the_plugins_before_it_reads_the_run(
    loaded: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = expand(load_grid(str(loaded / "grids/study.yaml")))[1]
    files = plugins.files()
    sent = ExecutionOptions(plugins=files).model_dump(mode="json")
    config: dict[str, Any] = {"run_id": run.run_id, "run": run.model_dump(mode="json"), "store": store.uri}
    monkeypatch.setattr(plugins, "_registry", plugins._Registry())
    trial = object.__new__(RunTrial)
    trial.setup({**config, "options": sent})
    assert [trial.step()["state"] for _ in range(run.training.epochs + 1)] == ["running"] * run.training.epochs + [
        "done"
    ]
    results = store.paths.table("results", run.run_id).read_parquet().to_pylist()[0]
    versions = dict(results["versions"])
    assert {name: versions[name] for name in ("focal.py", "shapes.py")} == {file.name: file.content for file in files}
    # A plug-in that fails here, such as for lack of a package, fails the run with one line.
    broken = plugins.PluginFile("/plugins/broken.py", "import no_such_module\n")
    trial.setup({**config, "options": ExecutionOptions(plugins=(broken,)).model_dump(mode="json")})
    failure = trial.step()["failure"]
    assert "node" in failure["last_line"]
    assert "--plugin /plugins/broken.py: cannot be imported: line 1: ModuleNotFoundError" in failure["last_line"]


def test_a_grid_in_a_store_says_which_plugins_it_lacks(
    loaded: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = load_grid(str(loaded / "grids/study.yaml"))
    store.save_grid(pin_plugins(grid))
    store.save_plugins(plugins.files())
    assert list(store.grids()["study"].plugins) == ["dataset shapes", "method focal", "objective focal"]
    (copy,) = Path(store.root).glob("plugins/focal-*.py")
    assert copy.read_text() == (loaded / "plugins/focal.py").read_text()
    monkeypatch.setattr(plugins, "_registry", plugins._Registry())
    assert "its runs need focal.py and shapes.py, not loaded here: give files with --plugin" in str(
        store.grids()["study"]
    )
    plugins.load_file(loaded / "plugins/shapes.py")
    assert "its runs need focal.py, not loaded here" in str(store.grids()["study"])
    changed = loaded / "focal.py"
    changed.write_text(copy.read_text() + "# changed\n")
    plugins.load_file(changed)
    assert "focal.py has changed since the launch (method focal had the code" in str(store.grids()["study"])
    # The copy has the old code, under whatever name.
    monkeypatch.setattr(plugins, "_registry", plugins._Registry())
    plugins.load_file(loaded / "plugins/shapes.py")
    plugins.load_file(copy)
    assert [run.run_id for run in expand(store.grids()["study"])] == [run.run_id for run in expand(grid)]


@pytest.mark.parametrize("key", ["plugins: 3", "plugins: {a: b}", "plugins: {ab: {source: x, code: y}}"])
def test_a_damaged_grid_is_one_error(key: str, store: Store) -> None:
    (Path(store.root) / "grids/g.yaml").write_text(f"name: g\n{key}\n")
    assert "g.yaml" in str(store.grids()["g"])


@pytest.mark.slow
def test_a_grid_over_plugins_is_killed_resumed_and_reported(
    loaded: Path, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(study / "S")
    (study / "own_nets.py").write_text("from tests.autodo.models.own_networks import with_dropout as make\n")
    monkeypatch.syspath_prepend(study)
    settings = ("--set", "training.epochs=30", "--set", "model.name=own_nets:make")
    launch = ("launch", "grids/study.yaml", "--store", "S", *options(study), *settings)
    first = autodo(study, *launch)
    deadline = time.monotonic() + 300
    while first.poll() is None and not list(study.glob("S/runs/*/checkpoint.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    left = list(study.glob("S/runs/*/checkpoint.pt"))
    assert left, "a run was killed"
    resume = autodo(study, "resume", "S", *options(study))
    out, _ = resume.communicate(timeout=300)
    assert resume.returncode == 0, out
    assert "all 4 runs are done" in out
    runs = expand(store.grids()["study"])
    attempts = [check_no_epoch_was_lost(store.paths.log(run.run_id).read_text()) for run in runs]
    assert sum(attempts) > len(runs)
    undisturbed = alone(runs, study / "undisturbed")
    for run in runs:
        assert metrics(store, run.run_id) == metrics(undisturbed, run.run_id)
    # Without the plug-ins.
    report = autodo(study, "report", "S", "--format", "md")
    out, _ = report.communicate(timeout=100)
    assert report.returncode == 0, out
    page = (study / "S/report/report.md").read_text()
    for part in ("| focal |", "shapes (own_nets:make, 30 epochs)", f"| focal.py | {plugins.files()[0].content}"):
        assert part in page
    assert "its runs need focal.py and shapes.py, not loaded here" in " ".join(page.split())
