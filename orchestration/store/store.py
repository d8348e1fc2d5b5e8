"""A store: the folder that holds the results of runs. Every name in it is known here and nowhere else."""

import contextlib
import datetime
import functools
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import yaml
from pydantic import ValidationError

from autodo.augment.policy_file import PolicyFile, fingerprint
from autodo.config.run import RunConfig
from autodo.config.validation import parse_model, parse_yaml
from autodo.errors import ConfigError, StoreError, StoreRefused
from autodo.io.storage import LocalLocation, Location, StrPath, locate
from autodo.io.store_format import check_format, mark_format
from orchestration.grid.grid import FIRST_PROTOCOL, GridConfig
from orchestration.store import lease
from orchestration.store.attempt import CHECKPOINT, Attempt, is_checkpoint, is_locked, local_attempt, remote_attempt
from orchestration.store.run_state import Cause, Failure, State

if TYPE_CHECKING:
    from autodo.results.outcome import Outcome
    from autodo.results.records import Kind

logger = logging.getLogger("autodo")
T = TypeVar("T")

PATIENCE_SECONDS = 300.0
"""How long a result is tried to be written to a store that is full or does not answer."""
_FAILURE_PATIENCE_SECONDS = 10.0
MODEL = "model.pt"
_FOLDERS = ("grids", "runs", "results")
_REQUESTS_AT_ONCE = 32


