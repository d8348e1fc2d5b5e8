"""The directory of a launch goes with it, or with the next one."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.store.scratch import scratch_directory, sweep

ROOT = Path(__file__).parents[3]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another launch, that has a child of its own, as Ray's processes are."""
    code = (
        "import pathlib, subprocess, sys, time\n"
        "from orchestration.store.scratch import scratch_directory\n"
        f"with scratch_directory(pathlib.Path({str(tmp_path)!r})) as path:\n"
        "    child = subprocess.Popen(['sleep', '60'])\n"
        "    (path / 'session').mkdir(); (path / 'session' / 'log').write_text('x')\n"
        "    print(child.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = process.stdout.readline().strip()
        yield process
        process.kill()
        subprocess.run(["kill", child], check=False)


def test_the_directory_is_removed_at_the_end_of_the_launch(tmp_path: Path) -> None:
    with scratch_directory(tmp_path) as path:
        (path / "file").write_text("x")
        assert sweep(tmp_path) == []
        assert (path / "file").exists()
    assert list(tmp_path.iterdir()) == []


def test_the_next_launch_removes_the_directory_of_a_killed_one(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    (left,) = tmp_path.iterdir()
    assert sweep(tmp_path) == []
    other.kill()
    other.wait()
    with scratch_directory(tmp_path) as mine:
        assert sweep(tmp_path) == [left]  # although its child lives
        assert list(tmp_path.iterdir()) == [mine]


def test_sweep_leaves_other_directories_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "autodo-notes"
    foreign.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "launch.lock").touch()
    (tmp_path / "autodo-link").symlink_to(elsewhere)
    (tmp_path / "autodo-file").touch()
    linked = tmp_path / "autodo-linked"
    linked.mkdir()
    (linked / "launch.lock").symlink_to(elsewhere / "launch.lock")
    before = sorted(tmp_path.rglob("*"))
    assert sweep(tmp_path) == []
    assert sorted(tmp_path.rglob("*")) == before
