"""Groups of runs that can be compared, and names of methods and distortions, for tables, curves and figures."""

import collections
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from autodo.config.defaults import METHOD_KEYS, with_added
from autodo.config.nested import flatten
from autodo.text import network_label, printable
from reports.analysis.classes import with_minority
from reports.readers.result_rows import DistortionKinds, distortion_kinds

BASELINE = "baseline"
"""Name of the method that others are compared with."""
IDENTITY = (
    *("run_id", "dataset", "split", "method", "model", "imbalance_ratio", "noise_ratio"),
    *("seed", "recipe_id", "variant_id", "config"),
)
"""Columns of results by which runs are grouped; expected runs have them too."""

TEST_AS_VAL = "test-as-val"
"""The split of the paper's Table 5."""

# Parts of a configuration in which runs of one group may differ.
_METHOD = ("method", "policy", "objective", "finetune", "head", "points", "outer")
_AXES = ("split", "distortion", *_METHOD, "seed")
_FINGERPRINTS = ("code", "content", "weights_content")
"""Settings by which people do not tell recipes apart."""


def named(results: pd.DataFrame, expected: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """Add the columns by which reports group and name runs, and rows for expected runs without a result.

    Args:
        results: the frame of `load_results`.
        expected: IDENTITY columns of runs that should be there; the other columns of added rows are null. A key
            `variant` names the settings of the run's method, as in the grid that was launched.
    Returns:
        `results` in order of group, distortion, name (baselines first, variants as in their grid) and seed, with the
        columns
        `group`: such as `svhn (wrn-28-10, 200 epochs)`; only runs of one group can be compared.
        `name`: the method, with the split and the variant, or the settings that differ from other runs of that method.
        `variant`: name of these settings in a grid; empty if they have none.
        `distortion`: IR-NR as in grids, such as `100-0.1` or `exp100-pair0.2`; `100-0.1 (class)` with how minority
        classes were reduced, if runs differ in it.
        `minority`: how they were reduced (`distortion.minority`); empty without a step imbalance.
        `imbalance`: `distortion.imbalance`.
        `is_expected`: whether the run is among the expected ones.
        `minority_labels`: labels of the minority classes, from `with_minority`.
    """
    expected = list(expected)
    wanted = {row["run_id"]: {key: row[key] for key in IDENTITY} for row in expected}
    variants: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for row in expected:
        if row.get("variant"):
            of_group = variants.setdefault((row["dataset"], row["recipe_id"]), {})
            of_group.setdefault((row["method"], row["variant_id"]), row["variant"])
    there = set(results["run_id"])
    missing = [row for run_id, row in wanted.items() if run_id not in there]
    frame = results
    if missing:
        added = pd.DataFrame(missing).reindex(columns=results.columns)
        frame = pd.concat([results, added], ignore_index=True) if len(results) else added
    ratios = zip(frame["imbalance_ratio"], frame["noise_ratio"], strict=True)
    kinds = [distortion_kinds(*pair) for pair in zip(frame["imbalance_ratio"], frame["config"], strict=True)]
    several = len({kind.minority for kind in kinds} - {""}) > 1
    suffixes = [f" ({kind.minority})" if kind.minority and several else "" for kind in kinds]
    names = [distortion_name(*pair, kind) for pair, kind in zip(ratios, kinds, strict=True)]
    frame = frame.assign(
        group="",
        name="",
        variant="",
        distortion=[f"{name}{suffix}" for name, suffix in zip(names, suffixes, strict=True)],
        minority=[kind.minority for kind in kinds],
        imbalance=[kind.imbalance for kind in kinds],
        is_expected=frame["run_id"].isin(list(wanted)),
    )
    for dataset, of_dataset in frame.groupby("dataset", sort=True):
        recipes = {str(r): _recipe(json.loads(g["config"].iloc[0])) for r, g in of_dataset.groupby("recipe_id")}
        for recipe, runs in of_dataset.groupby("recipe_id", sort=True):
            frame.loc[runs.index, "group"] = printable(f"{dataset} ({_describe(recipes, str(recipe))})")
            of_group = _unique(variants.get((str(dataset), str(recipe)), {}))
            frame.loc[runs.index, "variant"] = [
                of_group.get(key, "") for key in zip(runs["method"], runs["variant_id"], strict=True)
            ]
            frame.loc[runs.index, "name"] = [printable(name) for name in _method_names(runs, of_group)]
    in_grids = [row["variant"] for row in expected if row.get("variant")]
    places = {name: place for place, name in enumerate(names_in_order(frame, in_grids))}
    frame = with_minority(frame).assign(
        kind=[" ".join((*_prefixes(kind), kind.minority)) for kind in kinds], place=frame["name"].map(places)
    )
    ordered = frame.sort_values(["group", "imbalance_ratio", "noise_ratio", "kind", "place", "seed"])
    return ordered.drop(columns=["kind", "place"]).reset_index(drop=True)


def names_in_order(runs: pd.DataFrame, variants: Iterable[str]) -> list[str]:
    """Names of runs: baselines first, then in alphabetical order, but the variants of a method in the given order."""
    places = {variant: place for place, variant in enumerate(dict.fromkeys(["", *variants]))}
    variant_of = dict(zip(map(str, runs["name"]), runs["variant"], strict=True))

    def key(name: str) -> tuple[bool, str, int, str]:
        variant = variant_of[name]
        return not name.startswith("baseline"), name.removesuffix(f" {variant}"), places[variant], name

    return sorted(variant_of, key=key)


def without_test_as_val(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that may be compared fairly: without those whose outer loop read the test images.

    Args:
        runs: with the column `split`.
    """
    return runs[runs["split"] != TEST_AS_VAL]


def distortion_name(imbalance_ratio: float, noise_ratio: float, kinds: DistortionKinds) -> str:
    """IR-NR, as in grids: without exponent or rounding, with the kinds that are not the paper's before the ratios."""
    imbalance, noise = _prefixes(kinds)
    ratio = np.format_float_positional(imbalance_ratio, trim="-")
    return f"{imbalance}{ratio}-{noise}{np.format_float_positional(noise_ratio, trim='0')}"


def _prefixes(kinds: DistortionKinds) -> tuple[str, str]:
    """Kind of imbalance and of noise, as in `DistortionConfig.prefixes`."""
    imbalance = {"step": "", "exponential": "exp"}.get(kinds.imbalance, kinds.imbalance)
    return imbalance, "" if kinds.noise == "uniform" else kinds.noise


def name_with_split(method: str, split: str) -> str:
    """A method's name, followed by the split if it is not `paper`, such as `baseline (union)`."""
    return method if split == "paper" else f"{method} ({split})"


def baseline_among(names: Iterable[str]) -> str | None:
    """The baseline among names of methods, preferably of the split `paper`; None if there is none."""
    known = set(names)
    candidates = [name_with_split(BASELINE, split) for split in ("paper", "union", "oversplit", "test-as-val")]
    return next((name for name in candidates if name in known), None)


def _unique(variants: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """The variants by (method, variant_id), without names that two grids gave to different settings of a method."""
    count = collections.Counter((method, name) for (method, _), name in variants.items())
    return {key: name for key, name in variants.items() if count[key[0], name] == 1}


def _method_names(runs: pd.DataFrame, variants: Mapping[tuple[str, str], str]) -> list[str]:
    """Name of each run: `autodo-aws (union) E10`, or `autodo-aws, outer.lr=0.1` if no grid names its settings."""
    differences: dict[Any, str] = {}
    for method, of_method in runs.groupby("method"):
        configs = {variant: json.loads(g["config"].iloc[0]) for variant, g in of_method.groupby("variant_id")}
        for variant, words in _differences({variant: _settings(c) for variant, c in configs.items()}).items():
            name = variants.get((str(method), str(variant)))
            differences[method, variant] = f" {name}" if name else "".join(f", {word}" for word in words)
    names = []
    for method, split, variant in zip(runs["method"], runs["split"], runs["variant_id"], strict=True):
        names.append(f"{name_with_split(method, split)}{differences[method, variant]}")
    return names


def _differences(settings: Mapping[Any, Mapping[str, Any]]) -> dict[Any, list[str]]:
    """For each of several settings, `key=value` for each key in which they differ."""
    differing = _differing_keys(settings.values())
    return {
        name: [f"{key}={json.dumps(flat[key])}".replace('"', "") for key in differing if key in flat]
        for name, flat in settings.items()
    }


def _differing_keys(settings: Collection[Mapping[str, Any]]) -> list[str]:
    """Keys whose values differ, in order of first occurrence; a missing key counts as null."""
    keys = dict.fromkeys(key for flat in settings for key in flat)
    return [key for key in keys if len({json.dumps(flat.get(key)) for flat in settings}) > 1]


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a method by dotted key, of which variant_id is the hash."""
    full = with_added(dict(config))
    chosen = {part: {key: full[part][key] for key in keys if key in full[part]} for part, keys in METHOD_KEYS.items()}
    return flatten({**{part: config.get(part) for part in _METHOD}, **chosen})


def _describe(recipes: Mapping[str, Mapping[str, Any]], recipe: str) -> str:
    """Model, epochs and subsample, then other settings in which this recipe differs from the rest of its dataset.

    Fingerprints are among them only if recipes differ in nothing else.
    """
    config = recipes[recipe]
    words = [_network(config), f"{config['training.epochs']} epochs"]
    subsample = config.get("dataset.subsample")
    words += [f"{subsample} images"] if subsample else []
    said = ("model.name", "model.weights", "model.freeze", "training.epochs", "dataset.subsample")
    others = [key for key in _differing_keys(recipes.values()) if key not in said]
    plain = [key for key in others if key.rpartition(".")[2] not in _FINGERPRINTS]
    alike = [one for one in recipes.values() if all(one.get(key) == config.get(key) for key in (*said, *plain))]
    named_keys = {*plain, *_differing_keys(alike)}
    words += [f"{key}={config.get(key)}" for key in others if key in named_keys]
    # Configurations of different versions of the program may differ in nothing but missing settings.
    same = [other for other in recipes.values() if all(config.get(k) == other.get(k) for k in {*config, *other})]
    words += [f"recipe {recipe}"] if len(same) > 1 else []
    return ", ".join(words)


def _network(config: Mapping[str, Any]) -> str:
    """Name of the network of a configuration by dotted key."""
    return network_label(config["model.name"], config.get("model.weights"), config.get("model.freeze", "none"))


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a comparison keeps fixed, by dotted key, of which recipe_id is the hash."""
    settings = flatten({part: value for part, value in config.items() if part not in _AXES})
    of_method = {f"{part}.{key}" for part, keys in METHOD_KEYS.items() for key in keys}
    return {key: value for key, value in settings.items() if key not in of_method}
