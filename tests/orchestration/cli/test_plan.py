"""`autodo plan`."""

from pathlib import Path

import pytest

from orchestration.grid.grid import expand, load_grid
from orchestration.store.store import Store
from tests.orchestration.cli.conftest import GRID, fill


def test_a_misspelt_grid_file_gets_the_nearest_names(autodo, grid: str, tmp_path: Path) -> None:
    printed = autodo("plan", str(tmp_path / "mime.yml")).err
    assert printed.startswith(f"error: {tmp_path}/mime.yml: no such file; did you mean '{grid}'?; known: ")
    assert "; did you mean 'mine.yaml'?; known: " in autodo("plan", "mime").err


def test_a_single_value_where_a_grid_needs_a_list_is_an_error(autodo, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("{name: g, datasets: digits, distortions: 1-0.0, methods: baseline, seeds: 1}")
    assert autodo("plan", "g.yaml").err.splitlines() == [
        "error: g.yaml: datasets: must be a list: [digits]",
        "error: g.yaml: distortions: must be a list: [1-0.0]",
        "error: g.yaml: methods: must be a list: [baseline]",
    ]


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


def test_a_plan_follows_only_and_resources(autodo, grid: str) -> None:
    fill(Store("S"), grid, n=1)
    out = autodo("plan", grid, "--store", "S", "--only", "seed=0", "--gpus-per-run", "1").out
    assert "left: 1 run, about 1 min 00 s of training (0.017 GPU-hours)" in out
    repeated = ("--only", "seed=0", "--only", "seed=1", "--only", "method=randaugment+baseline")
    assert "unknown method 'randaugment+baseline'" in autodo("plan", grid, "--store", "S", *repeated).err
    assert "left: 3 runs" in autodo("plan", grid, "--store", "S", *repeated[:4]).out
