"""The checks of a GPU, on a CPU: in small, and what becomes of the table when a check fails or hangs."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from autodo.data import DATASETS
from benchmarks import gpu, gpu_checks
from benchmarks.gpu_checks import Setting
from benchmarks.table import ROWS, Row, read_rows
from tests.conftest import require_or_skip

TELL = "from benchmarks.table import Row, record_rows; record_rows(Row('a', 1.0, 'x')); {then}"
SMALL = Setting("cpu", small=True)
# The other checks train, and take more than a second each.
FAST = ("batch_norm", "gradients", "storage", "nccl", "speed")


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that gets the rows of this process; torch's settings are put back."""
    monkeypatch.setenv(ROWS, str(tmp_path / "rows"))
    threads = torch.get_num_threads()
    yield tmp_path / "rows"
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def assert_met(path: Path) -> list[Row]:
    found = read_rows(path)
    assert found
    assert [row for row in found if row.met is False] == []
    return found


def test_every_check_is_there() -> None:
    assert set(gpu.CHECKS) == set(gpu_checks.CHECKS)


@pytest.mark.parametrize("name", FAST)
@pytest.mark.filterwarnings("ignore:.*jit.script:FutureWarning", "ignore:.*deprecated:DeprecationWarning")
def test_a_check_in_small(name: str, rows: Path) -> None:
    gpu_checks.run([name], SMALL)
    assert_met(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(gpu.CHECKS) - {*FAST, "run", "compiled"}))
@pytest.mark.filterwarnings("ignore:.*jit.script:FutureWarning", "ignore:.*deprecated:DeprecationWarning")
def test_the_other_checks_in_small(name: str, rows: Path) -> None:
    gpu_checks.run([name], SMALL)
    assert_met(rows)


def test_the_real_run_in_small(rows: Path) -> None:
    folder = DATASETS["fashion-mnist"].system_dir
    assert folder is not None
    require_or_skip(folder)
    gpu_checks.run(["run"], Setting("cpu", small=True, data_dir=folder))
    assert any("outer passes" in row.what for row in assert_met(rows))


def test_a_check_that_fails_or_hangs_costs_only_itself(capfd: pytest.CaptureFixture[str]) -> None:
    commands = {
        "fails": [sys.executable, "-c", TELL.format(then="raise ValueError('no such thing')")],
        "hangs": [sys.executable, "-c", TELL.format(then="import time; time.sleep(600)")],
        "late": [sys.executable, "-c", TELL.format(then="")],
    }
    found = [row for row in gpu.measured(commands, 3.0) if isinstance(row[1], str) or row[1].unit == "x"]
    assert found[:2] == [("fails", Row("a", 1.0, "x")), ("fails", "failed: ValueError: no such thing")]
    assert [str(row).partition(" after")[0] for name, row in found if name == "hangs"][-1] == "stopped"
    assert found[-1] == ("late", "left out: no time was left")
    capfd.readouterr()


def test_an_unknown_check_is_answered_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["nothing"])
    assert "unknown check 'nothing'; known: device, policies" in capsys.readouterr().err


def test_the_checks_import_neither_ray_nor_reports() -> None:
    code = "import sys, benchmarks.gpu_checks; print({'ray', 'reports', 'orchestration', 'pandas'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