class Store:
    """Names, atomic writes, and what is done, failed, started or missing.

    `results/<run_id>.parquet` exists if and only if the run is done; there is no other state. Two processes may share
    a store: each run is marked by the one that executes it.

    Args:
        root: a path, or a URI such as s3://bucket/folder.
        patience: seconds for which a write that fails is tried again.
    Raises:
        StoreError: if the URI cannot be used.
    """

    def __init__(self, root: StrPath, *, patience: float = PATIENCE_SECONDS) -> None:
        self.root = locate(root)
        self._patience = patience

    def __str__(self) -> str:
        return str(self.root)

    @property
    def uri(self) -> str:
        """What another process, on any node, makes this store of: an absolute path, or the URI."""
        return self.root.uri

    # ----- names; each prints as what a person may look for

    def run_dir(self, run_id: str) -> Location:
        """Everything about a run that is not a result."""
        return self.root / "runs" / _checked(run_id)

    def config_file(self, run_id: str) -> Location:
        """The RunConfig as JSON."""
        return self.run_dir(run_id) / "config.json"

    def checkpoint(self, run_id: str) -> Location:
        """Where an unfinished run continues from."""
        return self.run_dir(run_id) / CHECKPOINT

    def model_file(self, run_id: str) -> Location:
        """The trained classifier, if it was to be kept."""
        return self.run_dir(run_id) / MODEL

    def log_file(self, run_id: str) -> Location:
        """What happened, all attempts one after another."""
        return self.run_dir(run_id) / "log.txt"

    def failure_file(self, run_id: str) -> Location:
        """Why the last attempt failed; absent if it did not, or is still at work."""
        return self.run_dir(run_id) / "failure.json"

    def earlier_failure_file(self, run_id: str) -> Location:
        """The last failure before the present attempt, kept for the count of attempts."""
        return self.run_dir(run_id) / "earlier_failure.json"

    def table_file(self, kind: "Kind", run_id: str) -> Location:
        """One run's Parquet file of one kind."""
        return self.root / kind / f"{_checked(run_id)}.parquet"

    def policy_file(self, name: str) -> Location:
        """A policy that was searched, by its search_id, or read from a file, by `file-<content>`."""
        return self.root / "policies" / f"{_checked(name, 'policy')}.json"

    def search_dir(self, search_id: str) -> Location:
        """Everything about a search but the policy that it found."""
        return self.root / "searches" / _checked(search_id, "search")

    def grid_file(self, name: str) -> Location:
        """The grid as it was last launched."""
        return self.root / "grids" / f"{_checked(name)}.yaml"

    @property
    def launches_file(self) -> Location:
        """Path of the overheads of the last launches; see `orchestration.planning.launch_times`."""
        return self.root / "launches.json"

    @property
    def results_dir(self) -> Location:
        """One Parquet file for each run that is done."""
        return self.root / "results"

    @property
    def report_dir(self) -> Location:
        """Tables and figures made from the results."""
        return self.root / "report"

    # ----- the store as a whole

    @property
    def exists(self) -> bool:
        """Whether the root is a store."""
        return any((self.root / folder).exists() for folder in _FOLDERS)

    def open(self) -> "Store":
        """This store, which must exist.

        Raises:
            StoreError: if the root is missing or is not a store, is one of a later format, or does not answer.
        """
        if self.exists:
            return self.supported()
        if not self.root.exists():
            raise StoreError(f"{self}: no such store; `autodo launch` and `autodo train` make one")
        raise StoreError(f"{self}: is not a store: it holds none of {', '.join(f'{f}/' for f in _FOLDERS)}")

    def supported(self) -> "Store":
        """This store, which may not exist yet. Raises StoreError if it is of a later format than this program knows."""
        local = self.root.local
        if local is not None and local.is_file():
            raise StoreError(f"{self}: is a file; a store is a directory, or a URI such as s3://bucket/folder")
        check_format(self.root)
        return self

    def create(self) -> "Store":
        """This store, made if need be, and marked as one of this program's format.

        Raises:
            StoreError: if it cannot be written, is of a later format, or the root holds something else.
        """
        if not self.exists and _holds_something(self.root):
            raise StoreError(f"{self}: is not a store and not empty; give --store another directory")
        for folder in _FOLDERS:
            (self.root / folder).make_folder()
        mark_format(self.root)
        return self

    # ----- what is done

    def done(self) -> set[str]:
        """Ids of the runs that are done."""
        return {name.removesuffix(".parquet") for name in self.results_dir.names() if name.endswith(".parquet")}

    def is_done(self, run_id: str) -> bool:
        """Whether this run is done."""
        return self.table_file("results", run_id).exists()

    def models_of(self, run_ids: Collection[str]) -> set[str]:
        """Of these runs, those whose classifier was kept."""
        names = (self.root / "runs").names_in(run_ids)
        return {run_id for run_id in run_ids if MODEL in names[run_id]}

    def embeddings_of(self, run_ids: Collection[str]) -> set[str]:
        """Of these runs, those whose embeddings were kept."""
        return {name.removesuffix(".parquet") for name in (self.root / "embeddings").names()} & set(run_ids)

    def run_ids(self) -> set[str]:
        """Ids of the runs that the store knows: done, failed or started."""
        return self.done() | self._begun()

    def states(self, run_ids: Iterable[str]) -> dict[str, State]:
        """The state of each run, in the order given."""
        run_ids = list(run_ids)
        done, begun = self.done(), self._begun()
        failed = self._failed(begun.intersection(run_ids) - done)

        def state(run_id: str) -> State:
            if run_id in done:
                return State.DONE
            if run_id not in begun:
                return State.MISSING
            return State.FAILED if run_id in failed else State.STARTED

        return {run_id: state(run_id) for run_id in run_ids}

    def failures(self) -> dict[str, Failure]:
        """Why the last attempt failed, of each run where it did."""
        run_ids = sorted(self._failed(self._begun() - self.done()))
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            found = dict(zip(run_ids, pool.map(self.failure, run_ids), strict=True))
        return {run_id: failure for run_id, failure in found.items() if failure is not None}

    def failure(self, run_id: str) -> Failure | None:
        """Why the last attempt at a run failed; a damaged failure.json is a failure of kind `Unreadable`."""
        return _read_failure(self.failure_file(run_id))

    def at_work(self, run_id: str) -> bool:
        """Whether a process is at work on the run now; asking disturbs nobody."""
        return _is_held(self.run_dir(run_id))

    def at_work_on(self, run_ids: Collection[str]) -> set[str]:
        """Subset of the runs that a process trains now, or whose policy it searches."""

        def is_at_work(run_id: str) -> bool:
            return self.at_work(run_id) or self._is_searched(run_id)

        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            found = pool.map(is_at_work, run_ids)
            return {run_id for run_id, at_work in zip(run_ids, found, strict=True) if at_work}

    def interrupted(self, run_ids: Collection[str]) -> set[str]:
        """Subset of the runs that have begun and are neither done nor failed nor at work.

        A run may begin or end between two looks at the store, so each is looked at again.
        """

        def unfinished(run_ids: Collection[str]) -> set[str]:
            return {run_id for run_id, state in self.states(run_ids).items() if state is State.STARTED}

        idle = unfinished(run_ids)
        idle -= self.at_work_on(idle)
        idle = unfinished(idle)
        return idle - self.at_work_on(idle)

    def _is_searched(self, run_id: str) -> bool:
        """Whether `autodo train` is searching the policy of the run, which it began before."""
        try:
            search_id = self.config(run_id).search_id
        except StoreError:
            return False
        return search_id is not None and self.searching(search_id)

    def searching(self, search_id: str) -> bool:
        """Whether a process is at work on the search now."""
        return _is_held(self.search_dir(search_id))

    def last_log_line(self, run_id: str) -> str:
        """The last line of the run's log; empty if there is none."""
        return _last_line(self.log_file(run_id))

    def last_task_line(self, search_id: str, task: str) -> str:
        """The last line of the log of a search's long task, without its time; empty if there is none."""
        return _last_line(self.search_dir(search_id) / task / "log.txt").partition(": ")[2]

    def config(self, run_id: str) -> RunConfig:
        """The configuration of a run that has begun.

        Raises:
            StoreError: if it is missing, damaged, or that of another run.
        """
        path = self.config_file(run_id)
        try:
            run = RunConfig.from_stored(path.read_bytes())
        except FileNotFoundError:
            raise StoreError(f"{path}: cannot be read: No such file or directory") from None
        except ValueError:
            raise StoreError(f"{path}: damaged") from None
        if run.run_id != run_id:
            raise StoreError(f"{path}: is the configuration of {run.run_id}")
        return run

    def policies(self) -> set[str]:
        """Names of the policies that the store holds."""
        return {name.removesuffix(".json") for name in (self.root / "policies").names() if name.endswith(".json")}

    def policy(self, name: str) -> PolicyFile:
        """A policy by the name that `policy_id` gives.

        Raises:
            StoreError: if it is missing, damaged, or another one than its name says.
        """
        place = self.policy_file(name)
        try:
            policy = PolicyFile.model_validate_json(place.read_bytes())
        except FileNotFoundError:
            raise StoreError(
                f"{place}: no such policy; `autodo launch`, `train` and `resume` search it, or read it from policy.path"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "JSON"
            reason = " ".join(first["msg"].split())[:200]
            raise StoreError(f"{place}: damaged: {where}: {reason}; delete it, and it is made again") from None
        own = policy.provenance.get("search_id")
        if name not in (own, f"file-{fingerprint(policy)}"):
            raise StoreError(f"{place}: is another policy ({own or fingerprint(policy)}); delete it")
        return policy

    def save_policy(self, name: str, policy: PolicyFile) -> None:
        """Keeps a policy under its name; of a search the progress is then removed, and its log stays."""
        text = policy.model_dump_json(by_alias=True, indent=1, exclude_defaults=True)
        self._patiently(lambda: self.policy_file(name).write_text(text))
        with contextlib.suppress(StoreError):  # it is found all the same
            self._clear_search(self.search_dir(name))

    def _clear_search(self, folder: Location) -> None:
        kept = {"log.txt", "lease.json"}
        for part, names in folder.names_in(folder.names() - kept).items():
            for name in names:
                (folder / part / name).delete()
            local = (folder / part).local
            if local is not None and local.is_dir():
                with contextlib.suppress(OSError):
                    local.rmdir()
            elif local is not None or not names:
                (folder / part).delete()

    def grids(self) -> dict[str, GridConfig | ConfigError]:
        """The grids launched on this store by name; one that can no longer be read is its error."""
        found: dict[str, GridConfig | ConfigError] = {}
        folder = self.root / "grids"
        for name in sorted(name for name in folder.names() if name.endswith(".yaml")):
            file = folder / name
            try:
                tree = parse_yaml(file.read_bytes(), str(file))
                found[file.stem] = parse_model(GridConfig, {"protocol": FIRST_PROTOCOL, **tree}, str(file))
            except ConfigError as error:
                found[file.stem] = error
            except (StoreError, FileNotFoundError) as error:
                found[file.stem] = ConfigError(str(error))
        return found

    def _begun(self) -> set[str]:
        return {name for name in (self.root / "runs").names() if _is_id(name)}

    def _failed(self, run_ids: set[str]) -> set[str]:
        names = (self.root / "runs").names_in(run_ids)
        return {run_id for run_id in run_ids if "failure.json" in names[run_id]}

    # ----- writing

    def save_grid(self, grid: GridConfig) -> None:
        """Keeps what was launched."""
        text = yaml.safe_dump(grid.model_dump(mode="json", exclude={"store"}), sort_keys=False)
        self.grid_file(grid.name).write_text(text)

    def begin(self, config: RunConfig) -> None:
        """Makes the run's folder, with its configuration; an attempt begins, and an earlier failure is history."""
        run_id = config.run_id
        text = config.model_dump_json(indent=2)
        self._patiently(lambda: self.config_file(run_id).write_text(text))
        self._patiently(lambda: self._set_failure_aside(run_id))

    def _set_failure_aside(self, run_id: str) -> None:
        try:
            content = self.failure_file(run_id).read_bytes()
        except FileNotFoundError:
            return
        except StoreError:
            content = None  # what is in its place cannot be read
        if content is not None:
            self.earlier_failure_file(run_id).write_bytes(content)
        self.failure_file(run_id).delete()

    def save(self, outcome: "Outcome", run_id: str, *, keep_model: bool = False) -> None:
        """Writes all tables that there are, the results last, then removes what only an unfinished run needs.

        What cannot be written is tried again for as long as the store's patience lasts.

        Args:
            keep_model: write the classifier too.
        Raises:
            StoreError: if a file cannot be written; the run is then not done and its checkpoint still there.
        """
        from autodo.results import records

        if keep_model:
            self._fill(self.model_file(run_id), outcome.classifier.save)
        tables: dict[Kind, object] = {
            **({} if outcome.embeddings is None else {"embeddings": outcome.embeddings}),
            "points": outcome.points,
            "predictions": outcome.predictions,
            "epochs": outcome.epochs,
            "results": outcome.results,
        }
        for kind, table in tables.items():
            self._fill(self.table_file(kind, run_id), functools.partial(records.write, kind, table))
        with contextlib.suppress(StoreError):  # the run is done all the same
            self._clear(run_id)

    def _fill(self, place: Location, write: Callable[[Path], object]) -> None:
        self._patiently(lambda: place.write_atomic(write))

    def _clear(self, run_id: str) -> None:
        folder = self.run_dir(run_id)
        for name in folder.names():
            if is_checkpoint(name) or name in ("failure.json", "earlier_failure.json"):
                (folder / name).delete()

    def record_failure(
        self, run_id: str, *, kind: str, last_line: str, traceback: str, cause: Cause = Cause.ERROR
    ) -> Failure:
        """Keeps a failed attempt as data, one more than there were before.

        Raises:
            StoreError: if it cannot be written.
        """
        before = self.failure(run_id) or _read_failure(self.earlier_failure_file(run_id))
        lost = cause is Cause.NODE_LOST
        failure = Failure(
            cause=cause,
            kind=kind,
            last_line=last_line,
            traceback=traceback,
            attempts=(before.attempts if before else 0) + (not lost),
            nodes_lost=(before.nodes_lost if before else 0) + lost,
            time=datetime.datetime.now(datetime.UTC),
        )
        text = failure.model_dump_json(indent=2)
        patience = min(self._patience, _FAILURE_PATIENCE_SECONDS)
        self._patiently(lambda: self.failure_file(run_id).write_text(text), patience)
        return failure

    def forget_failures(self, run_id: str) -> None:
        """As if no attempt at the run had failed; its checkpoint stays."""
        self.failure_file(run_id).delete()
        self.earlier_failure_file(run_id).delete()

    def attempt(self, run_id: str) -> contextlib.AbstractContextManager[Attempt]:
        """An attempt at a run, for the length of a block: the mark that this process is at work on it, log, checkpoint.

        On a file system the mark is a lock that the kernel drops when the process ends, however it ends; in an object
        store it is a lease (see `orchestration.store.lease`).

        Raises:
            RunBusy: if another process is at work on the run. StoreError: if the log cannot be written.
        """
        return self._attempt(self.run_dir(run_id), run_id)

    def search_attempt(self, search_id: str) -> contextlib.AbstractContextManager[Attempt]:
        """`attempt`, at a search; its driver holds it as long as it goes on."""
        return self._attempt(self.search_dir(search_id), search_id)

    def task_attempt(self, search_id: str, task: str) -> contextlib.AbstractContextManager[Attempt]:
        """`attempt`, at a long task of a search, with a log and a checkpoint of its own."""
        return self._attempt(self.search_dir(search_id) / _checked(task, "task"), task)

    @contextlib.contextmanager
    def _attempt(self, folder: Location, name: str) -> Iterator[Attempt]:
        self._patiently(self.supported)
        begin = (
            local_attempt(folder, name, self._patiently)
            if isinstance(folder, LocalLocation)
            else remote_attempt(folder, self._patiently)
        )
        with begin as attempt:
            yield attempt

    def _patiently(self, action: Callable[[], T], patience: float | None = None) -> T:
        """Does what may fail for a while until it succeeds, or `patience` seconds are over."""
        patience = self._patience if patience is None else patience
        deadline, pause = time.monotonic() + patience, 0.5
        while True:
            try:
                return action()
            except StoreRefused:
                raise
            except StoreError as error:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                logger.warning("%s; trying again for %.0f s", error, left)
                time.sleep(min(pause, left))
                pause = min(2 * pause, 30.0)


def _is_held(folder: Location) -> bool:
    log = (folder / "log.txt").local
    if log is not None:
        return is_locked(log)
    holder = lease.read(folder / "lease.json")
    return holder is not None and holder.alive


def _last_line(log: Location) -> str:
    try:
        lines = log.read_tail(4096).decode("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1] if lines else ""


def _read_failure(place: Location) -> Failure | None:
    try:
        return Failure.model_validate_json(place.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, StoreError) as error:
        reason = "damaged" if isinstance(error, ValidationError) else str(error).rpartition(": ")[2]
        now = datetime.datetime.now(datetime.UTC)
        return Failure(kind="Unreadable", last_line=f"{place.name} is {reason}", traceback="", attempts=1, time=now)


def here() -> str:
    """This process, as a log names it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _checked(name: str, what: str = "run") -> str:
    """A name that is a single file name and so cannot lead out of the store."""
    if not _is_id(name):
        raise StoreError(f"{name!r} is not a {what} id")
    return name


def _is_id(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name) is not None


def _holds_something(root: Location) -> bool:
    local = root.local
    return any(local.iterdir()) if local is not None and local.is_dir() else local is None and bool(root.names())
