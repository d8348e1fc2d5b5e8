"""The searches of a launch, side by side on Ray, before the runs that need their policies.

The state of a search is in this process, and in the store after every few tasks; so the death of an actor costs a task,
and that of this process little more. The result of a task does not depend on the actor.
"""

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Mapping
from typing import Literal

from ray.exceptions import RayError
from rich.console import Console

from autodo.config.run import RunConfig
from autodo.errors import StoreError
from autodo.io.storage import StrPath
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
"""Time between two looks at a search of another process, and at the logs of long tasks."""
WAIT_SECONDS = 0.5
IDLE_SECONDS = 60.0
"""Time without a single process after which a message says what the searches wait for."""

StopReason = Literal["interrupted", "out of time"]


@dataclasses.dataclass(frozen=True)
class SearchResults:
    """The end of all searches.

    Args:
        failed: reasons of the searches that failed, by search id.
        stop_reason: reason why some may be neither found nor failed.
    """

    failed: dict[str, Reason]
    stop_reason: StopReason | None


def find_policies(
    wanted: Mapping[str, RunConfig],
    store: Store,
    console: Console,
    *,
    resources: ResourcesConfig,
    slots: int,
    retries: int,
    seconds: float | None = None,
    data_dir: StrPath | None = None,
) -> SearchResults:
    """Searches the policies that the store lacks, on the Ray that runs in this process.

    A search that fails leaves the others alone; one that another launch executes is waited for. The first Ctrl-C or
    SIGTERM ends all of them at once, and the next call continues: a network that was being trained from the checkpoint
    of its last epoch, a population from its last perturbation, and a few trials are done again.

    Args:
        wanted: by search id, a run that needs the policy.
        resources: resources of one process; `workers` is not used.
        slots: largest number of processes.
        retries: number of times that the death of a process is forgiven a search; the loss of a node always is.
        seconds: time after which the searches end as by Ctrl-C; None for no limit.
    Raises:
        KeyboardInterrupt: on a second Ctrl-C or SIGTERM.
    """
    with SearchDisplay(wanted, console) as display:
        pool = ActorPool(store.uri, absolute(data_dir) if data_dir else None, resources, slots)
        searches = _Searches(wanted, store, display, pool, retries, seconds)
        with (
            clusters.on_signal(signal.SIGINT, searches.on_stop_signal),
            clusters.on_signal(signal.SIGTERM, searches.on_stop_signal),
        ):
            return searches.run()


class _Search:
    """A search that this process executes, as long as `claim` is open."""

    def __init__(self, config: RunConfig, driver: Driver, attempt: Attempt, claim: contextlib.ExitStack) -> None:
        self.config, self.driver, self.attempt, self.claim = config, driver, attempt, claim
        self.deaths = 0

    def log(self, line: str) -> None:
        task_runner.write_log(self.attempt, str(self.config.search_id), line)


