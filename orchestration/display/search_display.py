"""The policy searches of a launch on the terminal."""

import time
from collections.abc import Mapping
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autodo.config.run import RunConfig
from orchestration.display.live import INTERVAL_SECONDS, Clock, Interval, LiveDisplay
from orchestration.display.text import duration, search_label

SearchState = Literal["waiting", "at work", "in another launch", "found", "failed"]


class SearchDisplay(LiveDisplay):
    """State of each search and its latest line; a table on a terminal, lines elsewhere.

    Args:
        searches: by search id, each with a run that needs it.
    """

    def __init__(self, searches: Mapping[str, RunConfig], console: Console, *, clock: Clock = time.monotonic) -> None:
        super().__init__(console, clock)
        self._labels = {search_id: search_label(run) for search_id, run in searches.items()}
        self.states: dict[str, SearchState] = dict.fromkeys(searches, "waiting")
        self._lines = dict.fromkeys(searches, "")
        self._begun = clock()
        self._interval = Interval(INTERVAL_SECONDS, clock)

    def update(self, search_id: str, state: SearchState, line: str) -> None:
        """Set the state of a search and its line; the end of a search is printed at once."""
        before = self.states[search_id]
        self.states[search_id], self._lines[search_id] = state, line
        if state != before and state in ("found", "failed", "in another launch"):
            self.say(f"search {state}: {self._labels[search_id]}{f': {line}' if line else ''}")

    def refresh(self) -> None:
        """Print the searches at work if it is time to and no terminal shows them."""
        if not self._is_live and self._interval.is_over():
            for search_id, state in self.states.items():
                if state == "at work":
                    self.say(f"searching: {self._labels[search_id]}: {self._lines[search_id]}")

    def render(self) -> Table:
        """Draw a count of the searches that are done, and a row for each of the others."""
        table = Table.grid(padding=(0, 2))
        shown = [search_id for search_id, state in self.states.items() if state not in ("found", "failed")]
        done = len(self.states) - len(shown)
        table.add_row(f"{done} of {len(self.states)} searches done", f"{duration(self._clock() - self._begun)} so far")
        for search_id in shown[: max(1, self._console.height - 4)]:
            line = self._lines[search_id]
            table.add_row(
                Text("  " + self._labels[search_id], style="cyan", no_wrap=True, overflow="ellipsis"),
                Text(line) if line else Text(self.states[search_id], style="dim"),
            )
        return table
