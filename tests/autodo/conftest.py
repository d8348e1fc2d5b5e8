"""What the tests of several packages of autodo share."""

from collections.abc import Iterator

import pytest

from autodo.testing.process_groups import WorkerPool


@pytest.fixture(scope="session")
def pool() -> Iterator[WorkerPool]:
    """Three processes that train together; to start them takes seconds."""
    pool = WorkerPool(3)
    yield pool
    pool.close()
