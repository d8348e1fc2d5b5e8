"""Searches in a store without Ray: single tasks, and whole searches in this process."""

import contextlib
import logging
import time
from collections.abc import Iterator

from autodo.augment.policy_file import PolicyFile
from autodo.config.run import RunConfig
from autodo.io.retry import retry
from autodo.io.storage import StrPath
from autodo.search.algorithms import algorithm_of
from autodo.search.tasks import Driver, Json, Report, Task, TaskContext, Worker
from orchestration.execution.process import load_on_node, logging_to
from orchestration.store.attempt import Attempt
from orchestration.store.patience import busy_seconds
from orchestration.store.run_state import RunBusy
from orchestration.store.store import Store

logger = logging.getLogger("autodo")

_WORKERS_KEPT = 2
"""Searches whose data and networks a process keeps in memory."""


class TaskRunner:
    """Performs tasks of searches in this process, which keeps the data and networks of the last searches.

    Args:
        data_dir: path or URI of the files of a named dataset.
    """

    def __init__(self, store: Store, *, data_dir: StrPath | None = None, device: str = "cpu") -> None:
        self._store, self._data_dir, self._device = store, data_dir, device
        self._workers: dict[str, Worker] = {}

    def perform(self, config: RunConfig, task: Task, report: Report = lambda _: None) -> Json:
        """Performs a task; a long one continues from its checkpoint in the store. Returns its result.

        Args:
            report: called with a line after every epoch of a long task.
        Raises:
            RunBusy: if another process does not release the task. DataError, StoreError, TrainingDiverged.
        """
        search_id = _id(config)
        if not task.long:
            return self._worker(config).perform(task, None, report)
        with _patient_attempt(self._store, search_id, task.name) as attempt, logging_to(attempt.log):

            def log_and_report(line: str) -> None:
                logger.info("%s: %s", search_id, line)
                attempt.keep()
                report(line)

            try:
                result = self._worker(config).perform(task, attempt.checkpoint, log_and_report)
                attempt.settle()
            except Exception:
                logger.exception("failed")
                raise
            return result

    def _worker(self, config: RunConfig) -> Worker:
        from autodo import data

        search_id = _id(config)
        if search_id not in self._workers:
            while len(self._workers) >= _WORKERS_KEPT:
                self._workers.pop(next(iter(self._workers)))
            splits = data.prepare(load_on_node(config.dataset, self._data_dir, download=False), config)
            context = TaskContext(config, splits, self._device, self._store.paths.search(search_id))
            self._workers[search_id] = algorithm_of(config).worker(context)
        return self._workers[search_id]


def begin(config: RunConfig, store: Store) -> Driver:
    """The driver of a run's search, in the state that the store holds. Call it inside `store.search_attempt`."""
    return algorithm_of(config).driver(config, store.paths.search(_id(config)))


def search_in_store(
    config: RunConfig,
    store: Store,
    *,
    data_dir: StrPath | None = None,
    device: str = "cpu",
    report: Report = lambda _: None,
) -> PolicyFile:
    """The policy of a run from the store; if it is not there, it is searched in this process and kept.

    Raises:
        RunBusy: if another process executes the search. DataError, StoreError, TrainingDiverged.
    """
    search_id = _id(config)
    if search_id in store.policies.names():
        return store.policies.read(search_id)
    runner = TaskRunner(store, data_dir=data_dir, device=device)
    with store.search_attempt(search_id) as attempt, logging_to(attempt.log):
        if search_id in store.policies.names():
            return store.policies.read(search_id)
        driver = begin(config, store)
        logger.info("%s: %s", search_id, driver.status_line())
        while driver.policy is None:
            for task in driver.ready():
                driver.task_done(task, runner.perform(config, task, report))
                attempt.keep()
                report(driver.status_line())
            logger.info("%s: %s", search_id, driver.status_line())
        save_policy(driver.policy, search_id, store, attempt)
        logger.info("%s: found", search_id)
        return driver.policy


def save_policy(policy: PolicyFile, search_id: str, store: Store, attempt: Attempt) -> None:
    """Writes the policy of a search to the store, and ends the attempt."""
    attempt.settle()
    store.policies.write(search_id, policy)
    attempt.saved = True


def write_log(attempt: Attempt, search_id: str, line: str) -> None:
    """Writes a line with its time to the log of a search."""
    attempt.log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {search_id}: {line}\n")


@contextlib.contextmanager
def _patient_attempt(store: Store, search_id: str, task: str) -> Iterator[Attempt]:
    """Start an attempt at a task as soon as no other process performs it."""
    seconds = busy_seconds(store.root)
    with contextlib.ExitStack() as stack:
        yield retry(
            lambda: stack.enter_context(store.task_attempt(search_id, task)),
            lambda error: seconds if isinstance(error, RunBusy) else 0.0,
            pause=1.0,
            factor=1.0,
        )


def _id(config: RunConfig) -> str:
    assert config.search_id is not None
    return config.search_id
