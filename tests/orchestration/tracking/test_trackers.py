"""Trackers with the real libraries; MLflow and W&B where they are installed."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.errors import ConfigError
from orchestration.planning.run_queue import RunQueue
from orchestration.store.run_state import RunBusy
from orchestration.store.store import Store
from orchestration.tracking import settings, trackers
from orchestration.tracking.delivery import Delivery, delivering
from orchestration.tracking.settings import Tracking
from orchestration.tracking.trackers import MlflowTracker, TensorBoardTracker, run_labels
from tests.orchestration.conftest import Launch

ROOT = Path(__file__).parents[3]
RUN = build_run("digits", "baseline", seed=3, overrides={"training.epochs": 3})


def metrics(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "train_loss": 1 / (epoch + 1), "val_error": 0.5 - epoch / 10, "peak_memory_bytes": 10**9}


class Recorder:
    """A tracker that remembers; `broken` makes it raise."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.broken: Callable[[], bool] = lambda: False

    def epoch(self, run: RunConfig, metrics: Any) -> None:
        self._take("epoch", run.seed, metrics["epoch"])

    def ended(self, run: RunConfig, state: str, message: str | None) -> None:
        self._take("ended", run.seed, state, message)

    def close(self) -> None:
        self._take("close")

    def _take(self, *call: Any) -> None:
        if self.broken():
            raise ConnectionError("no answer\nat all")
        self.calls.append(call)


def report_epochs(delivery: Delivery, count: int) -> None:
    for epoch in range(count):
        delivery.put(lambda tracker, e=epoch: tracker.epoch(RUN, metrics(e)))  # type: ignore[misc]


# ----- delivery


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_reports_arrive_in_order_and_closing_waits_for_them() -> None:
    sink, told = Recorder(), []
    delivery = Delivery("T", lambda: sink, told.append)
    report_epochs(delivery, 100)
    delivery.close()
    assert sink.calls == [*(("epoch", 3, epoch) for epoch in range(100)), ("close",)]
    assert told == []


def test_an_outage_is_reported_once_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Delivery, "RETRY_AFTER_SECONDS", (0.05,) * 100)
    sink, told, away = Recorder(), [], threading.Event()
    away.set()
    sink.broken = away.is_set
    delivery = Delivery("T", lambda: sink, told.append)
    report_epochs(delivery, 5)
    wait_until(lambda: bool(told))
    away.clear()
    wait_until(lambda: len(sink.calls) == 5)
    delivery.close()
    assert [call[2] for call in sink.calls[:-1]] == [0, 1, 2, 3, 4]
    assert told == ["T does not take reports, the runs go on: no answer"]


def test_a_server_that_never_answers_does_not_delay_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Delivery, "RETRY_AFTER_SECONDS", (1e6,))  # the end of the grid does not wait for it
    told: list[str] = []
    tries: list[None] = []

    def opened() -> trackers.Tracker:
        tries.append(None)
        raise ConnectionError("refused")

    delivery = Delivery("T", opened, told.append)
    report_epochs(delivery, 1000)
    delivery.close(patience_seconds=300)
    assert len(tries) <= 1001 + 1, "each once, and the one that waited once more"
    assert told == [
        "T does not take reports, the runs go on: refused",
        "T: 1001 reports were not delivered; the store has every value",
    ]


def test_a_tracker_that_hangs_is_abandoned() -> None:
    told, hang = [], threading.Event()
    delivery = Delivery("T", Recorder, told.append)
    delivery.put(lambda _: hang.wait())  # type: ignore[arg-type, return-value]
    report_epochs(delivery, 3)
    delivery.close(patience_seconds=0.3)
    hang.set()
    assert told == ["T: 4 reports were not delivered; the store has every value"]


