"""From names to a RunConfig: the dataset's recipe, the method's preset, then overrides, later ones winning."""

import functools
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

from autodo.config.defaults import PROTOCOL, defaults_before
from autodo.config.objective import FinetuneConfig, ObjectiveConfig
from autodo.config.policy import SearchedPolicy, fitting, known_to, recipe_key
from autodo.config.run import DistortionConfig, OuterConfig, PointsConfig, RunConfig, SplitName
from autodo.config.validation import check_name, hint, load_yaml, parse_model
from autodo.errors import ConfigError
from autodo.models import known_model_names, parse_model_name

Kind = Literal["datasets", "methods", "grids"]


def build_run(
    dataset: str,
    method: str,
    *,
    distortion: DistortionConfig | None = None,
    split: SplitName = "paper",
    seed: int = 0,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    protocol: int = PROTOCOL,
) -> RunConfig:
    """A run from the dataset's recipe, the method's preset and dotted overrides, later ones winning.

    Args:
        dataset: a key of `autodo.data.DATASETS`, with a recipe in `configs/datasets/`.
        method: the name of a file in `configs/methods/`.
        preset: one of the recipe's `presets`, such as `cpu` of `folder`: overrides, which `overrides` win over.
        overrides: values by dotted key, such as `{"training.epochs": 20}`.
        protocol: 1 for the defaults and presets as they first were (`autodo/config/defaults.py`).
    Raises:
        ConfigError: naming the bad key or value, where it stands and what is allowed.
    """
    method = canonical_method(method)
    recipe = dataset_recipe(dataset)
    strengths = recipe.pop("policies", {})
    overrides = {**dataset_preset(dataset, preset), **(overrides or {})}
    tree = _merge(recipe, method_preset(method))
    tree = _merge(tree, _of_the_method(_nest(defaults_before(protocol)), tree))
    tree = _merge(
        tree,
        {
            "dataset": {"name": dataset},
            "method": {"name": method},
            "distortion": (distortion or DistortionConfig()).model_dump(exclude_unset=True),
            "split": split,
            "seed": seed,
        },
    )
    where = f"{dataset} x {method}"
    given = _nest(overrides)
    given = _of_the_method(given, tree)
    tree = _merge(tree, given)
    if isinstance(tree.get("policy"), Mapping):
        # How strong a policy should be depends on the images: the recipe says it, for each kind. None: not at all.
        strength = strengths.get(recipe_key(tree["policy"]), {})
        tree["policy"] = _merge(strength or {}, tree["policy"]) if strength is not None or given.get("policy") else None
    for section in ("points", "outer"):
        if not isinstance(tree.get(section, {}), Mapping):
            raise ConfigError(f"{where}: {section}: is a section with keys, not {tree[section]!r}")
    if tree.get("points", {}).get("learn") is None:
        # A method that learns nothing has no outer problem; the override is still checked for typing errors.
        _check_unused(tree, where)
        tree.pop("points", None)
        tree.pop("outer", None)
    run = parse_model(RunConfig, tree, where)
    if run.dataset.name != dataset or run.method.name != method:
        raise ConfigError(f"{where}: dataset.name and method.name cannot be overridden; name them directly")
    check_model_name(run.model.name, f"{where}: model.name")
    if isinstance(run.policy, SearchedPolicy):
        check_model_name(run.policy.search.model, f"{where}: policy.search.model")
    return run


def _of_the_method(given: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides without what other methods than this one read: a grid gives the same to all of its methods.

    `objective.oracle` is nothing to a method without a train loss of its own, and `finetune.share` must not turn the
    baseline into a method that trains on val. (As with points and outer, which are checked all the same.)

    Args:
        tree: of the dataset and the method.
    """
    kept = dict(given)
    if isinstance(given.get("policy"), Mapping):
        kept["policy"] = fitting(given["policy"], tree.get("policy") or {})
    if isinstance(given.get("objective"), Mapping) and "kind" not in given["objective"]:
        kept["objective"] = known_to(given["objective"], "kind", tree.get("objective", {}).get("kind"), ObjectiveConfig)
    if isinstance(given.get("finetune"), Mapping) and "finetune" not in tree:
        kept["finetune"] = {
            key: value for key, value in given["finetune"].items() if key not in FinetuneConfig.model_fields
        }
    return {section: value for section, value in kept.items() if value != {}}


def _check_unused(tree: Mapping[str, Any], where: str) -> None:
    if "outer" in tree:
        outer = tree["outer"]
        solver = "neumann" if "step" in outer else "conjugate-gradient"
        parse_model(OuterConfig, {"solver": solver, **outer}, f"{where}: outer")
    if "points" in tree:
        parse_model(PointsConfig, {"learn": ["augment"], **tree["points"]}, f"{where}: points")


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
        merged = _merge(merged, preset)
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


def check_model_name(name: str, where: str) -> None:
    """Raises ConfigError unless a model of this name can be built."""
    if parse_model_name(name) is None:
        known = known_model_names()
        raise ConfigError(f"{where}: unknown model {name!r}{hint(name, known)}; known: {', '.join(known)}")


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{key}: {parent} is both a value and a section")
        node[leaf] = value
    return tree


def _flat(tree: Mapping[str, Any], parents: str = "") -> dict[str, Any]:
    """Values by dotted key: the inverse of `_nest`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{parents}{key}.") if isinstance(value, Mapping) else {f"{parents}{key}": value}
    return flat


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
