"""Trackers that the user asked for. Imports no Ray, and the trackers' libraries only when they are opened."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path

from autodo.errors import ConfigError
from orchestration.tracking.trackers import (
    MlflowTracker,
    TensorBoardTracker,
    Tracker,
    Variants,
    WandbTracker,
    check_wandb_login,
)


@dataclasses.dataclass(frozen=True)
class Tracking:
    """Options of the user.

    Args:
        tensorboard: write event files.
        mlflow: tracking URI, such as `http://HOST:5000` or `sqlite:////PATH/mlflow.db`.
        wandb: project of W&B.
    """

    tensorboard: bool = False
    mlflow: str | None = None
    wandb: str | None = None

    def check(self) -> None:
        """Check the options before anything starts.

        Raises:
            ConfigError: if a library is not installed, W&B has no credentials, or the tracking URI is malformed.
        """
        if self.tensorboard:
            _installed("--tensorboard", ["tensorboardX"], "tensorboardX")
        if self.mlflow is not None:
            if "://" not in self.mlflow and self.mlflow != "databricks":
                raise ConfigError(
                    f"--mlflow {self.mlflow!r}: is not a tracking URI, such as http://HOST:5000 or "
                    "sqlite:////PATH/mlflow.db"
                )
            needed = [] if self.mlflow.startswith(("http", "databricks")) else ["sqlalchemy", "alembic"]
            _installed("--mlflow", ["mlflow", *needed], "autodo[mlflow]")
        if self.wandb is not None:
            _installed("--wandb", ["wandb"], "autodo[wandb]")
            check_wandb_login()

    def trackers(self, grid: str, directory: Path, variants: Variants) -> dict[str, Callable[[], Tracker]]:
        """Functions that open the trackers, by name; one imports its library and may wait for a server.

        Args:
            grid: name of the grid, which groups the runs.
            directory: folder of TensorBoard's event files.
            variants: names that become labels of their runs.
        """
        mlflow, wandb = self.mlflow, self.wandb
        found: dict[str, Callable[[], Tracker]] = {}
        if self.tensorboard:
            found["TensorBoard"] = lambda: TensorBoardTracker(directory, variants)
        if mlflow is not None:
            found["MLflow"] = lambda: MlflowTracker(mlflow, grid, variants)
        if wandb is not None:
            found["W&B"] = lambda: WandbTracker(wandb, grid, variants)
        return found


def _installed(option: str, modules: list[str], requirement: str) -> None:
    for module in modules:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:  # a folder of that name is no library
            raise ConfigError(f"{option}: {module} is not installed; pip install '{requirement}'")
