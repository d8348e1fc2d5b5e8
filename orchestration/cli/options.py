"""The options that `launch`, `resume`, `retry` and `plan` share, and what they mean."""

import dataclasses
import re
from collections.abc import Sequence

from autodo.config.bilevel import LambdaStorage
from autodo.config.validation import parse_model
from autodo.errors import ConfigError
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.plan import RETRIES


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options that the commands share; `plan` has a part of them."""

    data_dir: str | None = None
    download: bool = False
    only: str | None = None
    max_concurrent: int | None = None
    retries: int = RETRIES
    time_budget: str | None = None
    cpus_per_run: int | None = None
    gpus_per_run: float | None = None
    memory_per_run: str | None = None
    workers_per_run: int | None = None
    lambda_storage: LambdaStorage | None = None
    loader_workers: int | None = None
    checkpoint_steps: int | None = None
    address: str | None = None
    dashboard: bool = False
    keep: Sequence[str] = ()
    tensorboard: bool = False
    mlflow: str | None = None
    wandb: str | None = None


def effective(base: ResourcesConfig, settings: Settings) -> ResourcesConfig:
    """The resources of a grid with those of the command line on top."""
    given = {
        "cpus": settings.cpus_per_run,
        "gpus": settings.gpus_per_run,
        "memory": settings.memory_per_run,
        "workers": settings.workers_per_run,
        "lambda_storage": settings.lambda_storage and str(settings.lambda_storage),
        "loader_workers": settings.loader_workers,
        "checkpoint_steps": settings.checkpoint_steps,
    }
    tree = base.model_dump() | {key: value for key, value in given.items() if value is not None}
    return parse_model(ResourcesConfig, tree, "resources")


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `45m`, `2h`, `1h30m` or `1d`.

    Raises:
        ConfigError: if it is none of these, or no time at all.
    """
    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    parts = [int(part or 0) for part in match.groups()] if match else []
    seconds = sum(part * unit for part, unit in zip(parts, (86400, 3600, 60, 1), strict=False))
    if not seconds:
        raise ConfigError(f"--time-budget {text!r}: is not a time such as 2h, 45m, 1h30m or 1d")
    return float(seconds)
