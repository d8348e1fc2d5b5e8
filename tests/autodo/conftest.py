"""Fixtures for several packages of autodo."""

from collections.abc import Iterator

import pytest

from autodo.testing.process_groups import WorkerPool


@pytest.fixture(scope="session")
def pool() -> Iterator[WorkerPool]:
    """Three processes, started once because it takes seconds."""
    pool = WorkerPool(3)
    yield pool
    pool.close()
