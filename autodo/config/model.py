"""The network of a run."""

from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from autodo import plugins
from autodo.config.validation import Count, Frozen
from autodo.models import weight_names
from autodo.models.names import is_given, is_import_path, is_of_plugin, normalised
from autodo.text import network_label


class ModelConfig(Frozen):
    """The task model: an encoder and a linear head."""

    name: str
    """Name of a built-in network, such as `wrn-16-2`, or of that of a plug-in; `torchvision:NAME` or `timm:NAME`, such
    as `torchvision:resnet50`; or the import path of a function of your own that returns an `nn.Module`, such as
    `my_pkg.nets:make`."""
    head: str | None = None
    """Dotted name of the final linear layer of a network that is not built in, such as `fc`; null: found. All before it
    is the encoder. `append` puts a linear layer on the outputs of the whole network."""
    code: str | None = None
    """Fingerprint of a network of your own, which is part of the run's id: computed from the source file of its module
    when a run is planned, or a text of yours such as `v2`. Other networks have none."""
    weights: str | None = None
    """Pretrained weights: `DEFAULT` or another name of torchvision or timm, such as `IMAGENET1K_V2`, or a file: a state
    of torch, safetensors, or a classifier of AutoDO. null or `none`: random ones. The head is always new."""
    weights_content: str | None = None
    """Fingerprint of the weights, computed when a run is planned, and compared when it starts."""
    freeze: Literal["none", "encoder", "bn"] = "none"
    """What does not train: `encoder`, all but the head; `bn`, weights and statistics of its batch norms."""
    cached_views: Count | None = None
    """Number of augmented views of each train image whose features a frozen encoder computes before the first epoch;
    every step draws one of them. null: the encoder computes features in every step, or once if nothing augments."""
    input_size: Count | None = None
    """Side in pixels to which the encoder resizes images; null: that of the weights, or the images' own."""
    normalisation: Literal["data", "imagenet"] | None = None
    """Mean and deviation of each channel that images are normalised by: of the train images, or of ImageNet; null: as
    the weights expect, or else `data`."""

    @field_validator("name")
    @classmethod
    def _normalise(cls, name: str) -> str:
        return normalised(name)

    @field_validator("weights", mode="before")
    @classmethod
    def _none_is_null(cls, weights: Any) -> Any:
        return None if weights == "none" else weights

    @model_validator(mode="before")
    @classmethod
    def _fingerprints_of_nothing(cls, given: Any) -> Any:
        # A grid gives fingerprints to all of its runs, and a variant may have another network.
        if not isinstance(given, dict):
            return given
        name, without = str(given.get("name", "")), set()
        if given.get("weights") in (None, "none"):
            without.add("weights_content")
        if is_of_plugin(normalised(name)):
            found = plugins.find("model", normalised(name))
            if given.get("code") is None and found is not None:
                given = {**given, "code": found.code}
        elif not is_given(name) and not is_import_path(name):
            without.add("code")
        return {key: value for key, value in given.items() if key not in without}

    @model_validator(mode="after")
    def _views_are_of_a_frozen_encoder(self) -> Self:
        if self.cached_views is not None and self.freeze != "encoder":
            raise ValueError(f"cached_views ({self.cached_views}) needs freeze 'encoder', not {self.freeze!r}")
        return self

    def pinned(self) -> Self:
        """Copy with the fingerprints of the weights and source as they are now; see `weight_names.pinned`."""
        return type(self)(**weight_names.pinned(dict(self)))

    @property
    def network(self) -> dict[str, Any]:
        """Settings of the network itself, with which `autodo.models.build` builds it."""
        return {name: value for name, value in self if name != "cached_views"}

    @property
    def label(self) -> str:
        """Name in tables, such as `torchvision:resnet50 DEFAULT`."""
        return network_label(self.name, self.weights, self.freeze)
