"""What the tests of several packages of autodo share."""

from collections.abc import Iterator

import pytest

from tests.workers import Pool


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """Three processes that train together; to start them takes seconds."""
    pool = Pool(3)
    yield pool
    pool.close()