def test_the_number_of_waiting_reports_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Delivery, "MOST_WAITING", 10)
    told, sink, taken, hang = [], Recorder(), threading.Event(), threading.Event()
    delivery = Delivery("T", lambda: sink, told.append)
    delivery.put(lambda _: taken.set() or hang.wait())  # type: ignore[arg-type, func-returns-value, return-value]
    assert taken.wait(60)
    report_epochs(delivery, 30)
    hang.set()
    delivery.close()
    assert len(sink.calls) == 11
    assert told == ["T: 20 reports were not delivered; the store has every value"]


# ----- what is asked for


@pytest.mark.parametrize(
    ("tracking", "missing", "remedy"),
    [
        (Tracking(mlflow="http://h:5000"), "mlflow", "--mlflow: mlflow is not installed; pip install 'autodo[mlflow]'"),
        (Tracking(mlflow="sqlite:///x.db"), "alembic", "alembic is not installed; pip install 'autodo[mlflow]'"),
        (Tracking(wandb="p"), "wandb", "--wandb: wandb is not installed; pip install 'autodo[wandb]'"),
    ],
)
def test_a_missing_library_is_an_error_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tracking: Tracking, missing: str, remedy: str
) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == missing else SimpleNamespace(origin=name)
    )
    with pytest.raises(ConfigError) as told:
        tracking.check()
    assert str(told.value).endswith(remedy)
    assert "\n" not in str(told.value)


def test_a_folder_named_as_a_library_is_not_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "no_such_library").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="no_such_library is not installed"):
        settings._installed("--x", ["no_such_library"], "y")


def test_a_path_is_not_a_tracking_uri() -> None:
    with pytest.raises(ConfigError, match="--mlflow 'mlruns': is not a tracking URI, such as http"):
        Tracking(mlflow="mlruns").check()


