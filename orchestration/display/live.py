"""Base of the displays: redrawn in place on a terminal; lines at intervals where output goes to a file or a pipe."""

import contextlib
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

INTERVAL_SECONDS = 15.0
"""Between two lines about a launch or its searches."""

Clock = Callable[[], float]


class LiveDisplay:
    """A display that is drawn by `render` on a terminal; elsewhere subclasses print lines with `say`."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._is_live = console.is_terminal
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if self._is_live:
            live = Live(console=self._console, get_renderable=self.render, refresh_per_second=4, transient=True)
            self._stack.enter_context(live)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def say(self, text: str) -> None:
        """Print a line that stays, above what is redrawn."""
        self._console.print(Text(text), soft_wrap=True)

    def render(self) -> RenderableType:
        """Draw the present state; called from a thread of rich's."""
        raise NotImplementedError


class Interval:
    """A timer of `seconds` that starts again when it is over."""

    def __init__(self, seconds: float, clock: Clock = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._begun = clock()

    def restart(self) -> None:
        """Start the interval again."""
        self._begun = self._clock()

    def is_over(self) -> bool:
        """Whether the interval is over; if so, the next one starts."""
        if self._clock() - self._begun < self._seconds:
            return False
        self.restart()
        return True
