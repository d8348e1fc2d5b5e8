"""Population-based searches in a store, one after another, on Ray Tune."""

import collections
import time
from collections.abc import Mapping
from typing import Any

from autodo.config.run import RunConfig
from orchestration.display.search_display import SearchDisplay
from orchestration.search.population_tuning import MemberFailed, tune_population
from orchestration.search.stop_condition import StopCondition
from orchestration.search.task_runner import save_policy, write_log
from orchestration.search.task_searches import LOOK_SECONDS
from orchestration.store.failures import Reason, reason_of
from orchestration.store.run_state import Cause, RunBusy
from orchestration.store.store import Store


class PopulationSearches:
    """Searches that wait or are at work.

    Args:
        retries: number of times that the death of a process is forgiven a search; the loss of a node always is.
        options: `data_dir`, `resources` and `scratch` of `tune_population`.
    """

    def __init__(
        self,
        wanted: Mapping[str, RunConfig],
        store: Store,
        display: SearchDisplay,
        stop: StopCondition,
        retries: int,
        **options: Any,
    ) -> None:
        self._store, self._display, self._stop, self._retries, self._options = store, display, stop, retries, options
        self._waiting = dict(wanted)
        self._failed: dict[str, Reason] = {}
        self._deaths: collections.Counter[str] = collections.Counter()

    def run(self) -> dict[str, Reason]:
        """Runs the searches until all have ended or should stop. Returns why some failed, by search id."""
        while self._waiting and not self._stop.is_met():
            # A search that does not end here is tried again after the others.
            search_id = next(iter(self._waiting))
            config = self._waiting.pop(search_id)
            try:
                if self._search(search_id, config):
                    self._display.update(search_id, "found", "")
                else:
                    self._waiting[search_id] = config
            except RunBusy:
                self._display.update(search_id, "in another launch", "")
                self._waiting[search_id] = config
                time.sleep(LOOK_SECONDS)
            except Exception as error:  # an error of one search does not end the others
                self._handle(error, search_id, config)
        return self._failed

    def _handle(self, error: Exception, search_id: str, config: RunConfig) -> None:
        reason = error.reason if isinstance(error, MemberFailed) else reason_of(error)
        self._deaths[search_id] += reason.cause is not Cause.NODE_LOST
        if reason.kind == "ProcessDied" and self._deaths[search_id] <= self._retries:
            self._display.say(f"search: {reason.last_line}; the population continues from its last perturbation")
            self._waiting[search_id] = config
        else:
            self._failed[search_id] = reason
            self._display.update(search_id, "failed", reason.last_line)

    def _search(self, search_id: str, config: RunConfig) -> bool:
        """Searches one policy. Returns whether it is in the store now; it is not if the search was stopped."""
        with self._store.search_attempt(search_id) as attempt:
            if search_id in self._store.policies.names():
                return True

            def report(line: str) -> None:
                write_log(attempt, search_id, line)
                self._display.update(search_id, "at work", line)
                self._display.refresh()

            report("at work")
            options = {**self._options, "scratch": self._options["scratch"] / search_id}
            folder = self._store.paths.search(search_id)
            try:
                policy = tune_population(config, folder, report=report, stop=self._stop.is_met, **options)
            except MemberFailed as error:
                attempt.log.write(f"{error}\n")
                raise
            if policy is None:
                report("stopped; the next attempt continues")
                return False
            save_policy(policy, search_id, self._store, attempt)
            report("found")
            return True
