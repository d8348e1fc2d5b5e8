"""State of a run, and why it ended when it did not end well."""

import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class State(StrEnum):
    """State of a run, from the store's files alone."""

    DONE = "done"
    FAILED = "failed"
    STARTED = "started"  # begun and neither done nor failed: interrupted, or running now
    MISSING = "missing"


class Cause(StrEnum):
    """Why an attempt at a run ended; it decides whether the run is tried again."""

    ERROR = "error"  # an exception: a bug, missing data, a store that cannot be written
    DIVERGED = "diverged"  # a value became NaN or infinite; the next attempt would go the same way
    OUT_OF_MEMORY = "out of memory"  # of the GPU or of the machine
    KILLED = "killed"  # the process ended without an exception
    NODE_LOST = "node lost"  # the machine went away or was preempted, which is no fault of the run


class Failure(BaseModel):
    """Why the last attempt at a run ended: runs/<run_id>/failure.json."""

    model_config = ConfigDict(frozen=True)

    cause: Cause = Cause.ERROR
    kind: str
    """Class of the exception; `ProcessDied` if the process was gone."""
    last_line: str
    traceback: str
    attempts: int
    """Failed attempts so far, without losses of a node."""
    nodes_lost: int = 0
    """Attempts that ended because their node was lost."""
    time: datetime.datetime

    @property
    def counts(self) -> bool:
        """Whether the failure is held against the run."""
        return self.cause is not Cause.NODE_LOST

    def given_up(self, retries: int) -> bool:
        """Whether no launch tries the run again: after `retries` further attempts, or if none can help."""
        return self.counts and (self.cause is Cause.DIVERGED or self.attempts > retries)


class RunBusy(RuntimeError):
    """Another process executes this run."""


class WorkerDied(RuntimeError):
    """A process that trains a run with others is gone, or its node is; the text is Ray's message."""
