"""How far a run is, and why it ended when it did not end well."""

import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class State(StrEnum):
    """How far a run is, told from the store's files alone."""

    DONE = "done"
    FAILED = "failed"
    STARTED = "started"  # begun and neither done nor failed: interrupted, or running now
    MISSING = "missing"


class Failure(BaseModel):
    """Why an attempt at a run ended: runs/<run_id>/failure.json."""

    model_config = ConfigDict(frozen=True)

    kind: str
    """Class of the exception; `ProcessDied` if the process was gone."""
    last_line: str
    traceback: str
    attempts: int
    """How many attempts have failed so far."""
    time: datetime.datetime


class RunBusy(RuntimeError):
    """Another process is at work on this run, and so nobody else may be."""
