"""A store, and a run that is small and real."""

from pathlib import Path

import pytest

from autodo.config import RunConfig
from autodo.recipes import build_run
from orchestration.store import Store

SMALL = {"training.epochs": 3, "dataset.subsample": 300}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").create()


@pytest.fixture
def run() -> RunConfig:
    """Three epochs of well under a second each."""
    return build_run("digits", "baseline", overrides=SMALL)
