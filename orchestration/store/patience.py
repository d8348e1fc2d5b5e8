"""How long to retry writes to storage that fails, and to wait for a run that another process executes."""

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from autodo.errors import StoreError, StoreRefused
from autodo.io.retry import retry
from autodo.io.storage import Location
from orchestration.store import lease

logger = logging.getLogger("autodo")
T = TypeVar("T")

WRITE_SECONDS = 300.0
"""Patience with a store that is full or does not answer."""
FAILURE_WRITE_SECONDS = 10.0
"""The same for why a run failed, which is worth less than its results."""
BUSY_SECONDS = 20.0
"""Patience with a run that another process executes: it may belong to a killed launch, which releases its locks within
seconds."""


class Retry(Protocol):
    """Calls an action until it succeeds or patience is over."""

    def __call__(self, action: Callable[[], T]) -> T: ...


def retrying_storage(seconds: float) -> Retry:
    """A Retry for actions on storage. What the storage refuses for good, such as a link out of the store, is raised."""

    def call(action: Callable[[], T]) -> T:
        return retry(action, patience, on_failure=warn)

    def patience(error: Exception) -> float:
        return seconds if isinstance(error, StoreError) and not isinstance(error, StoreRefused) else 0.0

    def warn(error: Exception, left: float) -> None:
        logger.warning("%s; trying again for %.0f s", error, left)

    return call


def busy_seconds(root: Location) -> float:
    """Patience with a run that another process executes; a lease in an object store outlives its owner."""
    return BUSY_SECONDS if root.local is not None else BUSY_SECONDS + lease.STALE_SECONDS
