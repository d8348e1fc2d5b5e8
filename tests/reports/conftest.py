"""Stores of synthetic results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.io.storage import Location, locate
from autodo.results import records
from tests.runs import result_row


def make(method: str = "baseline", distortion: str = "1-0.0", seed: int = 0, **options: Any) -> RunConfig:
    return build_run("digits", method, distortion=DistortionConfig.parse(distortion), seed=seed, **options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    return tmp_path


@pytest.fixture
def upload(root: Path, bucket: str) -> Callable[[], Location]:
    """Copy the store at `root` to an object store, and return its location there."""

    def copy() -> Location:
        there = locate(bucket) / "S"
        for path in (path for kind in records.SCHEMAS for path in (root / kind).glob("*")):
            (there / path.parent.name / path.name).upload(path)
        return there

    return copy


@pytest.fixture
def add(root: Path) -> Callable[..., Path]:
    """Write the result of a run by `add(run, error_best_val=0.1)`; errors that are not given are 0.5."""

    def write(run: RunConfig, **values: Any) -> Path:
        path = root / "results" / f"{run.run_id}.parquet"
        errors = dict.fromkeys(("error_best_val", "error_last", "error_best_test"), 0.5)
        records.write("results", records.table("results", [result_row(run, **(errors | values))]), path)
        return path

    return write
