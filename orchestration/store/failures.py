"""Failures of runs, from exceptions and from Ray's messages about dead processes."""

import datetime
import sys
import traceback
from typing import NamedTuple

from autodo.errors import StoreError, TrainingDiverged, UserError
from orchestration.store.run_state import Cause, Failure, WorkerDied
from orchestration.store.store import Store

# Phrases of Ray 2.60 about an actor that is gone, in the order of precedence. An actor "is unavailable" if its process
# and its node are still not known to be dead after the time that orchestration/ray_cluster/cluster.py sets: it is out
# of reach. orchestration/execution/on_workers.py reports a lost node itself.
_PHRASES = {
    Cause.NODE_LOST: ("its node has died", "is unavailable", "The node was lost"),
    Cause.OUT_OF_MEMORY: ("OutOfMemoryError", "running low on memory"),
}
_DEATH_LINES = {
    Cause.NODE_LOST: "the node of the run was lost or preempted",
    Cause.OUT_OF_MEMORY: "the machine ran out of memory and Ray ended the run's process; see --memory-per-run",
    Cause.KILLED: "the process of the run died without a word: killed, or ended by the system for lack of memory",
}


class Reason(NamedTuple):
    """Why something failed, as data that goes from one process to another."""

    cause: Cause
    kind: str
    """Class of the exception; `ProcessDied` if the process was gone."""
    last_line: str
    traceback: str


def record_failure(store: Store, run_id: str, error: Exception) -> Failure:
    """Record that an attempt ended with this exception; see `record`."""
    return record(store, run_id, reason_of(error))


def record_death(store: Store, run_id: str, message: str) -> Failure:
    """Record that the process of an attempt died, given Ray's message about it; see `record`."""
    return record(store, run_id, reason_of_death(message))


def record(store: Store, run_id: str, reason: Reason) -> Failure:
    """Record why an attempt failed in the store, if that can be written, and return the failure."""
    cause, kind, last_line, trace = reason
    try:
        return store.record_failure(run_id, kind=kind, last_line=last_line, traceback=trace, cause=cause)
    except StoreError:
        now = datetime.datetime.now(datetime.UTC)
        return Failure(cause=cause, kind=kind, last_line=last_line, traceback=trace, attempts=1, time=now)


def reason_of(error: Exception) -> Reason:
    """Reason for a failure with this exception."""
    if isinstance(error, WorkerDied):
        return reason_of_death(str(error))
    # The message of our own errors is complete; of any other error the class is half of the message.
    own = isinstance(error, UserError | TrainingDiverged)
    text = str(error) if own else "".join(traceback.format_exception_only(error))
    lines = text.strip().splitlines() or [type(error).__name__]
    trace = "".join(traceback.format_exception(error))
    return Reason(cause_of(error), type(error).__name__, lines[-1], trace)


def reason_of_death(message: str) -> Reason:
    """Reason for the death of a process, from Ray's message about it."""
    if "creation task" in message:  # it could not start: a package is missing on its node, say
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        return Reason(Cause.ERROR, "ProcessDied", f"the process could not start: {lines[-1]}", message)
    cause = cause_of_death(message)
    return Reason(cause, "ProcessDied", _DEATH_LINES[cause], message)


def cause_of(error: Exception) -> Cause:
    """Cause of a failure with this exception."""
    if isinstance(error, TrainingDiverged):
        return Cause.DIVERGED
    torch = sys.modules.get("torch")
    gpu_memory = torch is not None and isinstance(error, torch.OutOfMemoryError)
    # The allocator of the CPU raises a plain RuntimeError.
    host_memory = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
    return Cause.OUT_OF_MEMORY if gpu_memory or host_memory else Cause.ERROR


def cause_of_death(message: str) -> Cause:
    """Cause of the death of a process, from Ray's message about it."""
    for cause, phrases in _PHRASES.items():
        if any(phrase in message for phrase in phrases):
            return cause
    return Cause.KILLED
