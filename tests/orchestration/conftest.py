"""A store, and a run that is small and real."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from autodo.config import RunConfig
from autodo.recipes import build_run
from orchestration import lease
from orchestration.store import Store

SMALL = {"training.epochs": 3, "dataset.subsample": 300}


@pytest.fixture(scope="session", autouse=True)
def _home_of_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray keeps its token in HOME, and a process reads it only once: so there is one HOME for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").create()


@pytest.fixture(params=["local", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store on a path, and one in an object store."""
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.05)
    if request.param == "local":
        return Store(tmp_path / "store").create()
    return Store(f"{request.getfixturevalue('bucket')}/a/store").create()


@pytest.fixture
def run() -> RunConfig:
    """Three epochs of well under a second each."""
    return build_run("digits", "baseline", overrides=SMALL)
