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


class Cause(StrEnum):
    """Why an attempt at a run ended; it decides whether the run is tried again."""

    ERROR = "error"  # an exception: a bug, missing data, a store that cannot be written
    DIVERGED = "diverged"  # a value became NaN or infinite; the next attempt would go the same way
    OUT_OF_MEMORY = "out of memory"  # of the GPU or of the machine
    KILLED = "killed"  # the process was gone without a word
    NODE_LOST = "node lost"  # the machine went away or was preempted; no fault of the run


class Failure(BaseModel):
    """Why the last attempt at a run ended: runs/<run_id>/failure.json."""

    model_config = ConfigDict(frozen=True)

    cause: Cause = Cause.ERROR
    kind: str
    """Class of the exception; `ProcessDied` if the process was gone."""
    last_line: str
    traceback: str
    attempts: int
    """How many attempts have failed so far, losses of a node not counted."""
    nodes_lost: int = 0
    """How many attempts ended because their node was lost."""
    time: datetime.datetime

    @property
    def counts(self) -> bool:
        """Whether it is held against the run."""
        return self.cause is not Cause.NODE_LOST

    def given_up(self, retries: int) -> bool:
        """Whether the run is not tried again by itself: after `retries` further attempts, or if none can help."""
        return self.counts and (self.cause is Cause.DIVERGED or self.attempts > retries)


class RunBusy(RuntimeError):
    """Another process is at work on this run, and so nobody else may be."""


class WorkerDied(RuntimeError):
    """One of the processes that train a run together is gone, or its node is; the text is all that Ray says of it."""
