"""From names to a RunConfig: the dataset's recipe, the method's preset, then overrides, later ones winning."""

from collections.abc import Mapping
from typing import Any

from autodo.config.bilevel import OuterConfig, PointsConfig
from autodo.config.dataset import DistortionConfig
from autodo.config.defaults import PROTOCOL, defaults_before
from autodo.config.objective import FinetuneConfig, ObjectiveConfig
from autodo.config.policy import SearchedPolicy, fitting, known_to, recipe_key
from autodo.config.run import RunConfig, SplitName
from autodo.config.shipped import canonical_method, dataset_preset, dataset_recipe, merge, method_preset
from autodo.config.validation import hint, parse_model
from autodo.errors import ConfigError
from autodo.models import known_model_names, parse_model_name


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
    tree = merge(recipe, method_preset(method))
    tree = merge(tree, _of_the_method(_nest(defaults_before(protocol)), tree))
    tree = merge(
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
    tree = merge(tree, given)
    if isinstance(tree.get("policy"), Mapping):
        # How strong a policy should be depends on the images: the recipe says it, for each kind. None: not at all.
        strength = strengths.get(recipe_key(tree["policy"]), {})
        tree["policy"] = merge(strength or {}, tree["policy"]) if strength is not None or given.get("policy") else None
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
