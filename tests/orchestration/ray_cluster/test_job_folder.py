"""A relative store inside the temporary folder of a Ray job is refused before anything is written."""

from pathlib import Path

import pytest

from autodo.errors import StoreError
from orchestration.cli import app
from orchestration.ray_cluster.job_folder import check_outlasts_job
from orchestration.store.store import Store

LAUNCH = ["launch", "quickstart"]
TRAIN = ["train", "--dataset", "digits", "--method", "baseline"]


@pytest.fixture
def job_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a job, where Ray 2.60 has it."""
    folder = tmp_path / "ray" / "session_1" / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123456789abcdef"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("command", [[*LAUNCH, "--store", "outputs/mine"], LAUNCH, [*TRAIN, "--store", "S"], TRAIN])
def test_a_relative_store_is_refused_with_the_remedy(
    command: list[str], job_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["autodo", *command])
    with pytest.raises(SystemExit) as ended:
        app.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert f"{job_folder}/" in line
    assert "give --store an absolute path that all nodes share, or a URI such as s3://" in line
    assert not list(job_folder.iterdir())


def test_a_store_elsewhere_is_accepted(job_folder: Path, tmp_path: Path) -> None:
    check_outlasts_job(Store(tmp_path / "shared"))
    with pytest.raises(StoreError, match="temporary folder of this Ray job"):
        check_outlasts_job(Store(tmp_path / "shared" / ".." / job_folder.relative_to(tmp_path) / "deep"))
