"""Runs of a grid on Ray Tune. The store is the only truth: Tune's own state is thrown away after each launch."""

import contextlib
import dataclasses
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

# Ray reads these when it is imported or when its processes start, so they come before the import.
_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own progress display
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean what the user meant
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # `uv run` would build a new environment on every worker
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the device is chosen by name, no warning about it
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere unless the user asks for it
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard copies of what the store has
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: Tune's would go on until every step has ended
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.experiment import Trial  # noqa: E402

from autodo.config import RunConfig  # noqa: E402
from autodo.errors import ConfigError  # noqa: E402
from autodo.storage import absolute  # noqa: E402
from orchestration.grid import ResourcesConfig  # noqa: E402
from orchestration.progress import Display, GridProgress, display, label  # noqa: E402
from orchestration.store import Store  # noqa: E402
from orchestration.trial import RunTrial  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where the runs go: an existing Ray cluster, or this machine.

    Args:
        address: of an existing cluster; None starts Ray here and ends it afterwards.
        dashboard: Ray's web page about the local cluster, on localhost.
    """

    address: str | None = None
    dashboard: bool = False


def launch(
    runs: Sequence[RunConfig],
    store: Store,
    resources: ResourcesConfig,
    console: Console,
    *,
    cluster: Cluster = Cluster(),
    done_before: int = 0,
    max_concurrent: int | None = None,
    data_dir: Path | str | None = None,
    keep_models: bool = False,
) -> GridProgress:
    """Executes every run, a failure of one leaving the others alone, and shows how far they are.

    Args:
        done_before: runs of the grid that were done before, for the display.
        max_concurrent: the most runs at a time; None for as many as the resources allow.
        keep_models: keep every run's trained classifier in the store.
    Returns:
        how the runs ended.
    Raises:
        ConfigError: if no machine can hold a single run.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, when everything has stopped; the next launch continues from the
            checkpoints.
    """
    # Directly in /tmp: a socket's path in it must stay below about 100 characters, and TMPDIR can be long.
    with _temporary_directory(Path("/tmp")) as scratch, _ray(cluster, scratch):
        slots = _slots(resources, local=cluster.address is None)
        if cluster.address is None:
            _point_to_gpus(resources, console)
        slots = min(slots, max_concurrent or slots, len(runs))
        progress = GridProgress(runs, done_before=done_before, slots=slots)
        tuner = tune.Tuner(
            tune.with_resources(RunTrial, {"cpu": resources.cpus, "gpu": resources.gpus}),
            param_space={
                "run": tune.grid_search([run.model_dump(mode="json") for run in runs]),
                "store": store.uri,
                "data_dir": absolute(data_dir) if data_dir else None,
                "cpus": resources.cpus,
                "device": "cuda" if resources.gpus else "cpu",
                "keep_model": keep_models,
            },
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                max_concurrent_trials=max_concurrent,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                callbacks=[(shown := _Events(progress, store, display(progress, console)))],
            ),
        )
        # A batch system's SIGTERM as Ctrl-C: Ray's own handler would leave its processes and files behind.
        with shown.display, _on(signal.SIGTERM, _interrupt):
            tuner.fit()
    return progress


class _Events(tune.Callback):
    """Hands what Tune reports to the display, and deaths of processes to the store."""

    def __init__(self, progress: GridProgress, store: Store, shown: Display) -> None:
        self._progress, self._store, self.display = progress, store, shown

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks into a state that nobody reads, and a display cannot be pickled.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._progress.started(_run_id(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        run_id = _run_id(trial)
        if result["state"] == "running":
            self._progress.epoch(run_id, result["epoch"], result["val_error"], result["seconds"])
        elif result["state"] == "failed":
            self._failed(trial, result["message"])
        else:
            self._progress.ended(run_id, result["state"])

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        # The trainable reports its own exceptions, so this is the death of its process or node.
        run_id = _run_id(trial)
        last_line = "the process of the run died; out of memory, killed, or its node was lost"
        text = Path(trial.error_file).read_text() if trial.error_file else last_line
        self._store.record_failure(run_id, kind="ProcessDied", last_line=last_line, traceback=text)
        self._failed(trial, last_line)

    def _failed(self, trial: Trial, message: str) -> None:
        self._progress.ended(_run_id(trial), "failed", message)
        self.display.say(f"failed: {label(RunConfig.model_validate(trial.config['run']))}: {message}")

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.display.refresh()


def _run_id(trial: Trial) -> str:
    return RunConfig.model_validate(trial.config["run"]).run_id


@contextlib.contextmanager
def _ray(cluster: Cluster, scratch: Path) -> Iterator[None]:
    """Ray for the length of a launch; one that runs already in this process is used and left running."""
    # Tune tells of every trial that ends badly; the store and the summary do that.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if cluster.address is not None:
            _check_address(cluster.address)
            try:
                ray.init(address=cluster.address, **quiet)
            except (ConnectionError, ValueError, RuntimeError) as error:
                reason = str(error).strip().splitlines()[0]
                raise ConfigError(f"--address {cluster.address!r}: no Ray cluster answers: {reason}") from None
        else:
            # "local", because ray.init would else join any cluster that it finds on this machine.
            ray.init(address="local", include_dashboard=cluster.dashboard, _temp_dir=str(scratch / "ray"), **quiet)
        yield
    finally:
        # A second Ctrl-C must not leave half of Ray's processes behind.
        with _on(signal.SIGINT, signal.SIG_IGN):
            ray.shutdown()


def _check_address(address: str) -> None:
    """Asks whether anything listens at HOST:PORT; Ray itself would go on asking for many minutes."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not port.isdigit() or not host or "/" in host:
        raise ConfigError(
            f"--address {address!r}: is not HOST:PORT of a cluster's head, such as '10.0.0.1:6379', or 'auto'"
        )
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--address {address!r}: no Ray cluster answers: {error}") from None


@contextlib.contextmanager
def _on(signum: signal.Signals, handler: Callable[..., None] | signal.Handlers) -> Iterator[None]:
    """Another handler for a signal; only the main thread can have one, and elsewhere none is needed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signum, handler)
    try:
        yield
    finally:
        signal.signal(signum, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _temporary_directory(parent: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="autodo-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _slots(resources: ResourcesConfig, *, local: bool) -> int:
    """How many runs fit at the same time.

    Raises:
        ConfigError: if none fits on any node of a local cluster, where Tune would wait for ever.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def fit(node: dict[str, float]) -> int:
        by_cpu = node.get("CPU", 0) // resources.cpus
        return int(min(by_cpu, node.get("GPU", 0) // resources.gpus) if resources.gpus else by_cpu)

    slots = sum(fit(node) for node in nodes)
    # An autoscaling cluster may grow a node that fits.
    if slots == 0 and local:
        cpus, gpus = (max(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
        raise ConfigError(
            f"a run needs {resources.cpus} CPUs and {resources.gpus:g} GPUs, but this machine has "
            f"{cpus:g} and {gpus:g}; see --cpus-per-run and --gpus-per-run"
        )
    return max(slots, 1)


def _point_to_gpus(resources: ResourcesConfig, console: Console) -> None:
    gpus = ray.cluster_resources().get("GPU", 0)
    if gpus and not resources.gpus:
        console.print(
            f"{gpus:g} GPU{'s' if gpus > 1 else ''} found, but these runs use none: "
            "--gpus-per-run 1, or a share such as 0.25, trains on them",
            highlight=False,
        )
