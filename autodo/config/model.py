"""The network of a run."""

from pydantic import field_validator

from autodo.config.validation import Frozen
from autodo.models import normalised


class ModelConfig(Frozen):
    """The task model: an encoder and a linear head."""

    name: str
    """Name of a built-in network, such as `wrn-16-2`; `torchvision:NAME` or `timm:NAME`, such as
    `torchvision:resnet50`; or the import path of a function of your own that returns an `nn.Module`, such as
    `my_pkg.nets:make`."""
    head: str | None = None
    """Dotted name of the final linear layer of a network that is not built in, such as `fc`; null: found. All before it
    is the encoder. `append` puts a linear layer on the outputs of the whole network."""
    code: str | None = None
    """Fingerprint of a network of your own, which is part of the run's id: computed from the source file of its module
    when a run is planned, or a text of yours such as `v2`."""

    @field_validator("name")
    @classmethod
    def _normalise(cls, name: str) -> str:
        return normalised(name)

    @property
    def label(self) -> str:
        """Name in tables."""
        return self.name
