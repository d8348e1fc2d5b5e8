"""A store: the folder that holds the results of runs."""

import contextlib
import datetime
import functools
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from autodo.config.run import RunConfig
from autodo.config.validation import parse_model, parse_yaml
from autodo.errors import ConfigError, StoreError
from autodo.io.storage import LocalLocation, Location, StrPath, locate
from autodo.io.store_format import check_format, mark_format
from autodo.plugins import PluginFile
from orchestration.grid.grid import FIRST_PROTOCOL, GridConfig, check_pinned_plugins
from orchestration.store.attempt import Attempt, local_attempt
from orchestration.store.paths import EARLIER_FAILURE, FAILURE, StorePaths, is_checkpoint
from orchestration.store.patience import FAILURE_WRITE_SECONDS, WRITE_SECONDS, retrying_storage
from orchestration.store.policies import StorePolicies
from orchestration.store.remote_attempt import remote_attempt
from orchestration.store.run_state import Cause, Failure
from orchestration.store.status import StoreStatus

if TYPE_CHECKING:
    from autodo.results.outcome import Outcome
    from autodo.results.records import Kind

_FOLDERS = ("grids", "runs", "results")


class Store:
    """Opens, reads and writes a store; every file is written as a whole.

    Two processes may share a store: each run is marked by the one that executes it.

    Args:
        root: a path, or a URI such as s3://bucket/folder.
        patience: seconds for which a write that fails is tried again.
    Raises:
        StoreError: if the URI cannot be used.
    """

    def __init__(self, root: StrPath, *, patience: float = WRITE_SECONDS) -> None:
        self.root = locate(root)
        self.paths = StorePaths(self.root)
        self.status = StoreStatus(self.paths)
        self._patience = patience
        self._retry = retrying_storage(patience)
        self.policies = StorePolicies(self.paths, self._retry)

    def __str__(self) -> str:
        return str(self.root)

    @property
    def uri(self) -> str:
        """Absolute path, or URI, by which a process on any node opens this store."""
        return self.root.uri

    # ----- the store as a whole

    @property
    def exists(self) -> bool:
        """Whether the root is a store."""
        return any((self.root / folder).exists() for folder in _FOLDERS)

    def open(self) -> "Store":
        """This store, which must exist.

        Raises:
            StoreError: if the root is missing or is not a store, has a later format, or does not answer.
        """
        if self.exists:
            return self.supported()
        if not self.root.exists():
            raise StoreError(f"{self}: no such store; `autodo launch` and `autodo train` make one")
        raise StoreError(f"{self}: is not a store: it holds none of {', '.join(f'{f}/' for f in _FOLDERS)}")

    def check_on_node(self) -> None:
        """Raise StoreError if this node of a cluster does not see the store."""
        if not self.exists:
            raise StoreError(f"{self}: not there on this node; a cluster needs a store that all nodes share")

    def supported(self) -> "Store":
        """This store, which may not exist yet. Raises StoreError if this program does not know its format."""
        local = self.root.local
        if local is not None and local.is_file():
            raise StoreError(f"{self}: is a file; a store is a directory, or a URI such as s3://bucket/folder")
        check_format(self.root)
        return self

    def create(self) -> "Store":
        """This store, made if need be, and marked with this program's format.

        Raises:
            StoreError: if it cannot be written, has a later format, or the root holds something else.
        """
        if not self.exists and _holds_something(self.root):
            raise StoreError(f"{self}: is not a store and not empty; give --store another directory")
        for folder in _FOLDERS:
            (self.root / folder).make_folder()
        mark_format(self.root)
        return self

    # ----- grids

    def save_grid(self, grid: GridConfig) -> None:
        """Keep a grid that is launched."""
        text = yaml.safe_dump(grid.model_dump(mode="json", exclude={"store"}), sort_keys=False)
        self.paths.grid(grid.name).write_text(text)

    def grids(self) -> dict[str, GridConfig | ConfigError]:
        """Grids launched on this store by name; an error in the place of one that cannot be read."""
        found: dict[str, GridConfig | ConfigError] = {}
        for name in sorted(name for name in self.paths.grids.names() if name.endswith(".yaml")):
            file = self.paths.grids / name
            try:
                tree = parse_yaml(file.read_bytes(), str(file))
                check_pinned_plugins(tree, str(file))
                found[file.stem] = parse_model(GridConfig, {"protocol": FIRST_PROTOCOL, **tree}, str(file))
            except ConfigError as error:
                found[file.stem] = error
            except (StoreError, FileNotFoundError) as error:
                found[file.stem] = ConfigError(str(error))
        return found

    def save_plugins(self, files: Iterable[PluginFile]) -> None:
        """Keep copies of files with plug-ins, for people: they are not executed unless `--plugin` names them."""
        for file in files:
            place = self.paths.plugin(Path(file.name).stem, file.content)
            if not place.exists():
                place.write_text(file.text)

    # ----- attempts

    def attempt(self, run_id: str) -> contextlib.AbstractContextManager[Attempt]:
        """An attempt at a run, for the length of a block: the mark that this process executes it, log, checkpoint.

        On a file system the mark is a lock that the kernel drops when the process ends, however it ends; in an object
        store it is a lease (see `orchestration.store.lease`).

        Raises:
            RunBusy: if another process executes the run. StoreError: if the log cannot be written.
        """
        return self._attempt(self.paths.run(run_id), run_id)

    def search_attempt(self, search_id: str) -> contextlib.AbstractContextManager[Attempt]:
        """`attempt`, at a search; its driver holds it until the search ends."""
        return self._attempt(self.paths.search(search_id), search_id)

    def task_attempt(self, search_id: str, task: str) -> contextlib.AbstractContextManager[Attempt]:
        """`attempt`, at a long task of a search, with a log and a checkpoint of its own."""
        return self._attempt(self.paths.search_task(search_id, task), task)

    @contextlib.contextmanager
    def _attempt(self, folder: Location, name: str) -> Iterator[Attempt]:
        self._retry(self.supported)
        begin = (
            local_attempt(folder, name, self._retry)
            if isinstance(folder, LocalLocation)
            else remote_attempt(folder, self._retry)
        )
        with begin as attempt:
            yield attempt

    def begin(self, config: RunConfig) -> None:
        """Write the run's configuration; the last failure becomes an earlier one."""
        run_id = config.run_id
        text = config.model_dump_json(indent=2)
        self._retry(lambda: self.paths.config(run_id).write_text(text))
        self._retry(lambda: self._set_failure_aside(run_id))

    def save(self, outcome: "Outcome", run_id: str, *, keep_model: bool = False) -> None:
        """Write all tables of a run, the results last, then remove its checkpoint and failures.

        A write that fails is retried for as long as the store's patience lasts.

        Args:
            keep_model: write the classifier too.
        Raises:
            StoreError: if a file cannot be written; the run is then not done and its checkpoint still there.
        """
        from autodo.results import records

        if keep_model:
            self._write(self.paths.model(run_id), outcome.classifier.save)
        tables: dict[Kind, object] = {
            **({} if outcome.embeddings is None else {"embeddings": outcome.embeddings}),
            "points": outcome.points,
            "predictions": outcome.predictions,
            "epochs": outcome.epochs,
            "results": outcome.results,
        }
        for kind, table in tables.items():
            self._write(self.paths.table(kind, run_id), functools.partial(records.write, kind, table))
        with contextlib.suppress(StoreError):  # the run is done all the same
            folder = self.paths.run(run_id)
            for name in folder.names():
                if is_checkpoint(name) or name in (FAILURE, EARLIER_FAILURE):
                    (folder / name).delete()

    def _write(self, file: Location, write: Callable[[Path], object]) -> None:
        self._retry(lambda: file.write_atomic(write))

    # ----- failures

    def record_failure(
        self, run_id: str, *, kind: str, last_line: str, traceback: str, cause: Cause = Cause.ERROR
    ) -> Failure:
        """Keep a failed attempt as data, and count it.

        Raises:
            StoreError: if it cannot be written.
        """
        before = self.status.failure(run_id) or self.status.failure(run_id, earlier=True)
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
        seconds = min(self._patience, FAILURE_WRITE_SECONDS)
        retrying_storage(seconds)(lambda: self.paths.failure(run_id).write_text(text))
        return failure

    def forget_failures(self, run_id: str) -> None:
        """Remove all failures of a run; its checkpoint stays."""
        self.paths.failure(run_id).delete()
        self.paths.earlier_failure(run_id).delete()

    def _set_failure_aside(self, run_id: str) -> None:
        try:
            content = self.paths.failure(run_id).read_bytes()
        except FileNotFoundError:
            return
        except StoreError:
            content = None  # unreadable, such as a link out of the store
        if content is not None:
            self.paths.earlier_failure(run_id).write_bytes(content)
        self.paths.failure(run_id).delete()


def process_name() -> str:
    """Name of this process in logs: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _holds_something(root: Location) -> bool:
    local = root.local
    return any(local.iterdir()) if local is not None and local.is_dir() else local is None and bool(root.names())
