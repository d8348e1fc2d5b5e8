"""Which runs can be compared, and what they are called: the words that tables, curves and figures share."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from autodo.config.defaults import with_added
from autodo.config.nested import flatten
from autodo.text import printable
from reports.analysis.classes import with_minority
from reports.readers.result_rows import minority_of

BASELINE = "baseline"
"""The method that others are compared with."""
IDENTITY = (
    *("run_id", "dataset", "split", "method", "model", "imbalance_ratio", "noise_ratio"),
    *("seed", "recipe_id", "variant_id", "config"),
)
"""Columns of results by which runs are grouped; those of runs that are expected have them too."""

TEST_AS_VAL = "test-as-val"
"""The split of the paper's Table 5."""

# Parts of a configuration in which runs of one group may differ.
_METHOD = ("method", "policy", "objective", "finetune", "points", "outer")
_AXES = ("split", "distortion", *_METHOD, "seed")


def named(results: pd.DataFrame, expected: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """The runs, with what they are called and where they belong.

    Args:
        results: the frame of `load_results`; one that is named already is returned as it is.
        expected: IDENTITY columns of runs that should be there; those without a result are added, all else null.
    Returns:
        `results` with the columns
        `group`: such as `svhn (wrn-28-10, 200 epochs)`; only runs of one group can be compared.
        `name`: of the method in its group, with the split and whatever tells it from others of its name.
        `distortion`: IR-NR in the paper's notation, such as `100-0.1`; with how minority classes were reduced, such as
        `100-0.1 (class)`, if that is not the same in all runs.
        `minority`: how they were reduced (`distortion.minority`); empty where the imbalance ratio is 1.
        `is_expected`: whether the run is among those that should be there.
        `minority_labels`: of the minority classes, as `with_minority` gives them.
        In order of group, distortion, name (baselines first) and seed.
    """
    if "group" in results.columns:
        return results
    wanted = {row["run_id"]: {key: row[key] for key in IDENTITY} for row in expected}
    there = set(results["run_id"])
    missing = [row for run_id, row in wanted.items() if run_id not in there]
    frame = results
    if missing:
        added = pd.DataFrame(missing).reindex(columns=results.columns)
        frame = pd.concat([results, added], ignore_index=True) if len(results) else added
    ratios = list(zip(frame["imbalance_ratio"], frame["noise_ratio"], strict=True))
    kinds = [minority_of(*pair) for pair in zip(frame["imbalance_ratio"], frame["config"], strict=True)]
    several = len({*kinds} - {""}) > 1
    suffixes = [f" ({kind})" if kind and several else "" for kind in kinds]
    frame = frame.assign(
        group="",
        name="",
        distortion=[f"{distortion_name(*pair)}{suffix}" for pair, suffix in zip(ratios, suffixes, strict=True)],
        minority=kinds,
        is_expected=frame["run_id"].isin(list(wanted)),
    )
    for dataset, of_dataset in frame.groupby("dataset", sort=True):
        recipes = {str(r): _recipe(json.loads(g["config"].iloc[0])) for r, g in of_dataset.groupby("recipe_id")}
        for recipe, runs in of_dataset.groupby("recipe_id", sort=True):
            frame.loc[runs.index, "group"] = printable(f"{dataset} ({_describe(recipes, str(recipe))})")
            frame.loc[runs.index, "name"] = [printable(name) for name in _method_names(runs)]
    order = (
        with_minority(frame)
        .assign(other=~frame["name"].str.startswith("baseline").astype(bool))
        .sort_values(["group", "imbalance_ratio", "noise_ratio", "minority", "other", "name", "seed"])
    )
    return order.drop(columns="other").reset_index(drop=True)


def without_test_as_val(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that may be compared: in the others the outer loop read the test images, which no comparison is fair to.

    Args:
        runs: with the column `split`.
    """
    return runs[runs["split"] != TEST_AS_VAL]


def distortion_name(imbalance_ratio: float, noise_ratio: float) -> str:
    """The paper's notation, as grids spell it: no exponent, nothing rounded away."""
    ratio = np.format_float_positional(imbalance_ratio, trim="-")
    return f"{ratio}-{np.format_float_positional(noise_ratio, trim='0')}"


def name_with_split(method: str, split: str) -> str:
    """A method's name, followed by the split if it is not `paper`, such as `baseline (union)`."""
    return method if split == "paper" else f"{method} ({split})"


def baseline_among(names: Iterable[str]) -> str | None:
    """The baseline's name among those of methods, that of the split `paper` first; None if there is none."""
    known = set(names)
    candidates = [name_with_split(BASELINE, split) for split in ("paper", "union", "test-as-val")]
    return next((name for name in candidates if name in known), None)


def _method_names(runs: pd.DataFrame) -> list[str]:
    differences: dict[Any, str] = {}
    for method, of_method in runs.groupby("method"):
        configs = {variant: json.loads(g["config"].iloc[0]) for variant, g in of_method.groupby("variant_id")}
        for variant, words in _differences({variant: _settings(c) for variant, c in configs.items()}).items():
            differences[method, variant] = "".join(f", {word}" for word in words)
    names = []
    for method, split, variant in zip(runs["method"], runs["split"], runs["variant_id"], strict=True):
        names.append(f"{name_with_split(method, split)}{differences[method, variant]}")
    return names


def _differences(settings: Mapping[Any, Mapping[str, Any]]) -> dict[Any, list[str]]:
    """Of each one, `key=value` for every key in which they are not all the same; nothing if there is only one."""
    differing = _differing_keys(settings.values())
    return {
        name: [f"{key}={json.dumps(flat[key])}".replace('"', "") for key in differing if key in flat]
        for name, flat in settings.items()
    }


def _differing_keys(settings: Collection[Mapping[str, Any]]) -> list[str]:
    """Keys whose values are not the same in all, in the order in which they first come; one that lacks is null."""
    keys = dict.fromkeys(key for flat in settings for key in flat)
    return [key for key in keys if len({json.dumps(flat.get(key)) for flat in settings}) > 1]


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A method's own settings by dotted key: what variant_id is the hash of."""
    full = with_added(dict(config))
    return flatten({part: full.get(part) for part in _METHOD})


def _describe(recipes: Mapping[str, Mapping[str, Any]], recipe: str) -> str:
    """Model, epochs and subsample, then whatever else tells this recipe from the others of its dataset."""
    config = recipes[recipe]
    words = [str(config["model.name"]), f"{config['training.epochs']} epochs"]
    subsample = config.get("dataset.subsample")
    words += [f"{subsample} images"] if subsample else []
    said = ("model.name", "training.epochs", "dataset.subsample")
    words += [f"{key}={config.get(key)}" for key in _differing_keys(recipes.values()) if key not in said]
    # Settings that came later than a run are not in its configuration, and yet its recipe is another.
    same = [other for other in recipes.values() if all(config.get(k) == other.get(k) for k in {*config, *other})]
    words += [f"recipe {recipe}"] if len(same) > 1 else []
    return ", ".join(words)


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a comparison holds fixed, by dotted key: what recipe_id is the hash of."""
    return flatten({part: value for part, value in config.items() if part not in _AXES})
