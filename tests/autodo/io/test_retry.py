"""Retries, with a clock that only the pauses move."""

import pytest

from autodo.io import retry as module
from autodo.io.retry import retry


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def failing(*errors: Exception):
    remaining = list(errors)

    def action() -> str:
        if remaining:
            raise remaining.pop(0)
        return "done"

    return action


def patience(error: Exception) -> float:
    return 10.0 if isinstance(error, OSError) else 0.0


def test_pauses_grow_to_their_limit_and_end_at_the_patience(clock: Clock) -> None:
    failures: list[float] = []
    with pytest.raises(OSError, match="11"):
        retry(
            failing(*(OSError(str(n)) for n in range(12))),
            patience,
            pause=0.5,
            longest_pause=1.0,
            on_failure=lambda error, left: failures.append(left),
        )
    assert clock.pauses == [0.5, *[1.0] * 9, 0.5]
    assert failures == [10.0, *[9.5 - n for n in range(10)]]


def test_the_result_of_the_first_success_is_returned(clock: Clock) -> None:
    assert retry(failing(OSError(), OSError()), patience) == "done"
    assert clock.pauses == [0.5, 1.0]


def test_an_error_without_patience_is_raised_at_once(clock: Clock) -> None:
    with pytest.raises(ValueError, match="wrong"):
        retry(failing(OSError(), ValueError("wrong")), patience)
    assert clock.pauses == [0.5]
