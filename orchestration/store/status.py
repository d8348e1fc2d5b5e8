"""Status of the runs and searches in a store, from its files alone."""

import datetime
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from pydantic import ValidationError

from autodo.config.run import RunConfig
from autodo.errors import ConfigError, StoreError
from autodo.io.file_lock import is_locked
from autodo.io.storage import Location
from orchestration.grid.keep import Keep
from orchestration.store import lease
from orchestration.store.paths import EARLIER_FAILURE, FAILURE, LEASE, LOG, MODEL, StorePaths, is_id
from orchestration.store.run_state import Failure, State

_REQUESTS_AT_ONCE = 32


class StoreStatus:
    """States of runs, and the processes that execute them.

    `results/<run_id>.parquet` exists if and only if the run is done; there is no other state.
    """

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths

    def done(self) -> set[str]:
        """Ids of the runs that are done."""
        return _stems(self._paths.results, ".parquet")

    def is_done(self, run_id: str) -> bool:
        """Whether this run is done."""
        return self._paths.table("results", run_id).exists()

    def run_ids(self) -> set[str]:
        """Ids of the runs that the store knows: done, failed or started."""
        return self.done() | self._begun()

    def states(self, run_ids: Iterable[str]) -> dict[str, State]:
        """State of each run, in the order given."""
        run_ids = list(run_ids)
        done, begun = self.done(), self._begun()
        failed = self._with_file(begun.intersection(run_ids) - done, FAILURE)

        def state(run_id: str) -> State:
            if run_id in done:
                return State.DONE
            if run_id not in begun:
                return State.MISSING
            return State.FAILED if run_id in failed else State.STARTED

        return {run_id: state(run_id) for run_id in run_ids}

    def config(self, run_id: str) -> RunConfig:
        """Configuration of a run that has begun.

        Raises:
            StoreError: if it is missing, damaged, or that of another run.
        """
        file = self._paths.config(run_id)
        try:
            run = RunConfig.from_stored(file.read_bytes())
        except FileNotFoundError:
            raise StoreError(f"{file}: cannot be read: No such file or directory") from None
        except ConfigError as error:
            raise StoreError(f"{file}: {error}") from None
        except ValueError:
            raise StoreError(f"{file}: damaged") from None
        if run.run_id != run_id:
            raise StoreError(f"{file}: is the configuration of {run.run_id}")
        return run

    def kept(self, what: Keep, run_ids: Collection[str]) -> set[str]:
        """Subset of the runs that have kept their models, or their embeddings."""
        if what == "models":
            return self._with_file(run_ids, MODEL)
        return _stems(self._paths.embeddings, ".parquet") & set(run_ids)

    def not_kept(self, run_ids: Collection[str], keep: Iterable[Keep]) -> dict[Keep, int]:
        """Number of these runs, which are done, that have not kept a thing; things that all have kept are left out."""
        counts = {what: len(set(run_ids) - self.kept(what, run_ids)) for what in keep} if run_ids else {}
        return {what: count for what, count in counts.items() if count}

    # ----- failures

    def failures(self) -> dict[str, Failure]:
        """Failure of the last attempt, of each run whose last attempt failed."""
        run_ids = sorted(self._with_file(self._begun() - self.done(), FAILURE))
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            found = dict(zip(run_ids, pool.map(self.failure, run_ids), strict=True))
        return {run_id: failure for run_id, failure in found.items() if failure is not None}

    def failure(self, run_id: str, *, earlier: bool = False) -> Failure | None:
        """Failure of the last attempt at a run; a damaged file is a failure of kind `Unreadable`.

        Args:
            earlier: the one before the present attempt.
        """
        file = self._paths.run(run_id) / (EARLIER_FAILURE if earlier else FAILURE)
        try:
            return Failure.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, StoreError) as error:
            reason = "damaged" if isinstance(error, ValidationError) else str(error).rpartition(": ")[2]
            now = datetime.datetime.now(datetime.UTC)
            return Failure(kind="Unreadable", last_line=f"{file.name} is {reason}", traceback="", attempts=1, time=now)

    # ----- processes at work

    def at_work(self, run_id: str) -> bool:
        """Whether a process executes the run now; asking does not disturb it."""
        return _is_held(self._paths.run(run_id))

    def searching(self, search_id: str) -> bool:
        """Whether a process executes the search now."""
        return _is_held(self._paths.search(search_id))

    def at_work_on(self, run_ids: Collection[str]) -> set[str]:
        """Subset of the runs that a process trains now, or whose policy it searches."""

        def is_at_work(run_id: str) -> bool:
            return self.at_work(run_id) or self._is_searched(run_id)

        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            found = pool.map(is_at_work, run_ids)
            return {run_id for run_id, at_work in zip(run_ids, found, strict=True) if at_work}

    def interrupted(self, run_ids: Collection[str]) -> set[str]:
        """Subset of the runs that have begun and are neither done nor failed nor at work.

        A run may begin or end between two looks at the store, so each is looked at twice.
        """
        idle = set(run_ids)
        for _ in range(2):
            idle = {run_id for run_id, state in self.states(idle).items() if state is State.STARTED}
            idle -= self.at_work_on(idle)
        return idle

    def last_log_line(self, run_id: str) -> str:
        """Last line of the run's log; empty if there is none."""
        return _last_line(self._paths.log(run_id))

    def last_task_line(self, search_id: str, task: str) -> str:
        """Last line of the log of a search's long task, without its time; empty if there is none."""
        return _last_line(self._paths.search_task(search_id, task) / LOG).partition(": ")[2]

    def _is_searched(self, run_id: str) -> bool:
        """Whether `autodo train` searches the policy of the run, which it has begun."""
        try:
            search_id = self.config(run_id).search_id
        except StoreError:
            return False
        return search_id is not None and self.searching(search_id)

    def _begun(self) -> set[str]:
        return {name for name in self._paths.runs.names() if is_id(name)}

    def _with_file(self, run_ids: Collection[str], name: str) -> set[str]:
        names = self._paths.runs.names_in(run_ids)
        return {run_id for run_id in run_ids if name in names[run_id]}


def _stems(folder: Location, suffix: str) -> set[str]:
    return {name.removesuffix(suffix) for name in folder.names() if name.endswith(suffix)}


def _is_held(folder: Location) -> bool:
    log = (folder / LOG).local
    if log is not None:
        return is_locked(log)
    holder = lease.read(folder / LEASE)
    return holder is not None and holder.alive


def _last_line(log: Location) -> str:
    try:
        lines = log.read_tail(4096).decode("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1] if lines else ""
