"""Ray for the length of a launch: started on this machine, or a running cluster that is joined."""

import contextlib
import dataclasses
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

# Ray reads these when it is imported or when its processes start, so they come before the import.
_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own progress display
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean what the user meant
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # `uv run` would build a new environment on every worker
    # When a process is gone, Ray knows whether its node went too only after the node has missed its health checks.
    "RAY_timeout_ms_task_wait_for_death_info": "90000",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # no warning: the device is chosen by name
    "RAY_USAGE_STATS_ENABLED": "0",  # no usage statistics unless the user asks for them
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # else Tune restarts a preempted run and reports nothing
    "RAY_worker_niceness": "0",  # with Ray's 15, a run beside two busy processes gets hardly any CPU
    "RAY_prestart_worker_first_driver": "0",  # Tune's actors have their own environment and use none of these
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard copies of results
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the launch handles Ctrl-C
    # Deaths of processes and nodes are reported as failures of runs; other messages of Ray pass.
    "RAY_DEDUP_LOGS_SKIP_REGEX": (
        "A worker died or was killed|Raylet is terminated|has been marked dead|node running low on memory"
    ),
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray.exceptions import RayActorError, RayError, RayTaskError  # noqa: E402

from autodo.errors import ConfigError  # noqa: E402
from orchestration.grid.resources import ResourcesConfig  # noqa: E402
from orchestration.ray_cluster.address import check_address  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A running Ray cluster, or this machine.

    Args:
        address: address of a running cluster; None starts Ray here and ends it afterwards.
        dashboard: serve Ray's web page about the local cluster on localhost.
    """

    address: str | None = None
    dashboard: bool = False

    def for_runs_of(self, resources: Iterable[ResourcesConfig]) -> Self:
        """This cluster, with a dashboard if runs of these resources need it.

        Without its dashboard, Ray does not release the resources of a killed trial's workers.
        """
        return dataclasses.replace(self, dashboard=self.dashboard or any(one.workers > 1 for one in resources))


@contextlib.contextmanager
def reporting_deaths() -> Iterator[None]:
    """Make Tune treat every Ray actor failure as an actor death.

    The end of an actor for lack of memory is reported as ActorDiedError or, when that is known first, as
    OutOfMemoryError, which is no RayActorError: Tune 2.60 takes it for an error of its own and ends the whole launch.
    """
    # Here, because it imports half of Tune, which `orchestration.ray_cluster.session` does while Ray starts.
    from ray.air.execution._internal import actor_manager

    manager = actor_manager.RayActorManager
    failed = manager._actor_task_failed

    def as_actor_error(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")
        failed(self, tracked_actor_task, exception)

    manager._actor_task_failed = as_actor_error  # type: ignore[method-assign]
    try:
        yield
    finally:
        manager._actor_task_failed = failed  # type: ignore[method-assign]


@contextlib.contextmanager
def running_ray(cluster: Cluster, scratch: Path) -> Iterator[None]:
    """Ray for the length of a launch; if this process is connected to a Ray already, that is used and left running."""
    # Tune logs every trial that ends badly; the store and the summary report them.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if cluster.address is not None:
            check_address(cluster.address)
            try:
                ray.init(address=cluster.address, **quiet)
            except ray.exceptions.AuthenticationError as error:
                reason = str(error).strip().splitlines()[0]
                raise ConfigError(f"--address {cluster.address!r}: Ray wants a token: {reason}") from None
            except (ConnectionError, ValueError, RuntimeError) as error:
                reason = str(error).strip().splitlines()[0]
                # Something listens there, so a missing token is the most common reason.
                token = "" if "RAY_AUTH_MODE" in os.environ else "it may ask for a token: set RAY_AUTH_MODE=token; "
                raise ConfigError(f"--address {cluster.address!r}: cannot be joined: {token}{reason}") from None
        else:
            # Without "local", ray.init would join any cluster that it finds on this machine.
            try:
                ray.init(address="local", include_dashboard=cluster.dashboard, _temp_dir=str(scratch / "ray"), **quiet)
            except Exception as error:  # Ray's own errors are plain ones here
                reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
                raise ConfigError(
                    f"Ray cannot be started on this machine: {reason}; if the machine is busy, "
                    "RAY_raylet_start_wait_time_s=120 in the environment lets Ray wait longer"
                ) from None
        yield
    finally:
        # A second Ctrl-C must not leave half of Ray's processes behind.
        with on_signal(signal.SIGINT, signal.SIG_IGN):
            ray.shutdown()


@contextlib.contextmanager
def on_signal(signum: signal.Signals, handler: Callable[..., None] | signal.Handlers) -> Iterator[None]:
    """Set another handler for a signal within the block; only the main thread can, and other threads need none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signum, handler)
    try:
        yield
    finally:
        signal.signal(signum, before)


def slots(resources: ResourcesConfig, *, local: bool) -> int:
    """Number of runs that fit at the same time, at least 1.

    Raises:
        ConfigError: if none fits on a local cluster, where Tune would wait for ever.
    """
    needed = resources.per_worker

    def workers_on(node: dict[str, float]) -> int:
        # With a tolerance, because ten times 0.1 GPUs are one.
        return int(min(node.get(kind, 0.0) / amount + 1e-6 for kind, amount in needed.items()))

    fit = sum(workers_on(node) for node in _nodes()) // resources.workers
    # An autoscaling cluster may grow a node that fits.
    if fit == 0 and local:
        raise ConfigError(f"{need(resources)}; see --cpus-per-run, --gpus-per-run, --memory-per-run, --workers-per-run")
    return max(fit, 1)


def need(resources: ResourcesConfig) -> str:
    """Text on needs and nodes: `a run needs 2 times 4 CPUs and 1 GPUs, and the nodes have 2 CPUs and 0 GPUs`."""
    needed = resources.per_worker
    kinds = ["CPU", "GPU", *(["memory"] if "memory" in needed else [])]
    times = f"{resources.workers} times " if resources.workers > 1 else ""
    nodes = "; ".join(sorted({_amounts_text(node, kinds) for node in _nodes()}))
    return f"a run needs {times}{_amounts_text(needed, kinds)}, and the nodes have {nodes}"


def gpus() -> float:
    """Number of GPUs of the cluster."""
    return float(ray.cluster_resources().get("GPU", 0))


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _amounts_text(amounts: dict[str, float], kinds: Sequence[str]) -> str:
    """Text of amounts: `4 CPUs, 1 GPUs and 8.0 GiB of memory`."""
    units = {"CPU": "{:g} CPUs", "GPU": "{:g} GPUs", "memory": "{:.1f} GiB of memory"}
    parts = [units[kind].format(amounts.get(kind, 0) / (2**30 if kind == "memory" else 1)) for kind in kinds]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
