"""Resources and execution options of a run, as a grid's YAML and the command line set them."""

from typing import Annotated, Self

from pydantic import BaseModel, ByteSize, ConfigDict, Field, field_validator, model_validator

from autodo.config.bilevel import LambdaStorage


class ResourcesConfig(BaseModel):
    """Resources of one run; they change how long a grid takes, not its results."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: Annotated[int, Field(ge=1)] = 1
    """Cores of a worker, and threads of torch."""
    gpus: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of a worker; 0.5 lets two runs share a GPU."""
    memory: Annotated[ByteSize, Field(gt=0)] | None = None
    """Host memory that is set aside for a worker, such as `8GiB`; None sets none aside."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that train one run together, each with the cpus, gpus and memory above."""
    lambda_storage: LambdaStorage = "device"
    """Where a worker keeps lambda of its points: on the training device, in host memory, or in a temporary file."""
    loader_workers: Annotated[int, Field(ge=0)] | None = None
    """Processes of a worker that decode streamed images; None: as many as cpus if there are several, else none."""
    test_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between evaluations of the test images, which `error_best_test` needs in every epoch."""
    checkpoint_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between checkpoints within an epoch; None: checkpoints only after epochs."""

    @property
    def per_worker(self) -> dict[str, float]:
        """Amounts that a worker needs, by Ray's names of resources; zero amounts are left out."""
        amounts = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory or 0}
        return {kind: amount for kind, amount in amounts.items() if amount}

    @property
    def decoders(self) -> int:
        """Processes of a worker that decode images; 0: the worker itself does."""
        if self.loader_workers is not None:
            return self.loader_workers
        return self.cpus if self.cpus > 1 else 0

    @field_validator("memory")
    @classmethod
    def _has_a_unit(cls, memory: int | None) -> int | None:
        if memory is not None and memory < 2**20:
            raise ValueError(f"{memory:d} bytes are less than a MiB; give a unit, such as 8GiB")
        return memory

    @model_validator(mode="after")
    def _gpus_are_whole_or_shared(self) -> Self:
        if self.gpus % 1 and self.workers > 1:
            raise ValueError(
                f"gpus must be a whole number when workers > 1 (got gpus={self.gpus:g}, workers={self.workers})"
            )
        if self.gpus % 1 and self.gpus > 1:
            raise ValueError(f"gpus must be a whole number, or a share below 1 (got gpus={self.gpus:g})")
        return self
