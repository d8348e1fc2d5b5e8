"""How far the searches of a launch are, on the terminal: a live display, or plain lines where there is no terminal."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Literal, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autodo.config.run import RunConfig
from orchestration.display.progress import duration

SearchState = Literal["waiting", "at work", "in another launch", "found", "failed"]
INTERVAL_SECONDS = 15.0
"""Between two lines of a search where there is no terminal."""


def search_label(run: RunConfig) -> str:
    """A search for a person: `fast-autoaugment on digits 10-0.1 seed 0`."""
    assert run.search_id is not None
    return f"{run.search_id.rpartition('-')[0]} on {run.dataset.label} {run.distortion} seed {run.seed}"


class SearchBoard:
    """The state of each search, and what it says of itself.

    Args:
        searches: by search id.
    """

    def __init__(
        self, searches: Mapping[str, RunConfig], console: Console, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._clock = console, clock
        self._labels = {search_id: search_label(run) for search_id, run in searches.items()}
        self.states: dict[str, SearchState] = dict.fromkeys(searches, "waiting")
        self._lines = dict.fromkeys(searches, "")
        self._begun = clock()
        self._told_at = self._begun
        self._live = (
            Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, search_id: str, state: SearchState, line: str) -> None:
        """What is known of a search now; its end is told at once."""
        before = self.states[search_id]
        self.states[search_id], self._lines[search_id] = state, line
        if state != before and state in ("found", "failed", "in another launch"):
            self.say(f"search {state}: {self._labels[search_id]}{f': {line}' if line else ''}")

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self._console.print(Text(text), soft_wrap=True)

    def refresh(self) -> None:
        """Prints the searches at work if it is time to, and there is no terminal that shows them anyway."""
        if self._live is not None or self._clock() - self._told_at < INTERVAL_SECONDS:
            return
        self._told_at = self._clock()
        for search_id, state in self.states.items():
            if state == "at work":
                self.say(f"searching: {self._labels[search_id]}: {self._lines[search_id]}")

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 2))
        ended = sum(state in ("found", "failed") for state in self.states.values())
        elapsed = duration(self._clock() - self._begun)
        table.add_row(f"{ended} of {len(self.states)} searches done", f"{elapsed} so far")
        shown = [search_id for search_id, state in self.states.items() if state not in ("found", "failed")]
        for search_id in shown[: max(1, self._console.height - 4)]:
            label = Text("  " + self._labels[search_id], style="cyan", no_wrap=True, overflow="ellipsis")
            table.add_row(
                label,
                Text(self._lines[search_id]) if self._lines[search_id] else Text(self.states[search_id], style="dim"),
            )
        return table
