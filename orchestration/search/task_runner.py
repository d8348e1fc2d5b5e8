"""Searches in a store: a task of one in this process, or one from its beginning to its end. Knows nothing of Ray."""

import contextlib
import logging
from collections.abc import Iterator

from autodo.augment.policy_file import PolicyFile
from autodo.config.run import RunConfig
from autodo.io.retry import retry
from autodo.io.storage import StrPath
from autodo.search.algorithms import algorithm_of
from autodo.search.tasks import Driver, Json, ReportLine, Task, TaskContext, Worker
from orchestration.execution.process import load_on_node, logging_to
from orchestration.store.attempt import Attempt
from orchestration.store.patience import busy_seconds
from orchestration.store.run_state import RunBusy
from orchestration.store.store import Store

logger = logging.getLogger("autodo")

_WORKERS_KEPT = 2
"""Searches whose data and networks a process keeps in memory."""


def _silent(_: str) -> None:
    """For tasks that take seconds."""


class TaskRunner:
    """Does tasks of searches in this process, which keeps the data and networks of the last ones.

    Args:
        data_dir: path or URI of the files of a named dataset.
    """

    def __init__(
        self, store: Store, *, data_dir: StrPath | None = None, download: bool = False, device: str = "cpu"
    ) -> None:
        self._store, self._data_dir, self._download, self._device = store, data_dir, download, device
        self._workers: dict[str, Worker] = {}

    def perform(self, config: RunConfig, task: Task, told: ReportLine = _silent) -> Json:
        """The result of a task; a long one goes on from its checkpoint in the store.

        Args:
            told: is called with a line after every epoch of a long task.
        Raises:
            RunBusy: if another process does not leave the task. DataError, StoreError, TrainingDiverged.
        """
        search_id = _id(config)
        if not task.long:
            return self._worker(config).perform(task, None, _silent)
        with _patient_attempt(self._store, search_id, task.name) as attempt, logging_to(attempt.log):

            def tell(line: str) -> None:
                logger.info("%s: %s", search_id, line)
                attempt.keep()
                told(line)

            try:
                result = self._worker(config).perform(task, attempt.checkpoint, tell)
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
            prepared = data.prepare(load_on_node(config.dataset, self._data_dir, self._download), config)
            context = TaskContext(config, prepared, self._device, self._store.paths.search(search_id))
            self._workers[search_id] = algorithm_of(config).worker(context)
        return self._workers[search_id]


def begin(config: RunConfig, store: Store) -> Driver:
    """The search of a run, as far as the store has it. Call it inside `store.search_attempt`."""
    return algorithm_of(config).driver(config, store.paths.search(_id(config)))


def search_in_store(
    config: RunConfig,
    store: Store,
    *,
    data_dir: StrPath | None = None,
    download: bool = False,
    device: str = "cpu",
    tell: ReportLine = _silent,
) -> PolicyFile:
    """The policy of a run from the store; one that is not there is searched in this process and kept.

    Raises:
        RunBusy: if another process is at work on the search. ConfigError: if it needs several processes.
        DataError, StoreError, TrainingDiverged.
    """
    search_id = _id(config)
    if search_id in store.policies.names():
        return store.policies.read(search_id)
    runner = TaskRunner(store, data_dir=data_dir, download=download, device=device)
    with store.search_attempt(search_id) as attempt, logging_to(attempt.log):
        if search_id in store.policies.names():
            return store.policies.read(search_id)
        driver = begin(config, store)
        logger.info("%s: %s", search_id, driver.headline())
        while driver.policy is None:
            for task in driver.ready():
                driver.ended(task, runner.perform(config, task, tell))
                attempt.keep()
                tell(driver.headline())
            logger.info("%s: %s", search_id, driver.headline())
        return finish(driver, search_id, store, attempt)


def finish(driver: Driver, search_id: str, store: Store, attempt: Attempt) -> PolicyFile:
    """Keeps what a search has found."""
    assert driver.policy is not None
    attempt.settle()
    store.policies.write(search_id, driver.policy)
    attempt.saved = True
    logger.info("%s: found", search_id)
    return driver.policy


@contextlib.contextmanager
def _patient_attempt(store: Store, search_id: str, task: str) -> Iterator[Attempt]:
    """An attempt at a task; one that another process is at work on is waited for."""
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
