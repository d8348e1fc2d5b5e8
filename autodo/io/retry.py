"""Retrying what may fail for a while, such as storage that does not answer or a file that is locked."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def retry(
    action: Callable[[], T],
    patience: Callable[[Exception], float],
    *,
    pause: float = 0.5,
    factor: float = 2.0,
    longest_pause: float = 30.0,
    on_failure: Callable[[Exception, float], object] = lambda error, seconds_left: None,
) -> T:
    """Call `action` until it succeeds; raise its last error when that error's patience is over.

    Args:
        patience: seconds since the first call for which an error is retried; 0 raises it at once.
        pause, factor, longest_pause: seconds before the second call, how they grow, and their limit.
        on_failure: called with each error that is retried, and the seconds left for it.
    """
    start = time.monotonic()
    while True:
        try:
            return action()
        except Exception as error:
            left = start + patience(error) - time.monotonic()
            if left <= 0:
                raise
            on_failure(error, left)
        time.sleep(min(pause, left))
        pause = min(factor * pause, longest_pause)
