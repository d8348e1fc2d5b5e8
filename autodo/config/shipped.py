"""Dataset recipes, method presets and grids by name: the files in `configs/`, and those of plug-ins."""

import functools
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

from autodo import plugins
from autodo.config.dataset import MEMORY
from autodo.config.nested import flatten, merge
from autodo.config.validation import check_name, load_yaml
from autodo.errors import ConfigError

Kind = Literal["datasets", "methods", "grids"]
_RECIPE_OF = {MEMORY: "folder"}
"""Datasets with the recipe of another."""


class DatasetText(NamedTuple):
    """Description of a dataset in its recipe."""

    summary: str
    files: str
    """Source of its files."""


class MethodText(NamedTuple):
    """Description of a method in its preset."""

    summary: str
    """What it learns."""
    reads: str
    """Images it trains on: `train`, `train, val`, …; every method chooses the epoch on val."""
    cost: str
    """Time of a run relative to `baseline`, without its search."""
    reference: str


def dataset_names() -> list[str]:
    """Names of the recipes in `configs/datasets/`, then of the datasets of plug-ins."""
    return [*_names("datasets"), *plugins.names("dataset", _names("datasets"))]


def method_names() -> list[str]:
    """Names of the presets in `configs/methods/`, then of the methods of plug-ins."""
    return [*_names("methods"), *plugins.names("method", _names("methods"))]


def grid_names() -> list[str]:
    """Names of the grids in `configs/grids/`."""
    return _names("grids")


def shipped_file(kind: Kind, name: str) -> Path:
    """Path of `configs/<kind>/<name>.yaml` in the installed package or the checkout."""
    return Path(str(resources.files("configs"))) / kind / f"{name}.yaml"


def dataset_text(name: str) -> DatasetText:
    """Description of a dataset. Raises ConfigError if the name is unknown."""
    return DatasetText(*(str(_dataset(name).get(field, "")) for field in DatasetText._fields))


def method_text(name: str) -> MethodText:
    """Description of a method. Raises ConfigError if the name is unknown."""
    check_known(name, "method")
    return MethodText(*(str(_method(name).get(field, "")) for field in MethodText._fields))


def method_source(name: str) -> str:
    """File of a shipped method, or name and version of the source of a plug-in."""
    found = plugins.find("method", name)
    return str(shipped_file("methods", name)) if found is None else f"{found.source} {found.version}"


def dataset_recipe(name: str) -> dict[str, Any]:
    """Settings of a dataset, without its presets. Raises ConfigError if the name is unknown."""
    return {key: value for key, value in _dataset(name).items() if key not in ("presets", *DatasetText._fields)}


def dataset_presets(name: str) -> dict[str, dict[str, Any]]:
    """Overrides by dotted key of each preset of a dataset, such as `cpu` of `folder`."""
    presets: dict[str, dict[str, Any]] = _dataset(name).get("presets", {})
    return presets


def preset_of_device(name: str, device: str) -> str | None:
    """Preset of a dataset for a device: `cpu` or `gpu`; None if its recipe has no such preset.

    Args:
        device: such as `cpu` or `cuda:1`.
    """
    preset = "cpu" if device == "cpu" else "gpu"
    return preset if preset in dataset_presets(name) else None


def dataset_preset(name: str, preset: str | None) -> dict[str, Any]:
    """Overrides by dotted key of one preset of a dataset; empty if `preset` is None.

    Raises:
        ConfigError: if the dataset has no such preset.
    """
    known = dataset_presets(name)
    if preset is None:
        return {}
    if preset not in list(known):
        has = f"its recipe has {', '.join(known) or 'none'}"
        raise ConfigError(f"preset {preset!r}: dataset {name!r} has no such preset; {has}")
    return known[preset]


def method_preset(name: str) -> dict[str, Any]:
    """Settings of a method, or of several joined by `+`, such as `randaugment+ldam-drw`.

    Raises:
        ConfigError: if a name is unknown, or two of the joined methods set the same key.
    """
    merged: dict[str, Any] = {}
    owners: dict[str, str] = {}
    for part in method_parts(name):
        preset = {key: value for key, value in _method(part).items() if key not in MethodText._fields}
        for key, value in flatten(preset).items():
            if key in owners and value != flatten(merged)[key]:
                section = key.split(".")[0]
                raise ConfigError(f"method {name!r}: {owners[key]!r} and {part!r} both set {section}")
            owners[key] = part
        merged = merge(merged, preset)
    return merged


def method_parts(name: str) -> list[str]:
    """Split a method name into the methods it joins by `+`.

    Raises:
        ConfigError: if one of them is unknown.
    """
    known = method_names()
    parts: list[str] = []
    words = name.split("+")
    while words:
        # A name may contain a `+`, so the longest match counts.
        taken = next((n for n in range(len(words), 0, -1) if "+".join(words[:n]) in known), 1)
        parts.append("+".join(words[:taken]))
        check_known(parts[-1], "method")
        words = words[taken:]
    return parts


def canonical_method(name: str) -> str:
    """Name of joined methods, independent of their order.

    Raises:
        ConfigError: if a method is unknown, or is joined with itself or with the baseline, which changes nothing.
    """
    parts = method_parts(name)
    for part in parts:
        if len(parts) > 1 and (part == "baseline" or parts.count(part) > 1):
            raise ConfigError(f"method {name!r}: {part!r} adds nothing to the others")
    return "+".join(sorted(parts))


@functools.cache
def _names(kind: Kind) -> list[str]:
    return sorted(path.stem for path in shipped_file(kind, "any").parent.glob("*.yaml"))


@functools.cache
def _load(kind: Kind, name: str) -> dict[str, Any]:
    return load_yaml(shipped_file(kind, name))


def check_known(name: str, kind: Literal["dataset", "method"]) -> None:
    """Raise ConfigError, with near and known names, unless there is a dataset, or a method, of this name."""
    known = dataset_names() if kind == "dataset" else method_names()
    try:
        check_name(name, known, kind)
    except ConfigError as error:
        raise ConfigError(f"{error}; --plugin adds those of a file") from None


def _dataset(name: str) -> dict[str, Any]:
    name = _RECIPE_OF.get(name, name)
    check_known(name, "dataset")
    found = plugins.find("dataset", name)
    return _load("datasets", name) if found is None else dict(found.plugin.recipe)


def _method(name: str) -> dict[str, Any]:
    found = plugins.find("method", name)
    return _load("methods", name) if found is None else dict(found.plugin.preset)
