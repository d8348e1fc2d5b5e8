"""The searches that the runs of a launch wait for, side by side on Ray: their tasks go to a pool of actors.

What a search knows is in this process, and in the store after every few tasks; so an actor that dies costs a task, and
this process that dies little more. Which actor does a task does not change its result.
"""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Mapping
from typing import Any, Literal

from ray.exceptions import RayError
from rich.console import Console

from autodo.config.run import RunConfig
from autodo.errors import StoreError
from autodo.io.uri import absolute
from autodo.search.tasks import Driver
from orchestration.display.search_display import SearchDisplay
from orchestration.grid.resources import ResourcesConfig

# First of all that touches Ray: it sets the environment that Ray reads at its import.
from orchestration.ray_cluster import cluster as clusters
from orchestration.search import task_runner
from orchestration.search.actor_pool import ActorPool, SearchTask, TaskOutcome
from orchestration.store.attempt import Attempt
from orchestration.store.failures import Reason, reason_of, reason_of_death
from orchestration.store.run_state import Cause, RunBusy
from orchestration.store.store import Store

LOOK_SECONDS = 2.0
"""Between two looks at a search that another process is at work on, and at the logs of long tasks."""
WAIT_SECONDS = 0.5
IDLE_SECONDS = 60.0
"""After so long without a single process the user is told what the searches wait for."""


@dataclasses.dataclass(frozen=True)
class SearchesEnded:
    """How the searches ended.

    Args:
        failed: why, by search id.
        stop_reason: why some may be neither found nor failed.
    """

    failed: dict[str, Reason]
    stop_reason: Literal["interrupted", "out of time"] | None


def find_policies(
    wanted: Mapping[str, RunConfig],
    store: Store,
    console: Console,
    *,
    resources: ResourcesConfig,
    slots: int,
    retries: int,
    seconds: float | None = None,
    data_dir: Any = None,
) -> SearchesEnded:
    """Searches what the store lacks, on the Ray that runs in this process.

    A search that fails leaves the others alone; one that another launch is at work on is waited for. The first Ctrl-C
    or SIGTERM ends all of them at once, and the next call goes on: a network that was being trained continues from the
    checkpoint of its last epoch, and a few trials are done again.

    Args:
        wanted: by search id, a run that needs the policy.
        resources: of a process; `workers` is not used.
        slots: how many processes there may be.
        retries: how often the death of a process is forgiven a search; the loss of a node always is.
        seconds: after so long the searches end as by Ctrl-C; None for no limit.
    Raises:
        KeyboardInterrupt: on a second Ctrl-C or SIGTERM.
    """
    with SearchDisplay(wanted, console) as board:
        given = {
            "store": store.uri,
            "data_dir": absolute(data_dir) if data_dir else None,
            "resources": resources.model_dump(mode="json"),
        }
        stage = _Stage(wanted, store, board, ActorPool(given, resources, slots), retries, seconds)
        with (
            clusters.on_signal(signal.SIGINT, stage.on_stop_signal),
            clusters.on_signal(signal.SIGTERM, stage.on_stop_signal),
        ):
            return stage.run()


class _Search:
    """One search while its mark is held."""

    def __init__(self, config: RunConfig, driver: Driver, attempt: Attempt, mark: contextlib.ExitStack) -> None:
        self.config, self.driver, self.attempt, self.mark = config, driver, attempt, mark
        self.long_task = ""
        self.deaths = 0

    def log(self, line: str) -> None:
        self.attempt.log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {self.config.search_id}: {line}\n")


