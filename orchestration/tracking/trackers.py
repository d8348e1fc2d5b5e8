"""Trackers that show the curves of runs while they train: TensorBoard, MLflow and W&B. Imports no Ray.

The store holds every value and a tracker only shows a copy, so no failure of a tracker may hurt a run. A run has one
entry in each of them, under its run id, however many attempts it takes and however often a grid is launched.
"""

import contextlib
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from autodo.config.run import RunConfig
from autodo.errors import ConfigError

Metrics = Mapping[str, float]
Variants = Mapping[str, str]
"""Name of the variant of some runs, by run id."""


class Tracker(Protocol):
    """Interface of a tracker; methods may raise: `Delivery` calls them from one thread, and again after an error."""

    def epoch(self, run: RunConfig, metrics: Metrics) -> None:
        """An epoch of the run has ended; the first one of an attempt opens the run, or continues it."""

    def ended(self, run: RunConfig, state: str, message: str | None) -> None:
        """An attempt has ended as `done`, `failed` or `interrupted`; the next one may follow."""

    def close(self) -> None:
        """End open runs as `interrupted`."""


def run_labels(run: RunConfig, variants: Variants = MappingProxyType({})) -> dict[str, str | int | float]:
    """Values that distinguish runs, under the names of the Parquet columns; and `variant` for runs that have one."""
    variant = variants.get(run.run_id)
    return {
        "dataset": run.dataset.label,
        "distortion": str(run.distortion),
        "imbalance_ratio": run.distortion.imbalance_ratio,
        "noise_ratio": run.distortion.noise_ratio,
        "method": run.method.name,
        "model": run.model.label,
        "split": run.split,
        "seed": run.seed,
        **({"variant": variant} if variant else {}),
    }


class TensorBoardTracker:
    """Event files in `<directory>/<run_id>`. An attempt that repeats epochs replaces the points from there on."""

    def __init__(self, directory: Path, variants: Variants = MappingProxyType({})) -> None:
        import tensorboardX.event_file_writer
        import tensorboardX.proto.event_pb2
        import tensorboardX.summary

        self._x = tensorboardX
        self._event = tensorboardX.proto.event_pb2.Event
        self._directory, self._variants = directory, variants
        self._open: dict[str, tuple[Any, int]] = {}  # run id -> its event file, the last epoch in it

    def epoch(self, run: RunConfig, metrics: Metrics) -> None:
        epoch = int(metrics["epoch"])
        file = self._file(run, epoch)
        for name, value in metrics.items():
            if name != "epoch":
                self._write(file, self._x.summary.scalar(name, value), epoch)
        file.flush()
        self._open[run.run_id] = file, epoch

    def ended(self, run: RunConfig, state: str, message: str | None) -> None:
        self._file(run, 0)
        self._end(*self._open.pop(run.run_id), state if message is None else f"{state}: {message}")

    def close(self) -> None:
        while self._open:
            self._end(*self._open.popitem()[1], "interrupted")

    def _end(self, file: Any, epoch: int, state: str) -> None:
        self._write(file, self._x.summary.text("state", state), epoch)
        file.close()

    def _file(self, run: RunConfig, epoch: int) -> Any:
        run_id = run.run_id
        if run_id not in self._open:
            folder = self._directory / run_id
            if folder.is_symlink():
                raise OSError(f"{folder}: is a symbolic link, and so not followed")
            folder.mkdir(parents=True, exist_ok=True)
            # Not SummaryWriter, which hands events to a thread of its own and cannot wait for it.
            # A file's name holds its second only, and TensorBoard reads the files in the order of their names.
            number = f".{len(list(folder.iterdir())):04d}"
            file = self._x.event_file_writer.EventsWriter(str(folder / "events"), number)
            log = self._x.proto.event_pb2.SessionLog(status=self._x.proto.event_pb2.SessionLog.START)
            file.write_event(self._event(wall_time=time.time(), step=epoch, session_log=log))
            for summary in self._x.summary.hparams(
                run_labels(run, self._variants), {"val_error": 0.0, "test_error": 0.0}
            ):
                self._write(file, summary, 0)
            self._open[run_id] = file, epoch
        return self._open[run_id][0]

    def _write(self, file: Any, summary: Any, epoch: int) -> None:
        file.write_event(self._event(wall_time=time.time(), step=epoch, summary=summary))


