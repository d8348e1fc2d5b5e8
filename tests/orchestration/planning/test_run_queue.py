"""The order of runs, and what is tried again, without Ray."""

import datetime

import pytest

from autodo.config.recipes import build_run
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.run_queue import BUSY_PAUSE_SECONDS, Job, RunQueue
from orchestration.store.patience import BUSY_SECONDS
from orchestration.store.run_state import Cause, Failure

RUN = build_run("digits", "baseline")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def jobs(**seconds: float | None) -> list[Job]:
    return [Job(name, RUN, ResourcesConfig(), expected) for name, expected in seconds.items()]


def failure(cause: Cause = Cause.ERROR, attempts: int = 1) -> Failure:
    now = datetime.datetime.now(datetime.UTC)
    return Failure(cause=cause, kind="E", last_line="e", traceback="", attempts=attempts, time=now)


def taken(queue: RunQueue) -> list[str]:
    ids = []
    while (job := queue.take()) is not None:
        ids.append(job.run_id)
    return ids


def test_unknown_runs_come_first_then_the_longest_and_equals_in_their_order() -> None:
    queue = RunQueue(jobs(short=1.0, long=9.0, unknown=None, long2=9.0, middle=5.0), retries=2)
    assert taken(queue) == ["unknown", "long", "long2", "middle", "short"]


def test_runs_of_unknown_length_are_ordered_by_cost() -> None:
    costs = {"baseline": 40.0, "exact": 80.0, "aws": 72.0}
    unknown = [Job(name, RUN, ResourcesConfig(), None, cost) for name, cost in costs.items()]
    queue = RunQueue([*jobs(known=500.0), *unknown], retries=2)
    assert taken(queue) == ["exact", "aws", "baseline", "known"]


def test_a_run_of_unknown_length_and_cost_costs_an_epoch() -> None:
    more, less = (Job(name, RUN, ResourcesConfig(), None, cost) for name, cost in (("more", 1.5), ("less", 0.5)))
    assert taken(RunQueue([less, *jobs(unknown=None), more], retries=2)) == ["more", "unknown", "less"]


def test_no_more_are_at_work_than_allowed() -> None:
    queue = RunQueue(jobs(a=None, b=None, c=None), retries=2, at_most=2)
    assert taken(queue) == ["a", "b"]
    queue.ended("a")
    assert taken(queue) == ["c"]


def test_it_is_finished_when_everything_has_ended() -> None:
    queue = RunQueue(jobs(a=None), retries=2)
    assert not queue.finished
    queue.take()
    assert not queue.finished
    queue.ended("a")
    assert queue.finished


def test_a_failed_run_comes_last_and_is_given_up_after_its_retries() -> None:
    queue = RunQueue(jobs(a=9.0, b=1.0), retries=2)
    queue.take()
    assert queue.failed("a", failure(attempts=1))
    assert taken(queue) == ["b", "a"]
    assert queue.failed("a", failure(attempts=2))
    queue.take()
    assert not queue.failed("a", failure(attempts=3))
    queue.ended("b")
    assert queue.finished


def test_a_failure_that_the_store_could_not_record_counts_too() -> None:
    queue = RunQueue(jobs(a=None), retries=1)
    queue.take()
    assert queue.failed("a", failure(attempts=1))
    queue.take()
    assert not queue.failed("a", failure(attempts=1))


def test_a_diverged_run_is_not_tried_again() -> None:
    queue = RunQueue(jobs(a=None), retries=5)
    queue.take()
    assert not queue.failed("a", failure(Cause.DIVERGED))


def test_a_lost_node_is_not_counted_as_a_failure() -> None:
    queue = RunQueue(jobs(a=None), retries=0)
    for _ in range(20):
        assert queue.take() is not None
        assert queue.failed("a", failure(Cause.NODE_LOST, attempts=0))


