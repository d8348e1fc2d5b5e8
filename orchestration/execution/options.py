"""Options of executing a run: one object from YAML and command line to the process that trains."""

from typing import Annotated, NamedTuple, Self

from pydantic import Field

from orchestration.grid.keep import Keep
from orchestration.grid.resources import ResourcesConfig


class Launch(NamedTuple):
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
    download: bool = False
    """Fetch a dataset's files if they are missing."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between checkpoints."""
    keep: tuple[Keep, ...] = ()
    """What the run leaves in the store besides its tables."""
    launch: Launch | None = None
    """Named in the results; None for a run outside of a launch."""

    def with_resources(self, resources: ResourcesConfig) -> Self:
        """These options with the resources of a run in a launch, where every cpu decodes if there are several."""
        return self.model_copy(update={**dict(resources), "loader_workers": resources.decoders})


DEFAULT_OPTIONS = ExecutionOptions()
