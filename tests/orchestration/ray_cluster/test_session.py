"""Ray's start and end beside other work, with a Ray that is not there."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.ray_cluster import session
from orchestration.ray_cluster.cluster import Cluster


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens to a Ray that starts and ends only when it may: `may_end` is an event."""
    happened: list[str] = []

    @contextlib.contextmanager
    def running_ray(cluster: Cluster, scratch: Path) -> Iterator[None]:
        assert scratch.is_dir()
        happened.append(f"start {cluster.address}")
        try:
            yield
        finally:
            happened.append("end")

    monkeypatch.setattr(session.clusters, "running_ray", running_ray)
    monkeypatch.setattr(session, "_TUNE", "tests.orchestration.not_imported_before")
    monkeypatch.setattr(session, "_REPORT", ())
    monkeypatch.setattr(session.importlib, "import_module", lambda name: happened.append(f"import {name}"))
    return happened


def test_ray_runs_until_its_end_and_tune_is_imported_when_it_does(events: list[str]) -> None:
    with session.starting_ray(Cluster(address="here:1")) as ray:
        assert sorted(events) == ["import tests.orchestration.not_imported_before", "start here:1"]
        ray.end()
        ray.end()
        ray.wait()
        assert events[2:] == ["end"]
    assert events[2:] == ["end"]


def test_an_error_ends_ray_once(events: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt), session.starting_ray(Cluster()):
        raise KeyboardInterrupt
    assert events.count("end") == 1


def test_the_caller_goes_on_while_ray_ends(events: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = threading.Event()
    with session.starting_ray(Cluster()) as ray:
        ray._running.callback(may_end.wait)
        ray.end()
        assert "end" not in events
        may_end.set()
    assert events[-1] == "end"


def test_where_tune_is_there_the_launch_itself_starts_ray(events: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, session._TUNE, sys)
    with session.starting_ray(Cluster()):
        pass
    assert events == []