def test_no_library_is_imported_unless_asked_for(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, orchestration.launch\n"
        "from orchestration.tracking import delivery, settings\n"
        f"with delivery.delivering(settings.Tracking(), grid='g', directory=pathlib.Path({str(tmp_path)!r}),"
        " say=print) as found: assert found == []\n"
        "print(*sorted({'mlflow', 'wandb', 'tensorboard', 'tensorboardX'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# ----- TensorBoard


def events(folder: Path) -> list[Any]:
    """All events of a run, in TensorBoard's order: file names, then time."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:  # a record: length (8 bytes), its checksum (4), the event, its checksum (4)
            length = int.from_bytes(data[:8], "little")
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    """A scalar's points; a new attempt replaces those from its first epoch on, as TensorBoard has it."""
    points: dict[int, float] = {}
    for event in events(folder):
        if event.session_log.status == 1:
            points = {step: value for step, value in points.items() if step < event.step}
        points.update((event.step, v.simple_value) for v in event.summary.value if v.tag == name)
    return sorted(points.items())


def test_attempts_at_a_run_are_one_curve_in_tensorboard(tmp_path: Path) -> None:
    variants = {RUN.run_id: "E10"}
    first = TensorBoardTracker(tmp_path, variants)
    for epoch in range(3):
        first.epoch(RUN, metrics(epoch))  # and then its driver is killed: no end, no close
    second = TensorBoardTracker(tmp_path, variants)
    for epoch in (2, 3):
        second.epoch(RUN, {**metrics(epoch), "val_error": 0.125})
    second.ended(RUN, "done", None)
    folder = tmp_path / RUN.run_id
    assert [path.name for path in tmp_path.iterdir()] == [RUN.run_id]
    assert curve(folder, "val_error") == [
        (0, 0.5),
        (1, pytest.approx(0.4)),
        (2, 0.125),
        (3, 0.125),
    ]
    assert len(curve(folder, "peak_memory_bytes")) == 4
    texts = {v.tag: v.tensor.string_val[0] for e in events(folder) for v in e.summary.value if v.tensor.string_val}
    assert texts == {"state/text_summary": b"done"}
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    (start, *_) = [
        HParamsPluginData.FromString(v.metadata.plugin_data.content).session_start_info
        for e in events(folder)
        for v in e.summary.value
        if v.tag == "_hparams_/session_start_info"
    ]
    assert start.hparams["method"].string_value == "baseline"
    assert start.hparams["seed"].number_value == 3
    assert set(start.hparams) == {*run_labels(RUN), "variant"}
    first.close()


def test_a_failure_before_the_first_epoch_has_its_message_in_tensorboard(tmp_path: Path) -> None:
    sink = TensorBoardTracker(tmp_path)
    sink.ended(RUN, "failed", "no such image")
    texts = [
        v.tensor.string_val[0]
        for e in events(tmp_path / RUN.run_id)
        for v in e.summary.value
        if v.tag.startswith("state")
    ]
    assert texts == [b"failed: no such image"]


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_itself_reads_one_curve(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    for epochs in (range(3), range(1, 4)):
        sink = TensorBoardTracker(tmp_path)
        for epoch in epochs:
            sink.epoch(RUN, metrics(epoch))
        sink.close()
    read = accumulator.EventAccumulator(str(tmp_path / RUN.run_id)).Reload()
    assert [(point.step, point.value) for point in read.Scalars("val_error")] == [
        (epoch, pytest.approx(0.5 - epoch / 10)) for epoch in range(4)
    ]


def test_the_variant_of_a_run_is_one_of_its_labels() -> None:
    assert run_labels(RUN, {RUN.run_id: "E10"}) == {**run_labels(RUN), "variant": "E10"}
    assert "variant" not in run_labels(RUN, {"another": "E10"})


# ----- MLflow


@pytest.fixture
def mlflow_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for module in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(module, reason="autodo[mlflow] is not installed")
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))  # so that changes by the tracker end with the test
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.filterwarnings("ignore")
def test_attempts_at_a_run_are_one_run_in_mlflow(mlflow_uri: str) -> None:
    from mlflow import MlflowClient

    variants = {RUN.run_id: "E10"}
    first = MlflowTracker(mlflow_uri, "grid", variants)
    for epoch in range(3):
        first.epoch(RUN, metrics(epoch))  # and then its driver is killed
    second = MlflowTracker(mlflow_uri, "grid", variants)
    other = RUN.model_copy(update={"seed": 4})
    for epoch in (2, 3):
        second.epoch(RUN, metrics(epoch))
        second.epoch(other, metrics(epoch))
    second.ended(RUN, "failed", "killed")
    client = MlflowClient(mlflow_uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "grid"]

    def found() -> dict[str, Any]:
        return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}

    assert set(found()) == {RUN.run_id, other.run_id}
    assert found()[RUN.run_id].info.status == "FAILED"
    assert found()[RUN.run_id].data.tags["failure"] == "killed"
    third = MlflowTracker(mlflow_uri, "grid", variants)
    third.epoch(RUN, metrics(4))
    assert found()[RUN.run_id].info.status == "RUNNING"
    third.ended(RUN, "done", None)
    second.close()
    done, interrupted = found()[RUN.run_id], found()[other.run_id]
    assert (done.info.status, done.data.tags["state"], done.data.tags["failure"]) == ("FINISHED", "done", "")
    assert (interrupted.info.status, interrupted.data.tags["state"]) == ("KILLED", "interrupted")
    assert done.data.params == {name: str(value) for name, value in run_labels(RUN, variants).items()}
    assert (done.data.tags["variant"], "variant" in interrupted.data.tags) == ("E10", False)
    history = client.get_metric_history(done.info.run_id, "val_error")
    assert [(point.step, point.value) for point in sorted(history, key=lambda point: point.step)] == [
        (epoch, pytest.approx(0.5 - epoch / 10)) for epoch in range(5)
    ]


