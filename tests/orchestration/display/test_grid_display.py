import dataclasses
import io

import pytest
from rich.console import Console

from autodo.config.recipes import build_run
from orchestration.display.grid_display import GridDisplay
from orchestration.display.grid_progress import GridProgress
from orchestration.display.text import duration, label
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.run_queue import Job


def jobs(n: int, method: str = "baseline", expected_seconds: float | None = None) -> list[Job]:
    """Runs of ten epochs."""
    runs = [build_run("digits", method, seed=seed, overrides={"training.epochs": 10}) for seed in range(n)]
    return [Job(run.run_id, run, ResourcesConfig(), expected_seconds) for run in runs]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_every_run_is_counted_once() -> None:
    done, failed, busy, running = jobs(4)
    progress = GridProgress([done, failed, busy, running], done_before=3)
    for run in (done, failed, busy, running):
        progress.started(run.run_id)
    progress.ended(done.run_id, "done")
    progress.ended(failed.run_id, "failed", "boom")
    progress.ended(busy.run_id, "busy")
    assert progress.headline() == "4 of 7 runs done, 1 running, 1 failed, 1 at work in another launch"
    assert progress.failed == {failed.run_id: "boom"}


def test_the_remaining_time_is_the_epochs_left_over_the_slots() -> None:
    first, second, third = jobs(3)
    progress = GridProgress([first, second, third], slots=2)
    assert progress.remaining_seconds() is None
    progress.started(first.run_id)
    progress.started(second.run_id)
    progress.epoch(first.run_id, 4, 0.5, seconds=2.0)
    progress.epoch(second.run_id, 4, 0.5, seconds=2.0)
    # 5 + 5 + 10 epochs of 2 seconds on two slots.
    assert progress.remaining_seconds() == pytest.approx(20.0)


def test_unmeasured_runs_cost_what_they_cost_in_earlier_launches() -> None:
    (known,), (unknown,) = jobs(1, expected_seconds=30.0), jobs(1, method="autodo-aws")
    assert GridProgress([known]).remaining_seconds() == pytest.approx(30.0)
    progress = GridProgress([known, unknown])
    assert progress.remaining_seconds() is None
    progress.started(known.run_id)
    progress.epoch(known.run_id, 0, 0.5, seconds=1.0)
    assert progress.remaining_seconds() == pytest.approx(9 * 1.0 + 10 * 1.0)


def test_a_run_that_is_tried_again_waits_again() -> None:
    (run,) = jobs(1)
    progress = GridProgress([run])
    for _ in range(2):
        progress.started(run.run_id)
        progress.ended(run.run_id, "again", "boom")
    assert progress.headline() == "0 of 1 runs done, 0 running, 2 attempts repeated"
    progress.started(run.run_id)
    progress.ended(run.run_id, "busy")
    assert progress.busy == {run.run_id}
    progress.started(run.run_id)
    assert progress.busy == set()
    progress.ended(run.run_id, "done")
    assert (progress.done, progress.failed) == (1, {})


def test_a_run_whose_workers_have_no_room_is_not_at_work() -> None:
    (job,) = jobs(1)
    progress = GridProgress([job])
    console = Console(file=io.StringIO(), width=100)

    def shown() -> str:
        with console.capture() as capture:
            console.print(GridDisplay(progress, console).render())
        return capture.get()

    progress.started(job.run_id)
    progress.waits(job.run_id)
    assert progress.at_work == 0
    assert progress.headline() == "0 of 1 runs done, 0 running, 1 waiting for room"
    assert "waiting for room" in shown().splitlines()[-1]
    progress.started(job.run_id)
    assert progress.at_work == 1
    assert progress.headline() == "0 of 1 runs done, 1 running"
    assert "starting" in shown().splitlines()[-1]


def test_the_last_run_is_not_shared_among_slots() -> None:
    (run,) = jobs(1)
    progress = GridProgress([run], slots=8)
    progress.started(run.run_id)
    progress.epoch(run.run_id, 0, 0.5, seconds=3.0)
    assert progress.remaining_seconds() == pytest.approx(27.0)


def test_each_method_costs_what_it_cost_so_far() -> None:
    (cheap,), (dear,) = jobs(1), jobs(1, method="autodo-aws")
    progress = GridProgress([cheap, dear])
    for run, seconds in ((cheap, 1.0), (dear, 10.0)):
        progress.started(run.run_id)
        progress.epoch(run.run_id, 0, 0.5, seconds)
    assert progress.remaining_seconds() == pytest.approx(9 * 1.0 + 9 * 10.0)


def test_variants_of_a_method_have_their_own_times() -> None:
    early, late = (dataclasses.replace(job, variant=name) for job, name in zip(jobs(2), ("E10", "E50"), strict=True))
    progress = GridProgress([early, late])
    for job, seconds in ((early, 10.0), (late, 1.0)):
        progress.started(job.run_id)
        progress.epoch(job.run_id, 0, 0.5, seconds)
        progress.ended(job.run_id, "done" if job is early else "again")
    assert progress.remaining_seconds() == pytest.approx(10 * 1.0)


def test_a_pipe_gets_a_line_when_a_run_ends_and_when_the_interval_is_over() -> None:
    out, now = io.StringIO(), 0.0
    first, second = jobs(2)
    progress = GridProgress([first, second])
    display = GridDisplay(progress, Console(file=out, width=120), clock=lambda: now)
    progress.started(first.run_id)
    display.refresh()
    assert out.getvalue() == ""
    progress.ended(first.run_id, "done")
    display.refresh()
    display.refresh()
    now = 16.0
    display.refresh()
    assert out.getvalue().splitlines() == ["1 of 2 runs done, 0 running"] * 2


def test_more_runs_than_lines_are_counted() -> None:
    many = jobs(30)
    progress = GridProgress(many)
    for job in many:
        progress.started(job.run_id)
    console = Console(file=(out := io.StringIO()), force_terminal=True, width=120, height=10)
    console.print(GridDisplay(progress, console).render())
    assert "and 24 more" in out.getvalue()
    assert out.getvalue().count("starting") == 6


def test_a_terminal_shows_every_running_run() -> None:
    first, second = jobs(2)
    progress = GridProgress([first, second], slots=2)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    with GridDisplay(progress, console) as display:
        progress.started(first.run_id)
        progress.started(second.run_id)
        progress.epoch(first.run_id, 2, 0.123, 1.0)
        console.print(display.render())
    text = out.getvalue()
    assert "0 of 2 runs done, 2 running" in text
    assert "epoch 3/10" in text
    assert "val error 12.3%" in text
    assert "starting" in text
    assert label(second.run) in text