class _Searches:
    """Searches that wait, are at work or have failed, by search id."""

    def __init__(
        self,
        wanted: Mapping[str, RunConfig],
        store: Store,
        display: SearchDisplay,
        pool: ActorPool,
        retries: int,
        seconds: float | None,
    ) -> None:
        self._store, self._display, self._pool, self._retries = store, display, pool, retries
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._stop_reason: StopReason | None = None
        self._waiting = dict(wanted)
        self._at_work: dict[str, _Search] = {}
        self._failed: dict[str, Reason] = {}
        self._tasks: list[SearchTask] = []
        self._looked = -LOOK_SECONDS
        self._idle_since: float | None = time.monotonic()

    def on_stop_signal(self, *_: object) -> None:
        """Stops the searches. A second signal raises KeyboardInterrupt."""
        if self._stop_reason == "interrupted":
            raise KeyboardInterrupt
        self._stop_reason = "interrupted"
        self._display.say("stopping the searches; the same command continues them")

    def run(self) -> SearchResults:
        """Runs the searches until all have ended or should stop."""
        try:
            while (self._waiting or self._at_work) and not self._should_stop():
                self._look_around()
                self._tasks = self._pool.start(self._tasks)
                for search_task, outcome in self._pool.outcomes(WAIT_SECONDS):
                    self._take(search_task, outcome)
                self._display.refresh()
        finally:
            self._pool.end()
            for search in self._at_work.values():
                search.log("stopped; the next attempt continues")
                search.claim.close()
        return SearchResults(self._failed, self._stop_reason)

    def _should_stop(self) -> bool:
        if self._stop_reason is None and time.monotonic() >= self._deadline:
            self._stop_reason = "out of time"
            self._display.say("the time budget is over: the searches stop, and the same command continues them")
        return self._stop_reason is not None

    def _look_around(self) -> None:
        """Tries to begin waiting searches, shows the logs of long tasks, and says if no process has found room."""
        now = time.monotonic()
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
            self._display.say(f"no node has had room for a search for {IDLE_SECONDS:.0f} s: {self._pool.need()}")

    def _try_to_begin(self, search_id: str, config: RunConfig) -> None:
        with contextlib.ExitStack() as stack:
            try:
                if search_id in self._store.policies.names():
                    del self._waiting[search_id]
                    self._display.update(search_id, "found", "by another launch")
                    return
                attempt = stack.enter_context(self._store.search_attempt(search_id))
                search = _Search(config, task_runner.begin(config, self._store), attempt, stack)
            except RunBusy:
                self._display.update(search_id, "in another launch", "")
                return
            except Exception as error:  # an error of one search does not end the others
                del self._waiting[search_id]
                self._fail(search_id, reason_of(error))
                return
            search.claim = stack.pop_all()
        del self._waiting[search_id]
        self._at_work[search_id] = search
        search.log(f"at work, {search.driver.status_line()}")
        # Another launch may have found the policy before this one claimed the search.
        if search_id in self._store.policies.names():
            self._drop(search_id)
            self._display.update(search_id, "found", "by another launch")
            return
        self._continue(search_id, search)

    def _continue(self, search_id: str, search: _Search) -> None:
        """Queues the tasks that are ready, or keeps the policy if it was found."""
        policy = search.driver.policy
        if policy is None:
            config = search.config.model_dump(mode="json")
            self._tasks += [SearchTask(search_id, config, task) for task in search.driver.ready()]
            self._show(search_id, search)
            return
        task_runner.save_policy(policy, search_id, self._store, search.attempt)
        search.log("found")
        self._display.update(search_id, "found", search.driver.status_line())
        self._drop(search_id)

    def _take(self, search_task: SearchTask, outcome: TaskOutcome | RayError) -> None:
        search = self._at_work.get(search_task.search_id)
        if search is None:
            return  # it has failed since
        try:
            if isinstance(outcome, RayError):
                self._died(search_task, search, reason_of_death(f"{type(outcome).__name__}: {outcome}"))
            elif outcome[0] == "failed":
                cause, *rest = outcome[1]
                self._end_badly(search_task.search_id, Reason(Cause(cause), *rest))
            else:
                search.driver.task_done(search_task.task, outcome[1])
                search.attempt.keep()
                self._continue(search_task.search_id, search)
        except RunBusy:  # another process has taken the search over
            self._waiting[search_task.search_id] = search.config
            self._drop(search_task.search_id)
        except Exception as error:
            self._end_badly(search_task.search_id, reason_of(error))

    def _died(self, search_task: SearchTask, search: _Search, reason: Reason) -> None:
        search.deaths += reason.cause is not Cause.NODE_LOST
        search.log(f"{search_task.task.name}: {reason.last_line}")
        if search.deaths > self._retries:
            self._end_badly(search_task.search_id, reason)
        else:
            self._display.say(f"search: {reason.last_line}; the task is done again")
            self._tasks.append(search_task)

    def _end_badly(self, search_id: str, reason: Reason) -> None:
        self._at_work[search_id].log(f"failed: {reason.last_line}\n{reason.traceback}")
        self._drop(search_id)
        self._fail(search_id, reason)

    def _fail(self, search_id: str, reason: Reason) -> None:
        self._failed[search_id] = reason
        self._display.update(search_id, "failed", reason.last_line)

    def _drop(self, search_id: str) -> None:
        self._at_work.pop(search_id).claim.close()
        self._tasks = [search_task for search_task in self._tasks if search_task.search_id != search_id]

    def _show(self, search_id: str, search: _Search) -> None:
        line = search.driver.status_line()
        long = [one.task.name for one in self._pool.busy if one.search_id == search_id and one.task.long]
        with contextlib.suppress(StoreError):
            last_lines = [self._store.status.last_task_line(search_id, name) for name in long[:1]]
            line += "".join(f" ({last})" for last in last_lines if last)
        self._display.update(search_id, "at work", line)