class MlflowTracker:
    """A run of MLflow per run, found again by its tag `autodo.run_id`, in the experiment of the grid's name."""

    def __init__(self, uri: str, experiment: str, variants: Variants = MappingProxyType({})) -> None:
        # One attempt is short, because Delivery makes several. MLflow's usage statistics are off.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient, entities, exceptions

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)  # the tables of a new database
        self._entities, self._variants = entities, variants
        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(experiment)
        if found is None:
            # Another launch may create it at the same moment.
            with contextlib.suppress(exceptions.MlflowException):
                self._client.create_experiment(experiment)
            found = self._client.get_experiment_by_name(experiment)
        if found is None:
            raise RuntimeError(f"experiment {experiment!r} can neither be found nor created")
        self._experiment = found.experiment_id
        self._open: dict[str, tuple[str, int]] = {}  # run id -> MLflow's id, its last epoch

    def epoch(self, run: RunConfig, metrics: Metrics) -> None:
        own_id, last = self._run(run)
        epoch = int(metrics["epoch"])
        if epoch <= last:
            return  # repeated after a death before the checkpoint; MLflow would show the point twice
        now = int(time.time() * 1000)
        points = [self._entities.Metric(name, value, now, epoch) for name, value in metrics.items()]
        self._client.log_batch(own_id, metrics=points, synchronous=True)
        self._open[run.run_id] = own_id, epoch

    def ended(self, run: RunConfig, state: str, message: str | None) -> None:
        own_id, _ = self._run(run)
        self._end(own_id, state, message)
        del self._open[run.run_id]

    def close(self) -> None:
        for own_id, _ in self._open.values():
            self._end(own_id, "interrupted", None)
        self._open.clear()

    def _end(self, own_id: str, state: str, message: str | None) -> None:
        status = {"done": "FINISHED", "failed": "FAILED"}.get(state, "KILLED")
        self._client.set_tag(own_id, "state", state)
        self._client.set_tag(own_id, "failure", (message or "")[:5000])
        self._client.set_terminated(own_id, status)

    def _run(self, run: RunConfig) -> tuple[str, int]:
        run_id = run.run_id
        if run_id in self._open:
            return self._open[run_id]
        known = self._client.search_runs(
            [self._experiment], f"tags.`autodo.run_id` = '{run_id}'", order_by=["attributes.start_time ASC"]
        )
        if known:
            own_id, last = known[0].info.run_id, int(known[0].data.metrics.get("epoch", -1))
            self._client.update_run(own_id, status="RUNNING")
        else:
            tags = {"autodo.run_id": run_id}
            own_id, last = self._client.create_run(self._experiment, tags=tags, run_name=run_id).info.run_id, -1
        values = {name: str(value) for name, value in run_labels(run, self._variants).items()}
        self._client.log_batch(
            own_id,
            params=[self._entities.Param(name, value) for name, value in values.items()],
            tags=[self._entities.RunTag(name, value) for name, value in {**values, "state": "running"}.items()],
            synchronous=True,
        )
        self._open[run_id] = own_id, last
        return own_id, last


class WandbTracker:
    """A W&B run per run, whose id is the run id, in the group of the grid's name."""

    def __init__(self, project: str, group: str, variants: Variants = MappingProxyType({})) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._wandb, self._project, self._group, self._variants = wandb, project, group, variants
        self._open: dict[str, Any] = {}

    def epoch(self, run: RunConfig, metrics: Metrics) -> None:
        own, epoch = self._run(run), int(metrics["epoch"])
        if epoch >= own.step:  # W&B refuses a step twice
            own.log(dict(metrics), step=epoch)

    def ended(self, run: RunConfig, state: str, message: str | None) -> None:
        own = self._run(run)
        del self._open[run.run_id]
        _finish(own, state, message)

    def close(self) -> None:
        while self._open:
            _finish(self._open.popitem()[1], "interrupted", None)

    def _run(self, run: RunConfig) -> Any:
        run_id = run.run_id
        if run_id not in self._open:
            # By default W&B would keep output, code and machine load of this process, which only reports.
            settings = self._wandb.Settings(
                console="off",
                silent=True,
                disable_code=True,
                disable_git=True,
                init_timeout=15,
                finish_timeout=60,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            )
            self._open[run_id] = self._wandb.init(
                project=self._project,
                group=self._group,
                id=run_id,
                name=run_id,
                config=run_labels(run, self._variants),
                resume="allow",
                reinit="create_new",
                settings=settings,
            )
            self._open[run_id].summary["state"] = "running"
        return self._open[run_id]


def _finish(own: Any, state: str, message: str | None) -> None:
    own.summary["state"] = state
    own.summary["failure"] = message or ""
    own.finish(exit_code=0 if state == "done" else 1)


def check_wandb_login() -> None:
    """Check W&B's credentials: it would ask for a key in the middle of the grid, or fail each run.

    Raises:
        ConfigError: if there is no API key.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    if wandb.setup().settings.mode not in ("online", "run"):
        return
    try:
        known = wandb.login(prompt=False, verify=False)
    except wandb.Error as error:
        raise ConfigError(f"--wandb: {str(error).splitlines()[0]}") from None
    if not known:
        raise ConfigError("--wandb: no API key; `wandb login`, or WANDB_API_KEY, or WANDB_MODE=offline")
