"""Runs by two processes each, on a Ray that has no room for them, or not for all."""

import io
import threading
import time

import pytest

from orchestration.store.store import Store
from tests.orchestration.execution.two_workers import MARKS, check_results, ray_with, small

pytestmark = MARKS


@pytest.mark.long
def test_runs_that_wait_for_each_others_cpus_all_end(store: Store) -> None:
    """Three runs at a time want six of three CPUs: one CPU is always left over, and must help nobody to half a run."""
    runs = [small(seed=seed) for seed in range(3)]
    with ray_with(3) as launch:
        progress = launch(runs, store, max_concurrent=3)
    assert (progress.done, progress.failed) == (3, {})
    for run in runs:
        check_results(store, run)


@pytest.mark.long
def test_a_run_that_gets_no_room_ends_with_the_time_and_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = small(), small(seed=1)
    with ray_with(1) as launch:
        from ray.util.state import list_actors, list_placement_groups

        from orchestration.execution import supervisor

        progress = launch([run], store, joins=True, seconds=5)
        assert progress.stop_reason == "out of time"
        assert (progress.done, progress.failed, progress.stopped) == (0, {}, {run.run_id})
        assert not store.paths.log(run.run_id).exists()

        monkeypatch.setattr(supervisor, "IDLE_SECONDS", 1.0)
        said = io.StringIO()
        progress = launch([run], store, joins=True, file=said, seconds=30)
        assert progress.stopped == {run.run_id}
        assert "no node has had room for a run for 1 s: a run needs 2 times 1 CPUs" in said.getvalue()

        deadline = time.monotonic() + 30
        while left := [
            actor for actor in list_actors(limit=1000) if actor.state != "DEAD" and "Train" in actor.class_name
        ]:
            assert time.monotonic() < deadline, left
            time.sleep(0.2)
        assert [group for group in list_placement_groups() if group.state != "REMOVED"] == []
        assert launch([other], store, workers=1).done == 1


@pytest.mark.long
def test_a_run_begins_when_there_is_room(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small()
    said = io.StringIO()
    with ray_with(2) as launch:
        import ray

        from orchestration.execution import supervisor

        monkeypatch.setattr(supervisor, "IDLE_SECONDS", 1.0)
        holder = ray.remote(num_cpus=1)(threading.Event).remote()
        ray.get(holder.is_set.remote())

        def free() -> None:
            deadline = time.monotonic() + 120
            while "no node has had room" not in said.getvalue() and time.monotonic() < deadline:
                time.sleep(0.1)
            ray.kill(holder)

        freeing = threading.Thread(target=free)
        freeing.start()
        progress = launch([run], store, file=said, retries=0)
        freeing.join()
    assert "no node has had room" in said.getvalue()
    assert (progress.done, progress.failed) == (1, {})
    check_results(store, run)
