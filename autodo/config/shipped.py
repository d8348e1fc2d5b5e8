"""The files in `configs/`: dataset recipes, method presets and grids, by name."""

import functools
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

from autodo.config.validation import check_name, load_yaml
from autodo.errors import ConfigError

Kind = Literal["datasets", "methods", "grids"]


def dataset_recipe(name: str) -> dict[str, Any]:
    """The shipped recipe of a dataset: `configs/datasets/<name>.yaml` without its presets, and texts for people."""
    check_name(name, dataset_names(), "dataset")
    return {
        key: value for key, value in _shipped("datasets", name).items() if key not in ("presets", *DatasetText._fields)
    }


def dataset_presets(name: str) -> dict[str, dict[str, Any]]:
    """Overrides by dotted key of each preset of a dataset's recipe, such as `cpu` of `folder`."""
    check_name(name, dataset_names(), "dataset")
    presets: dict[str, dict[str, Any]] = _shipped("datasets", name).get("presets", {})
    return presets


def dataset_preset(name: str, preset: str | None) -> dict[str, Any]:
    """Overrides by dotted key of one preset of a dataset's recipe; none if `preset` is None.

    Raises:
        ConfigError: if the recipe has no such preset.
    """
    known = dataset_presets(name)
    if preset is None:
        return {}
    if preset not in list(known):
        has = f"its recipe has {', '.join(known)}" if known else "its recipe has none"
        raise ConfigError(f"preset {preset!r}: dataset {name!r} has no such preset; {has}")
    return known[preset]


def method_preset(name: str) -> dict[str, Any]:
    """The preset of a method: a shipped one, or several joined by `+`, such as `randaugment+ldam-drw`.

    Raises:
        ConfigError: if a name is unknown, or two of the joined methods set the same thing.
    """
    merged: dict[str, Any] = {}
    owners: dict[str, str] = {}
    for part in method_parts(name):
        preset = {key: value for key, value in _shipped("methods", part).items() if key not in MethodText._fields}
        for key, value in _flat(preset).items():
            if key in owners and value != _flat(merged)[key]:
                section = key.split(".")[0]
                raise ConfigError(f"method {name!r}: {owners[key]!r} and {part!r} both set {section}")
            owners[key] = part
        merged = merge(merged, preset)
    return merged


def method_parts(name: str) -> list[str]:
    """The shipped methods that a name joins by `+`; of a shipped method itself.

    Raises:
        ConfigError: if one of them is unknown.
    """
    known = method_names()
    parts: list[str] = []
    words = name.split("+")
    while words:
        # A shipped name may hold a `+` itself: the longest one counts.
        taken = next((n for n in range(len(words), 0, -1) if "+".join(words[:n]) in known), 1)
        parts.append("+".join(words[:taken]))
        check_name(parts[-1], known, "method")
        words = words[taken:]
    return parts


def canonical_method(name: str) -> str:
    """The name that all orders of joined methods have.

    Raises:
        ConfigError: if a method is unknown, or is joined with itself or with the baseline, which changes nothing.
    """
    parts = method_parts(name)
    for part in parts:
        if len(parts) > 1 and (part == "baseline" or parts.count(part) > 1):
            raise ConfigError(f"method {name!r}: {part!r} adds nothing to the others")
    return "+".join(sorted(parts))


class DatasetText(NamedTuple):
    """The parts of a dataset's recipe that are for people."""

    summary: str
    files: str
    """Where its files come from."""


def dataset_text(name: str) -> DatasetText:
    """Summary and files of a dataset. Raises ConfigError if there is none of this name."""
    check_name(name, dataset_names(), "dataset")
    return DatasetText(*_texts("datasets", name, DatasetText._fields))


class MethodText(NamedTuple):
    """What a method's file says for people."""

    summary: str
    """What it learns."""
    reads: str
    """Which images: `train`, `train, val`, …; val always chooses the epoch."""
    cost: str
    """Time of a run over that of `baseline`, and of its search."""
    reference: str


def method_text(name: str) -> MethodText:
    """Summary, images, cost and reference of a shipped method. Raises ConfigError if there is none of this name."""
    check_name(name, method_names(), "method")
    return MethodText(*_texts("methods", name, MethodText._fields))


def _texts(kind: Kind, name: str, fields: Sequence[str]) -> list[str]:
    """The fields of a shipped file that are for people; empty where it lacks one."""
    shipped = _shipped(kind, name)
    return [str(shipped.get(field, "")) for field in fields]


def dataset_names() -> list[str]:
    """Names that have a recipe in `configs/datasets/`."""
    return _shipped_names("datasets")


def method_names() -> list[str]:
    """Names that have a preset in `configs/methods/`."""
    return _shipped_names("methods")


def shipped_file(kind: Kind, name: str) -> Path:
    """Path of `configs/<kind>/<name>.yaml` in the installed package or the checkout."""
    return Path(str(resources.files("configs"))) / kind / f"{name}.yaml"


@functools.cache
def _shipped_names(kind: Kind) -> list[str]:
    return sorted(path.stem for path in shipped_file(kind, "any").parent.glob("*.yaml"))


def grid_names() -> list[str]:
    """Names of the grids in `configs/grids/`."""
    return _shipped_names("grids")


@functools.cache
def _shipped(kind: Kind, name: str) -> dict[str, Any]:
    return load_yaml(shipped_file(kind, name))


def _flat(tree: Mapping[str, Any], parents: str = "") -> dict[str, Any]:
    """Values by dotted key: the inverse of `_nest`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{parents}{key}.") if isinstance(value, Mapping) else {f"{parents}{key}": value}
    return flat


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
