"""Options of executing runs: one object from YAML and command line to the process that trains."""

import dataclasses
import time
from typing import Annotated, NamedTuple, Self

from pydantic import Field

from autodo.io.storage import StrPath
from autodo.plugins import PluginFile
from orchestration.grid.keep import Keep
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.run_queue import RETRIES


class LaunchInfo(NamedTuple):
    """The launch that a run belongs to.

    Args:
        id: unique.
        slots: the most runs that it executes at a time.
    """

    id: str
    slots: int


class ExecutionOptions(ResourcesConfig):
    """How a run is executed; nothing in it changes the result.

    It travels to other processes as JSON, as RunConfig does. The options that a grid's YAML can set are those of
    ResourcesConfig.
    """

    data_dir: str | None = None
    """Path or URI of the files of named datasets."""
    weights_dir: str | None = None
    """Directory where files of pretrained weights are looked for first."""
    download: bool = False
    """Fetch a dataset's files if they are missing."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between checkpoints."""
    keep: tuple[Keep, ...] = ()
    """Things that the run leaves in the store besides its tables."""
    launch: LaunchInfo | None = None
    """Named in the results; None for a run outside of a launch."""
    plugins: tuple[PluginFile, ...] = ()
    """Files with plug-ins, which other processes load before they read the configuration of a run."""

    networks: tuple[str, ...] = ()
    """Digests of the source of own networks (`orchestration.store.networks`), which the store has."""

    def with_resources(self, resources: ResourcesConfig) -> Self:
        """These options with the resources of a run in a launch, where every cpu decodes if there are several."""
        return self.model_copy(update={**dict(resources), "loader_workers": resources.decoders})


DEFAULT_OPTIONS = ExecutionOptions()


@dataclasses.dataclass(frozen=True)
class LaunchSettings:
    """How a launch executes its runs; nothing in it changes a result.

    Args:
        max_concurrent: the most runs at a time; None for as many as the resources allow.
        retries: further attempts of a run that fails.
        seconds: the launch ends after this time, each run at the end of its epoch; None for no limit.
        data_dir: path or URI of the datasets' files.
        weights_dir: directory where files of pretrained weights are looked for first.
        keep: things that every run leaves in the store besides its tables.
    """

    max_concurrent: int | None = None
    retries: int = RETRIES
    seconds: float | None = None
    data_dir: StrPath | None = None
    weights_dir: str | None = None
    keep: tuple[Keep, ...] = ()

    def seconds_left(self, start: float) -> float | None:
        """Rest of `seconds`, given `time.monotonic()` at the start."""
        return None if self.seconds is None else self.seconds - (time.monotonic() - start)