@pytest.mark.filterwarnings("ignore")
def test_an_mlflow_server_that_does_not_answer_is_reported(mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    told: list[str] = []
    delivery = Delivery("MLflow", lambda: MlflowTracker("http://127.0.0.1:9", "grid"), told.append)
    report_epochs(delivery, 3)
    delivery.close()
    assert told[0].startswith("MLflow does not take reports, the runs go on: ")
    assert told[1] == "MLflow: 4 reports were not delivered; the store has every value"


# ----- W&B


@pytest.mark.filterwarnings("ignore")
def test_many_runs_at_a_time_reach_wandb_under_their_run_ids(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="autodo[wandb] is not installed")
    code = """
from tests.orchestration.tracking.test_trackers import RUN, Tracking, metrics, trackers
runs = [RUN.model_copy(update={"seed": seed}) for seed in range(3)]
tracking = Tracking(wandb="p")
tracking.check()
for epochs in (range(2), range(1, 3)):  # two attempts
    sink = trackers.WandbTracker("p", "grid")
    for epoch in epochs:
        for run in runs:
            sink.epoch(run, metrics(epoch))
    sink.ended(runs[0], "done" if epochs[0] else "failed", None if epochs[0] else "killed")
    sink.close()
print(*(run.run_id for run in runs))
"""
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    for run_id in done.stdout.split():
        files = list((tmp_path / "wandb").glob(f"offline-run-*-{run_id}*/*.wandb"))
        assert len(files) == 2
        assert all(b"val_error" in file.read_bytes() for file in files)
    assert done.stderr == ""


def test_wandb_without_a_key_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="autodo[wandb] is not installed")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-c", "from orchestration.tracking.settings import Tracking; Tracking(wandb='p').check()"],
        cwd=ROOT,
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "--wandb: no API key; `wandb login`, or WANDB_API_KEY, or WANDB_MODE=offline" in done.stderr


# ----- a launch


def test_a_launch_feeds_the_trackers(
    launch_here: Launch, store: Store, actor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.orchestration.in_process import ProcessDied

    told, over, recorder = [], [], Recorder()
    monkeypatch.setattr(
        Tracking,
        "trackers",
        lambda self, grid, directory, variants: {
            "TensorBoard": lambda: TensorBoardTracker(directory, variants),
            "Recorder": lambda: recorder,
            "Broken": SimpleNamespace,
        },
    )
    monkeypatch.setattr(Delivery, "RETRY_AFTER_SECONDS", ())
    runs = [RUN.model_copy(update={"seed": seed}) for seed in range(5)]
    steps: list[list[Any]] = [
        [0, 1, 2],
        [0, 1, RuntimeError("too hot")],  # after which the process ends by itself
        [0, 1, ProcessDied("its node has died")],
        [RunBusy("elsewhere")],
        [0, lambda: over.append(True), 1, 2],  # stopped after its second epoch, at the end of a time budget
    ]
    actor.scripts = {run.run_id: [attempt] for run, attempt in zip(runs, steps, strict=True)}
    monkeypatch.setattr(RunQueue, "out_of_time", property(lambda _: bool(over)))
    with delivering(Tracking(tensorboard=True), grid="g", directory=tmp_path / "tb", say=told.append) as found:
        launch_here(runs, store, trackers=found, max_concurrent=1, retries=0)
    by_seed = {seed: [call for call in recorder.calls if call[1:2] == (seed,)] for seed in range(5)}
    epochs = [[("epoch", seed, epoch) for epoch in range(3)] for seed in range(5)]
    assert by_seed[0] == [*epochs[0], ("ended", 0, "done", None)]
    assert by_seed[1] == [*epochs[1][:2], ("ended", 1, "failed", "RuntimeError: too hot")]
    assert by_seed[2] == [*epochs[2][:2], ("ended", 2, "failed", "the node of the run was lost or preempted")]
    assert by_seed[3] == []
    assert by_seed[4] == [*epochs[4][:2], ("ended", 4, "interrupted", None)]
    assert curve(tmp_path / "tb" / runs[0].run_id, "val_error") == [(0, 0.25), (1, 0.25), (2, 0.25)]
    assert [line.split(":")[0] for line in told] == ["Broken does not take reports, the runs go on", "Broken"]
