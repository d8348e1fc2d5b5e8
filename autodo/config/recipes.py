"""Composes a RunConfig from names: the dataset recipe, the method preset, then overrides; later ones win."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from autodo import plugins
from autodo.config.bilevel import OuterConfig, PointsConfig
from autodo.config.dataset import FEATURES, DistortionConfig
from autodo.config.defaults import PROTOCOL, defaults_before
from autodo.config.head import HeadConfig
from autodo.config.nested import merge, nest
from autodo.config.objective import FinetuneConfig, ObjectiveSettings, objective_kinds
from autodo.config.pixels import needs_pixels
from autodo.config.policy import PolicyConfig, SearchConfig, SearchedPolicy
from autodo.config.run import RunConfig, SplitName
from autodo.config.shipped import (
    canonical_method,
    dataset_names,
    dataset_preset,
    dataset_recipe,
    method_names,
    method_preset,
)
from autodo.config.validation import parse_model
from autodo.errors import ConfigError
from autodo.models import known_model_names, parse_model_name, problem_with
from autodo.models.names import is_of_plugin
from autodo.text import hint


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
    where: str | None = None,
) -> RunConfig:
    """Compose a run from the dataset recipe, the method preset and dotted overrides; later ones win.

    Args:
        dataset: a key of `autodo.data.DATASETS`, with a recipe in `configs/datasets/`.
        method: a preset in `configs/methods/`, or several joined by `+`.
        preset: one of the `presets` in the recipe, such as `cpu` of `folder`; `overrides` win over it.
        overrides: values by dotted key, such as `{"training.epochs": 20}`.
        protocol: version of the defaults and presets (`autodo/config/defaults.py`).
        where: text with which errors begin; None: the names of dataset and method.
    Raises:
        ConfigError: naming the bad key or value, its place and what is allowed.
    """
    method = canonical_method(method)
    where = where or f"{dataset} x {method}"
    recipe = dataset_recipe(dataset)
    policies = recipe.pop("policies", {})
    tree = merge(recipe, method_preset(method))
    tree = merge(tree, _relevant(nest(defaults_before(protocol)), tree))
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
    given = _relevant(nest({**dataset_preset(dataset, preset), **(overrides or {})}), tree)
    tree = merge(tree, given)
    if dataset == FEATURES and (cause := needs_pixels(tree)) is not None:
        # Before the settings are checked, since the recipe has no strengths for policies.
        possible = [name for name in method_names() if needs_pixels(method_preset(name)) is None]
        raise ConfigError(f"{where}: {cause} needs pixels, and features have none; methods: {', '.join(possible)}")
    if isinstance(tree.get("policy"), Mapping):
        # The strength of a policy depends on the images. None in the recipe: no policy, unless the user gives one.
        strength = policies.get(_policy_name(tree["policy"]), {})
        tree["policy"] = merge(strength or {}, tree["policy"]) if strength is not None or given.get("policy") else None
    for section in ("points", "outer"):
        if not isinstance(tree.get(section, {}), Mapping):
            raise ConfigError(f"{where}: {section}: must be a section with keys, not {tree[section]!r}")
    if tree.get("points", {}).get("learn") is None:
        # A method that learns no lambda has no outer problem; overrides of it are still checked for typing errors.
        outer, points = tree.pop("outer", {}), tree.pop("points", {})
        solver = "neumann" if "step" in outer else "conjugate-gradient"
        parse_model(OuterConfig, {"solver": solver, **outer}, f"{where}: outer")
        parse_model(PointsConfig, {"learn": ["augment"], **points}, f"{where}: points")
    run = parse_model(RunConfig, tree, where)
    if run.dataset.name != dataset or run.method.name != method:
        raise ConfigError(f"{where}: dataset.name and method.name cannot be overridden; pass another dataset or method")
    problem = problem_with(run.model.name)
    if problem is not None:
        raise ConfigError(f"{where}: model.name: {problem}")
    try:
        used_plugins(run)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    if isinstance(run.policy, SearchedPolicy) and parse_model_name(run.policy.search.model) is None:
        built_in = ", ".join(known_model_names(built_in=True))
        raise ConfigError(
            f"{where}: policy.search.model: unknown model {run.policy.search.model!r}"
            f"{hint(run.policy.search.model, known_model_names())}; known: {built_in}"
        )
    return run


def check_plugin_names() -> None:
    """Raise ConfigError if a plug-in has the name of something that AutoDO has itself."""
    dataset_names()
    method_names()
    objective_kinds()
    known_model_names()


def used_plugins(run: RunConfig) -> list[plugins.Loaded]:
    """Plug-ins that a run needs.

    Raises:
        ConfigError: if one is missing, or has another code than when the run was planned.
    """
    # The name of a plug-in has no +.
    methods = [plugins.find("method", part) for part in run.method.name.split("+")]
    used = [found for found in methods if found is not None]
    if run.dataset.code is not None:
        used.append(plugins.get("dataset", run.dataset.name, run.dataset.code))
    if isinstance(run.objective, ObjectiveSettings):
        used.append(plugins.get("objective", run.objective.kind, run.objective.code))
    if is_of_plugin(run.model.name):
        used.append(plugins.get("model", run.model.name, run.model.code))
    return used


def _relevant(given: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Drop overrides that only other methods read, because a grid gives all of its methods the same overrides.

    `objective.oracle` does not apply to a method with the plain train loss, and `finetune.share` must not turn the
    baseline into a method that trains on val. Keys that no method reads are kept, so that validation reports them.

    Args:
        tree: settings of the dataset and the method.
    """
    kept = dict(given)
    policy, preset = given.get("policy"), tree.get("policy") or {}
    if isinstance(policy, Mapping) and "kind" not in policy:
        kept["policy"] = _keys_of_member(policy, preset.get("kind"), _by_tag(PolicyConfig, "kind"))
        search = kept["policy"].get("search")
        if isinstance(search, Mapping) and "algorithm" not in search:
            algorithm = preset.get("search", {}).get("algorithm")
            kept["policy"]["search"] = _keys_of_member(search, algorithm, _by_tag(SearchConfig, "algorithm"))
    objective = given.get("objective")
    if isinstance(objective, Mapping) and "kind" not in objective:
        kind = tree.get("objective", {}).get("kind")
        kept["objective"] = _keys_of_member(objective, kind, objective_kinds())
    for section, known in (("finetune", FinetuneConfig), ("head", HeadConfig)):
        settings = given.get(section)
        if isinstance(settings, Mapping) and section not in tree:
            kept[section] = {key: value for key, value in settings.items() if key not in known.model_fields}
    return {section: value for section, value in kept.items() if value != {}}


def _by_tag(union: Any, tag: str) -> dict[str, type[BaseModel]]:
    """Members of a tagged union by their tags."""
    return {member.model_fields[tag].default: member for member in get_args(get_args(union)[0])}


def _keys_of_member(given: Mapping[str, Any], name: Any, members: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """Drop the keys that other members of a tagged union have, but not the member `name`."""
    own = set(members[name].model_fields) if name in members else set()
    known = {field for member in members.values() for field in member.model_fields}
    return {key: value for key, value in given.items() if key in own or key not in known}


def _policy_name(policy: Mapping[str, Any]) -> str:
    """Key of a policy in the `policies` of a dataset recipe: its kind, or the algorithm that searches it."""
    kind = str(policy.get("kind"))
    return str(policy.get("search", {}).get("algorithm")) if kind == "searched" else kind
