"""Searches on a real Ray, on digits."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from orchestration.search.task_runner import search_in_store
from orchestration.store.run_state import Cause
from orchestration.store.store import Store
from tests.orchestration.conftest import ROOT, SMALL, Launch
from tests.orchestration.search.test_task_runner import SEARCH

# Ray 2.60 leaves sockets and files of its own processes to the garbage collector.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]


def searched(**overrides: object) -> RunConfig:
    return build_run("digits", "fast-autoaugment-searched", overrides={**SEARCH, **overrides})


def policy_alone(run: RunConfig, tmp_path: Path):
    return search_in_store(run, Store(tmp_path / "alone").create())


def test_searches_on_ray_find_what_one_process_finds(launch: Launch, store: Store, tmp_path: Path) -> None:
    first, second = searched(), searched(**{"training.epochs": 3})
    assert first.search_id == second.search_id
    baseline = build_run("digits", "baseline", overrides=SMALL)
    bad = searched(**{"policy.search.images": 10})
    progress = launch([bad, first, second, baseline], store)
    assert store.status.done() == {run.run_id for run in (first, second, baseline)}
    policy, alone = store.policies.read(str(first.search_id)), policy_alone(first, tmp_path)
    assert policy.sub_policies == alone.sub_policies
    assert policy.provenance["rewards"] == alone.provenance["rewards"]
    assert list(progress.failed) == [bad.run_id], "a search that fails takes only its own run with it"
    failure = store.status.failure(bad.run_id)
    assert failure is not None
    assert (failure.cause, failure.kind) == (Cause.ERROR, "DataError")
    assert "fold_worker.py" in failure.traceback, "the traceback of the actor"


class Killer(threading.Thread):
    """Sends SIGKILL to the first process that is at work on a network, once."""

    def __init__(self, store: Store, search_id: str) -> None:
        super().__init__(daemon=True)
        self._log = Path(str(store.paths.search(search_id) / "fold-0" / "log.txt"))
        self.killed = 0

    def run(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not self.killed:
            with contextlib.suppress(OSError):
                if "epoch 3" in self._log.read_text():
                    self.killed = self._holder()
            time.sleep(0.02)

    def _holder(self) -> int:
        inode = self._log.stat().st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[5].endswith(f":{inode}"):
                os.kill(int(fields[4]), signal.SIGKILL)
                return int(fields[4])
        return 0


@pytest.mark.long
def test_a_task_whose_process_dies_is_done_again(launch: Launch, store: Store, tmp_path: Path) -> None:
    run = searched(**{"policy.search.epochs": 40})
    killer = Killer(store, str(run.search_id))
    killer.start()
    out = io.StringIO()
    progress = launch([run], store, out)
    killer.join(1)
    assert killer.killed
    assert progress.done == 1, out.getvalue()
    assert "the process of the run died without a word" in out.getvalue()
    assert store.policies.read(str(run.search_id)).sub_policies == policy_alone(run, tmp_path).sub_policies


@pytest.mark.long
@pytest.mark.parametrize(
    ("stop", "kind"),
    [
        pytest.param(signal.SIGINT, "local", id="Ctrl-C"),
        pytest.param(signal.SIGKILL, "s3", id="killed"),
    ],
)
def test_a_stopped_launch_goes_on_with_its_searches(
    stop: signal.Signals, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    grid = tmp_path / "g.yaml"
    settings = {**SEARCH, "policy.search.trials": 24, "policy.search.epochs": 30}
    grid.write_text(
        "name: g\ndatasets: [digits]\ndistortions: ['2-0.1']\nmethods: [fast-autoaugment-searched]\nseeds: 1\n"
        f"set: {{{', '.join(f'{key}: {value}' for key, value in settings.items())}}}\n"
    )
    store = Store(tmp_path / "S" if kind == "local" else f"{request.getfixturevalue('bucket')}/S")
    command = [sys.executable, "-m", "orchestration.cli", "launch", str(grid), "--store", store.uri]
    environment = {**os.environ, "HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    distortion = DistortionConfig.parse("2-0.1")
    run = build_run("digits", "fast-autoaugment-searched", distortion=distortion, overrides=settings)
    folder = store.paths.search(str(run.search_id))

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def trials() -> int:
        total = 0
        for fold in range(2):
            with contextlib.suppress(FileNotFoundError):
                total += (folder / f"fold-{fold}.json").read_text().count('"reward"')
        return total

    with start() as first:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not trials():
            time.sleep(0.05)
        first.send_signal(stop)
        out, _ = first.communicate(timeout=60)
    assert not store.policies.names()
    assert 0 < trials() < 48
    if stop == signal.SIGINT:
        assert first.returncode == 130, out
        assert "stopping the searches; the same command continues them" in out
        assert "interrupted: 0 of 1 runs are done; the same command continues" in out
    with start() as second:
        out, _ = second.communicate(timeout=180)
    assert second.returncode == 0, out
    assert "all 1 runs are done" in out
    alone = policy_alone(run, tmp_path)
    assert store.policies.read(str(run.search_id)).sub_policies == alone.sub_policies