def test_after_a_stop_nothing_starts_and_it_ends_with_the_runs_at_work() -> None:
    queue = RunQueue(jobs(a=None, b=None), retries=2)
    queue.take()
    queue.stop()
    assert queue.take() is None
    assert not queue.finished
    queue.ended("a")
    assert queue.finished


def test_the_queue_stops_when_the_time_is_over(clock: Clock) -> None:
    queue = RunQueue(jobs(a=None, b=None), retries=2, seconds=10, clock=clock)
    queue.take()
    assert not queue.stopping
    clock.now = 10.0
    assert queue.stopping
    assert queue.out_of_time
    assert queue.take() is None


def test_a_busy_run_is_tried_again_when_nothing_else_waits_and_finally_left(clock: Clock) -> None:
    queue = RunQueue(jobs(a=None, b=None), retries=2, clock=clock)
    queue.take()
    queue.is_busy("a")
    assert taken(queue) == ["b"]
    queue.ended("b")
    clock.now = 2.0
    assert taken(queue) == ["a"]
    queue.is_busy("a")
    clock.now = 3.9
    assert queue.take() is None, "not at once"
    clock.now = 4.0
    assert taken(queue) == ["a"]
    queue.is_busy("a")
    assert not queue.finished
    clock.now = 20.0
    assert queue.finished


def test_the_busy_run_that_has_waited_longest_is_tried_first(clock: Clock) -> None:
    queue = RunQueue(jobs(a=None, b=None, c=1.0), retries=2, clock=clock)
    assert taken(queue) == ["a", "b", "c"]
    queue.is_busy("b")
    queue.is_busy("a")
    queue.ended("c")
    clock.now = BUSY_PAUSE_SECONDS
    assert taken(queue) == ["b"], "one at a time"
    queue.is_busy("b")
    clock.now = 2 * BUSY_PAUSE_SECONDS
    assert taken(queue) == ["a"]


@pytest.mark.parametrize("patience", [BUSY_SECONDS, 7.0])
@pytest.mark.parametrize("end", ["done", "failed"])
def test_patience_with_a_busy_run_begins_when_the_last_of_ours_ends(clock: Clock, patience: float, end: str) -> None:
    queue = RunQueue(jobs(a=None, b=None), retries=0, clock=clock, patience_seconds=patience)
    assert taken(queue) == ["a", "b"]
    queue.is_busy("a")
    clock.now = 1000.0
    assert not queue.finished, "b is at work"
    if end == "done":
        queue.ended("b")
    else:
        assert not queue.failed("b", failure())
    assert not queue.finished
    clock.now = 1000.0 + patience - 0.5
    assert not queue.finished
    clock.now = 1000.0 + patience
    assert queue.finished


def test_patience_is_counted_from_the_start_of_the_queue(clock: Clock) -> None:
    clock.now = 500.0
    queue = RunQueue(jobs(a=None), retries=0, clock=clock)
    queue.take()
    queue.is_busy("a")
    clock.now = 500.0 + BUSY_PAUSE_SECONDS - 0.1
    assert queue.take() is None
    clock.now = 500.0 + BUSY_SECONDS - 0.1
    assert not queue.finished
    clock.now = 500.0 + BUSY_SECONDS
    assert queue.finished


def test_the_time_is_counted_from_the_start_of_the_queue(clock: Clock) -> None:
    clock.now = 500.0
    queue = RunQueue(jobs(a=None), retries=0, seconds=10, clock=clock)
    clock.now = 509.9
    assert not queue.out_of_time
    clock.now = 510.0
    assert queue.out_of_time


def test_a_run_that_was_busy_and_is_free_now_is_run(clock: Clock) -> None:
    queue = RunQueue(jobs(a=None), retries=2, clock=clock)
    queue.take()
    queue.is_busy("a")
    clock.now = BUSY_PAUSE_SECONDS
    assert taken(queue) == ["a"]
    queue.ended("a")
    assert queue.finished
