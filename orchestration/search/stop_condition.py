"""The reasons to stop searches before their end: a signal, or the end of the time budget."""

import math
import time
from collections.abc import Callable
from typing import Literal

StopReason = Literal["interrupted", "out of time"]


class StopCondition:
    """Met after Ctrl-C, SIGTERM or the end of the time budget.

    Args:
        seconds: time budget; None for no limit.
        say: prints a line for people.
    """

    def __init__(self, seconds: float | None, say: Callable[[str], None]) -> None:
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._say = say
        self.reason: StopReason | None = None

    def on_signal(self, *_: object) -> None:
        """Handles the signal. A second one raises KeyboardInterrupt."""
        if self.reason == "interrupted":
            raise KeyboardInterrupt
        self.reason = "interrupted"
        self._say("stopping the searches; the same command continues them")

    def is_met(self) -> bool:
        """Whether the searches should stop."""
        if self.reason is None and time.monotonic() >= self._deadline:
            self.reason = "out of time"
            self._say("the time budget is over: the searches stop, and the same command continues them")
        return self.reason is not None
