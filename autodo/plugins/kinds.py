"""Kinds of plug-ins. Loaded only where a plug-in is, since the command line starts without one."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """Something of a kind, with a name by which configurations and reports call it."""

    kind: ClassVar[str]
    pattern: ClassVar[str] = r"[a-z0-9]+(-[a-z0-9]+)*"

    name: str
    version: str | None = None
    """A mark of what it computes, to be changed with it. None: a hash of its code, which every edit changes."""

    def __post_init__(self) -> None:
        if not re.fullmatch(self.pattern, self.name):
            raise ValueError(f"{self.kind} {self.name!r}: the name must match {self.pattern}")


@dataclass(frozen=True, kw_only=True)
class DatasetPlugin(Plugin):
    """A dataset."""

    kind: ClassVar[str] = "dataset"

    read: Callable[[Any, Any], Any]
    """(`DatasetConfig`, `DatasetLocation`) -> `autodo.data.Dataset`. The location has `data_dir`, from `--data-dir`."""
    recipe: Mapping[str, Any]
    """Settings of its runs, as in a file of `configs/datasets/`; at least `model.name` and `training.epochs`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for section, key in (("model", "name"), ("training", "epochs")):
            if key not in self.recipe.get(section, {}):
                raise ValueError(
                    f"dataset {self.name!r}: its recipe has no {section}.{key}; it needs at least "
                    '{"model": {"name": "small-cnn"}, "training": {"epochs": 30}}'
                )


@dataclass(frozen=True, kw_only=True)
class ObjectivePlugin(Plugin):
    """A train loss."""

    kind: ClassVar[str] = "objective"

    settings: type[Any]
    """Subclass of `autodo.config.objective.ObjectiveSettings`, whose field `kind` has the name as its only value."""
    build: Callable[[Any, Any], Any]
    """(settings, `ObjectiveContext`) -> `autodo.objectives.Objective`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fields = getattr(self.settings, "model_fields", {})
        if "code" not in fields or "kind" not in fields or fields["kind"].default != self.name:
            raise ValueError(
                f"objective {self.name!r}: settings must be a subclass of autodo.config.objective.ObjectiveSettings "
                f"with the field kind: Literal[{self.name!r}] = {self.name!r}"
            )


@dataclass(frozen=True, kw_only=True)
class OperationPlugin(Plugin):
    """An augmentation operation for policy files: a level in [0, 1] stands for the value low + level (high - low)."""

    kind: ClassVar[str] = "operation"
    pattern: ClassVar[str] = r"[A-Z][A-Za-z0-9]*"

    apply: Callable[[Any, Any, Any], object]
    """(images [b, C, H, W] uint8, value [b] float, centre [b, 2] in [0, 1)): changes the images in place, or returns
    others like them."""
    low: float = 0.0
    high: float = 0.0
    signed: bool = False
    """Whether the value gets the other sign with probability 1/2."""


@dataclass(frozen=True, kw_only=True)
class ModelPlugin(Plugin):
    """A network."""

    kind: ClassVar[str] = "model"

    make: Callable[..., Any]
    """make(in_channels, image_size, classes), or fewer of these -> nn.Module that ends with a linear layer."""


@dataclass(frozen=True, kw_only=True)
class MethodPlugin(Plugin):
    """A method."""

    kind: ClassVar[str] = "method"

    preset: Mapping[str, Any]
    """Settings and texts, as in a file of `configs/methods/`."""