class _Stage:
    def __init__(
        self,
        wanted: Mapping[str, RunConfig],
        store: Store,
        board: SearchDisplay,
        pool: ActorPool,
        retries: int,
        seconds: float | None,
    ) -> None:
        self._store, self._board, self._pool, self._retries = store, board, pool, retries
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._waiting = dict(wanted)
        self._at_work: dict[str, _Search] = {}
        self._failed: dict[str, Reason] = {}
        self._jobs: list[SearchTask] = []
        self._looked = -LOOK_SECONDS
        self._idle_since: float | None = time.monotonic()
        self._stop_reason: Literal["interrupted", "out of time"] | None = None

    def on_stop_signal(self, *_: object) -> None:
        if self._stop_reason == "interrupted":
            raise KeyboardInterrupt
        self._stop_reason = "interrupted"
        self._board.say("stopping the searches; the same command continues them")

    def run(self) -> SearchesEnded:
        try:
            while (self._waiting or self._at_work) and self._stop_reason is None:
                self._look_around()
                self._jobs = self._pool.start(self._jobs)
                for job, answer in self._pool.answers(WAIT_SECONDS):
                    self._take(job, answer)
                self._board.refresh()
        finally:
            self._pool.end()
            for search in self._at_work.values():
                search.log("stopped; the next attempt continues")
                search.mark.close()
        return SearchesEnded(self._failed, self._stop_reason)

    def _look_around(self) -> None:
        """What is not a task's end: time, searches that could not begin yet, logs, processes that do not come."""
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline:
            self._stop_reason = "out of time"
            self._board.say("the time budget is over: the searches stop, and the same command continues them")
            return
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for search_id, config in list(self._waiting.items()):
            self._try_to_begin(search_id, config)
        for search_id, search in self._at_work.items():
            self._show(search_id, search)
        if self._pool.has_begun():
            self._idle_since = None
        elif self._idle_since is not None and now - self._idle_since > IDLE_SECONDS and self._at_work:
            self._idle_since = None
            self._board.say(f"no node has had room for a search for {IDLE_SECONDS:.0f} s: {self._pool.need()}")

    def _try_to_begin(self, search_id: str, config: RunConfig) -> None:
        with contextlib.ExitStack() as stack:
            try:
                if search_id in self._store.policies.names():
                    del self._waiting[search_id]
                    self._board.update(search_id, "found", "by another launch")
                    return
                attempt = stack.enter_context(self._store.search_attempt(search_id))
                search = _Search(config, task_runner.begin(config, self._store), attempt, stack)
            except RunBusy:
                self._board.update(search_id, "in another launch", "")
                return
            except Exception as error:  # of this search, and no other
                del self._waiting[search_id]
                self._fail(search_id, reason_of(error))
                return
            search.mark = stack.pop_all()
        del self._waiting[search_id]
        self._at_work[search_id] = search
        search.log(f"at work, {search.driver.headline()}")
        # Another launch may have found it between the look and the mark.
        if search_id in self._store.policies.names():
            self._drop(search_id)
            self._board.update(search_id, "found", "by another launch")
            return
        self._go_on(search_id, search)

    def _go_on(self, search_id: str, search: _Search) -> None:
        """Hands out what can be done now, or keeps what was found."""
        if search.driver.policy is None:
            config = search.config.model_dump(mode="json")
            self._jobs += [SearchTask(search_id, config, task) for task in search.driver.ready()]
            self._show(search_id, search)
            return
        task_runner.finish(search.driver, search_id, self._store, search.attempt)
        search.log("found")
        self._board.update(search_id, "found", search.driver.headline())
        self._drop(search_id)

    def _take(self, job: SearchTask, answer: TaskOutcome | RayError) -> None:
        search = self._at_work.get(job.search_id)
        if search is None:
            return  # it has failed since
        try:
            if isinstance(answer, RayError):
                self._died(job, search, reason_of_death(f"{type(answer).__name__}: {answer}"))
            elif answer[0] == "failed":
                cause, *said = answer[1]
                self._end_badly(job.search_id, Reason(Cause(cause), *said))
            else:
                search.driver.ended(job.task, answer[1])
                search.attempt.keep()
                self._go_on(job.search_id, search)
        except RunBusy:  # another process has taken the search over
            self._waiting[job.search_id] = search.config
            self._drop(job.search_id)
        except Exception as error:
            self._end_badly(job.search_id, reason_of(error))

    def _died(self, job: SearchTask, search: _Search, reason: Reason) -> None:
        search.deaths += reason.cause is not Cause.NODE_LOST
        search.log(f"{job.task.name}: {reason.last_line}")
        if search.deaths > self._retries:
            self._end_badly(job.search_id, reason)
        else:
            self._board.say(f"search: {reason.last_line}; the task is done again")
            self._jobs.append(job)

    def _end_badly(self, search_id: str, reason: Reason) -> None:
        search = self._at_work[search_id]
        search.log(f"failed: {reason.last_line}\n{reason.traceback}")
        self._drop(search_id)
        self._fail(search_id, reason)

    def _fail(self, search_id: str, reason: Reason) -> None:
        self._failed[search_id] = reason
        self._board.update(search_id, "failed", reason.last_line)

    def _drop(self, search_id: str) -> None:
        self._at_work.pop(search_id).mark.close()
        self._jobs = [job for job in self._jobs if job.search_id != search_id]

    def _show(self, search_id: str, search: _Search) -> None:
        line = search.driver.headline()
        long = [job.task.name for job in self._pool.jobs if job.search_id == search_id and job.task.long]
        with contextlib.suppress(StoreError):
            told = [self._store.status.last_task_line(search_id, name) for name in long[:1]]
            line += "".join(f" ({one})" for one in told if one)
        self._board.update(search_id, "at work", line)
