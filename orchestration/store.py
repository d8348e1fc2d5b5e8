"""A store: the directory that holds the results of runs. Every path in it is known here and nowhere else."""

import contextlib
import datetime
import fcntl
import os
import re
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import yaml
from pydantic import ValidationError

from autodo.atomic import replacing
from autodo.config import RunConfig
from autodo.errors import ConfigError, StoreError
from autodo.validation import load_yaml, parse_model
from orchestration.grid import GridConfig
from orchestration.run_state import Cause, Failure, RunBusy, State

if TYPE_CHECKING:
    from autodo.outcome import Outcome
    from autodo.records import Kind

_FOLDERS = ("grids", "runs", "results")


class Store:
    """Paths, atomic writes, and what is done, failed, started or missing.

    `results/<run_id>.parquet` exists if and only if the run is done; there is no other state. Two processes may share
    a store: each run is locked by the one that executes it.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    # ----- paths

    def run_dir(self, run_id: str) -> Path:
        """Everything about a run that is not a result."""
        return self.root / "runs" / _checked(run_id)

    def config_file(self, run_id: str) -> Path:
        """The RunConfig as JSON."""
        return self.run_dir(run_id) / "config.json"

    def checkpoint(self, run_id: str) -> Path:
        """Where an unfinished run continues from."""
        return self.run_dir(run_id) / "checkpoint.pt"

    def model_file(self, run_id: str) -> Path:
        """The trained classifier, if it was to be kept."""
        return self.run_dir(run_id) / "model.pt"

    def log_file(self, run_id: str) -> Path:
        """What happened, all attempts one after another."""
        return self.run_dir(run_id) / "log.txt"

    def failure_file(self, run_id: str) -> Path:
        """Why the last attempt failed; absent if it did not, or is still at work."""
        return self.run_dir(run_id) / "failure.json"

    def earlier_failure_file(self, run_id: str) -> Path:
        """The last failure before the present attempt, kept for the count of attempts."""
        return self.run_dir(run_id) / "earlier_failure.json"

    def table_file(self, kind: "Kind", run_id: str) -> Path:
        """One run's Parquet file of one kind."""
        return self.root / kind / f"{_checked(run_id)}.parquet"

    def grid_file(self, name: str) -> Path:
        """The grid as it was last launched."""
        return self.root / "grids" / f"{_checked(name)}.yaml"

    @property
    def results_dir(self) -> Path:
        """One Parquet file for each run that is done."""
        return self.root / "results"

    @property
    def report_dir(self) -> Path:
        """Tables and figures made from the results."""
        return self.root / "report"

    # ----- the store as a whole

    @property
    def exists(self) -> bool:
        """Whether the root is a store."""
        return any((self.root / folder).is_dir() for folder in _FOLDERS)

    def open(self) -> "Store":
        """This store, which must exist.

        Raises:
            StoreError: if the root is missing or is not a store.
        """
        if not self.root.exists():
            raise StoreError(f"{self.root}: no such store; `autodo launch` and `autodo train` make one")
        if not self.exists:
            raise StoreError(f"{self.root}: is not a store: it holds none of {', '.join(f'{f}/' for f in _FOLDERS)}")
        return self

    def create(self) -> "Store":
        """This store, made if need be.

        Raises:
            StoreError: if it cannot be written, or the root holds something else.
        """
        if self.root.is_dir() and not self.exists and any(self.root.iterdir()):
            raise StoreError(f"{self.root}: is not a store and not empty; give --store another directory")
        with _told(self.root):
            for folder in _FOLDERS:
                (self.root / folder).mkdir(parents=True, exist_ok=True)
                if not os.access(self.root / folder, os.W_OK | os.X_OK):
                    raise StoreError(f"{self.root / folder}: cannot be written: permission denied")
        return self

    # ----- what is done

    def done(self) -> set[str]:
        """Ids of the runs that are done."""
        return {name.removesuffix(".parquet") for name in _names(self.results_dir) if name.endswith(".parquet")}

    def is_done(self, run_id: str) -> bool:
        """Whether this run is done."""
        return self.table_file("results", run_id).exists()

    def run_ids(self) -> set[str]:
        """Ids of the runs that the store knows: done, failed or started."""
        return self.done() | _names(self.root / "runs")

    def states(self, run_ids: Iterable[str]) -> dict[str, State]:
        """The state of each run, in the order given."""
        done, begun = self.done(), _names(self.root / "runs")

        def state(run_id: str) -> State:
            if run_id in done:
                return State.DONE
            if run_id not in begun:
                return State.MISSING
            return State.FAILED if self.failure_file(run_id).exists() else State.STARTED

        return {run_id: state(run_id) for run_id in run_ids}

    def failures(self) -> dict[str, Failure]:
        """Why the last attempt failed, of each run where it did."""
        done = self.done()
        found = {run_id: self.failure(run_id) for run_id in sorted(_names(self.root / "runs") - done)}
        return {run_id: failure for run_id, failure in found.items() if failure is not None}

    def failure(self, run_id: str) -> Failure | None:
        """Why the last attempt at a run failed; a damaged failure.json is a failure of kind `Unreadable`."""
        return _read_failure(self.failure_file(run_id))

    def config(self, run_id: str) -> RunConfig:
        """The configuration of a run that has begun.

        Raises:
            StoreError: if it is missing, damaged, or that of another run.
        """
        path = self.config_file(run_id)
        try:
            run = RunConfig.model_validate_json(path.read_bytes())
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
        except ValidationError:
            raise StoreError(f"{path}: damaged") from None
        if run.run_id != run_id:
            raise StoreError(f"{path}: is the configuration of {run.run_id}")
        return run

    def grids(self) -> dict[str, GridConfig | ConfigError]:
        """The grids launched on this store by name; one that can no longer be read is its error."""
        found: dict[str, GridConfig | ConfigError] = {}
        for path in sorted((self.root / "grids").glob("[!.]*.yaml")):
            try:
                found[path.stem] = parse_model(GridConfig, load_yaml(path), str(path))
            except ConfigError as error:
                found[path.stem] = error
        return found

    # ----- writing

    def save_grid(self, grid: GridConfig) -> None:
        """Keeps what was launched."""
        text = yaml.safe_dump(grid.model_dump(mode="json", exclude={"store"}), sort_keys=False)
        self._write(self.grid_file(grid.name), text)

    def begin(self, config: RunConfig) -> None:
        """Makes the run's directory, with its configuration; an attempt begins, and an earlier failure is history."""
        run_id = config.run_id
        self._write(self.config_file(run_id), config.model_dump_json(indent=2))
        with _told(self.failure_file(run_id)), contextlib.suppress(FileNotFoundError):
            self.failure_file(run_id).replace(self.earlier_failure_file(run_id))

    def save(self, outcome: "Outcome", run_id: str, *, keep_model: bool = False) -> None:
        """Writes a run's tables, the results last, then removes what only an unfinished run needs.

        Args:
            keep_model: write the classifier too.
        Raises:
            StoreError: if a file cannot be written; the run is then not done and its checkpoint still there.
        """
        from autodo import checkpoint, records

        tables: dict[Kind, object] = {
            "points": outcome.points,
            "predictions": outcome.predictions,
            "epochs": outcome.epochs,
            "results": outcome.results,
        }
        if keep_model:
            with _told(self.model_file(run_id)):
                outcome.classifier.save(self.model_file(run_id))
        for kind, table in tables.items():
            path = self.table_file(kind, run_id)
            with _told(path):
                records.write(kind, table, path)
        with _told(self.run_dir(run_id)):
            checkpoint.delete(self.checkpoint(run_id))
            self.failure_file(run_id).unlink(missing_ok=True)
            self.earlier_failure_file(run_id).unlink(missing_ok=True)

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
        self._write(self.failure_file(run_id), failure.model_dump_json(indent=2))
        return failure

    def forget_failures(self, run_id: str) -> None:
        """As if no attempt at the run had failed; its checkpoint stays."""
        for path in (self.failure_file(run_id), self.earlier_failure_file(run_id)):
            with _told(path):
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked_log(self, run_id: str) -> Iterator[TextIO]:
        """The run's log, open for appending and locked: the mark that this process is at work on the run.

        The kernel drops the lock when the process ends, however it ends, so that no stale lock is left behind.

        Raises:
            RunBusy: if another process holds the lock. StoreError: if the log cannot be written.
        """
        path = self.log_file(run_id)
        with contextlib.ExitStack() as stack:
            with _told(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                log = stack.enter_context(path.open("a", encoding="utf-8"))
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunBusy(f"{run_id}: another process is at work on it; see {path}") from None
            except OSError:
                # A file system without locks; atomic writes still keep the store whole.
                log.write("this file system has no locks: nothing keeps a second process from this run\n")
            yield log

    def at_work(self, run_id: str) -> bool:
        """Whether a process is at work on the run now."""
        try:
            with self.log_file(run_id).open() as log:
                fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False

    def last_log_line(self, run_id: str) -> str:
        """The last line of a run's log; empty if there is none."""
        try:
            return (self.log_file(run_id).read_text(encoding="utf-8").splitlines() or [""])[-1]
        except OSError:
            return ""

    def _write(self, path: Path, text: str) -> None:
        with _told(path), replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _read_failure(path: Path) -> Failure | None:
    try:
        return Failure.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValidationError, OSError) as error:
        reason = "damaged" if isinstance(error, ValidationError) else str(error.strerror)
        now = datetime.datetime.now(datetime.UTC)
        return Failure(kind="Unreadable", last_line=f"{path.name} is {reason}", traceback="", attempts=1, time=now)


def here() -> str:
    """This process, as a log names it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _checked(name: str) -> str:
    """A name that is a single file name and so cannot lead out of the store."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise StoreError(f"{name!r} is not a run id")
    return name


def _names(folder: Path) -> set[str]:
    """Names in a folder, without temporary and hidden ones; none if there is no folder."""
    try:
        return {name for name in os.listdir(folder) if not name.startswith(".")}  # noqa: PTH208 (no stat per entry)
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise StoreError(f"{folder}: cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """An OSError as one line that names the path."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{error.filename or path}: cannot be written: {error.strerror or error}") from None
