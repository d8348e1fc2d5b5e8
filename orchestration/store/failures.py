"""From an exception, or from what Ray says of a dead process, to a failure that is kept."""

import datetime
import sys
import traceback
from typing import NamedTuple

from autodo.errors import StoreError, TrainingDiverged, UserError
from orchestration.store.run_state import Cause, Failure, WorkerDied
from orchestration.store.store import Store

# What Ray 2.60 writes of an actor that is gone, in the order of precedence. An actor "is unavailable" if even after the
# time that orchestration/ray_cluster/cluster.py sets neither its process nor its node is known to be dead: it is out
# of reach. orchestration/execution/on_workers.py reports a lost node itself.
_DEATHS = {
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
    """The failure that an exception of a run is, kept in the store if that can be written."""
    return record(store, run_id, reason_of(error))


def record_death(store: Store, run_id: str, said: str) -> Failure:
    """The failure that the death of a run's process is, kept in the store if that can be written.

    Args:
        said: all that Ray says of it.
    """
    return record(store, run_id, reason_of_death(said))


def reason_of(error: Exception) -> Reason:
    """What is kept of an exception."""
    if isinstance(error, WorkerDied):
        return reason_of_death(str(error))
    # What an exception of ours says is for a person; of any other, the class is half of the message.
    ours = isinstance(error, UserError | TrainingDiverged)
    text = str(error) if ours else "".join(traceback.format_exception_only(error))
    lines = text.strip().splitlines() or [type(error).__name__]
    trace = "".join(traceback.format_exception(error))
    return Reason(cause_of(error), type(error).__name__, lines[-1], trace)


def reason_of_death(said: str) -> Reason:
    """What is kept of the death of a process.

    Args:
        said: all that Ray says of it.
    """
    if "creation task" in said:  # it could not begin: a package is missing on its node, say
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return Reason(Cause.ERROR, "ProcessDied", f"the process could not start: {lines[-1]}", said)
    cause = cause_of_death(said)
    return Reason(cause, "ProcessDied", _DEATH_LINES[cause], said)


def cause_of(error: Exception) -> Cause:
    """Why an attempt failed that ended with this exception."""
    if isinstance(error, TrainingDiverged):
        return Cause.DIVERGED
    torch = sys.modules.get("torch")
    gpu_memory = torch is not None and isinstance(error, torch.OutOfMemoryError)
    # The allocator of the CPU raises a plain RuntimeError.
    host_memory = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
    return Cause.OUT_OF_MEMORY if gpu_memory or host_memory else Cause.ERROR


def cause_of_death(said: str) -> Cause:
    """Why a process died of which Ray says so."""
    for cause, marks in _DEATHS.items():
        if any(mark in said for mark in marks):
            return cause
    return Cause.KILLED


def record(store: Store, run_id: str, reason: Reason) -> Failure:
    """The failure of a run for this reason, kept in the store if that can be written."""
    cause, kind, last_line, trace = reason
    try:
        return store.record_failure(run_id, kind=kind, last_line=last_line, traceback=trace, cause=cause)
    except StoreError:
        now = datetime.datetime.now(datetime.UTC)
        return Failure(cause=cause, kind=kind, last_line=last_line, traceback=trace, attempts=1, time=now)
