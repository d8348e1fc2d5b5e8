"""Results that the paper reports, for runs with the same dataset, model and protocol."""

import csv
import functools
import json
from collections.abc import Collection, Iterable, Mapping
from importlib import resources
from typing import Any

from autodo.config.defaults import ADDED, PAPER, with_added
from autodo.config.nested import flatten
from autodo.config.validation import check_name
from reports.document import Reference

# The protocol of tables 1 to 3 (appendix A; section 5.1), as settings of a run by dotted key. Every setting of a run
# must be here, or have the paper's value in `autodo/config/defaults.py`; with any other setting no figure is shown.
_ALL: dict[str, Any] = {
    "dataset.path": None,
    "dataset.image_size": None,
    "dataset.content": None,
    "dataset.subsample": None,
    "model.name": "wrn-28-10",
    "augmentation.crop_padding": 4,
    "augmentation.erase_probability": 0.5,
    "training.epochs": 200,
    "training.batch_size": 256,
    "training.momentum": 0.9,
    "training.weight_decay": 1e-4,
    "training.warmup_epochs": 5,
}
_CIFAR: dict[str, Any] = {"dataset.val_share": 0.2, "augmentation.flip": True, "training.lr": 0.1}
_DATASETS: dict[str, dict[str, Any]] = {
    "svhn": {"dataset.val_share": 0.32, "augmentation.flip": False, "training.lr": 0.005},
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    # The paper does not state how images are cropped: these are the ranges of the recipe.
    "imagenet": {
        **_CIFAR,
        **{"model.name": "resnet-18", "dataset.image_size": 224},
        **{"augmentation.crop_padding": 0, "augmentation.resized_crop": [0.08, 1.0]},
    },
}
_OUTER = {"imagenet": {"outer.lr": 0.01, "outer.start_share": 0.5}}
"""Settings of the outer phase in which a dataset differs from `_AUTODO`."""

_LEARNS_NOTHING: dict[str, Any] = {"method.loss": "cross-entropy", "points": None, "outer": None}
_FROM_A_FILE: dict[str, Any] = {**_LEARNS_NOTHING, "policy.kind": "file"}
_AUTODO: dict[str, Any] = {
    "policy.kind": "colour",
    "points.shared": False,
    "points.label_smoothing": 0.1,
    "points.gate_probability": 0.25,
    "outer.lr": 0.05,
    "outer.start_share": 0.25,
    "outer.solver": "neumann",
    "outer.iterations": 5,
    "outer.step": 0.01,
    "outer.damping": 0.0,
    "outer.val_gradient": "batch",
}
_FAST_AUTOAUGMENT: dict[str, Any] = {
    **{"algorithm": "fast-autoaugment", "folds": 5, "held_share": 0.4, "model": "wrn-40-2", "epochs": 200},
    **{"batch_size": 128, "trials": 200, "at_once": 4, "sub_policies": 5, "operations": 2, "copies": 5, "keep": 10},
}
_DADA: dict[str, Any] = {
    **{"algorithm": "dada", "model": "wrn-40-2", "epochs": 20, "batch_size": 128, "policy_lr": 5e-3},
    **{"temperature": 0.5, "estimator": "relax", "keep": 25},
}


def _searched(settings: Mapping[str, Any]) -> dict[str, Any]:
    search = {f"policy.search.{key}": value for key, value in settings.items()}
    return {**_LEARNS_NOTHING, "policy.kind": "searched", **search}


# Our method -> (name in the paper, settings).
_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "baseline": ("baseline", {**_LEARNS_NOTHING, "policy": None}),
    "randaugment": (
        "randaugment",
        {**_LEARNS_NOTHING, "policy.kind": "randaugment", "policy.operations": "paper", "policy.fixed": False},
    ),
    "fast-autoaugment-published": ("fast-autoaugment", _FROM_A_FILE),
    "fast-autoaugment-searched": ("fast-autoaugment", _searched(_FAST_AUTOAUGMENT)),
    "dada-published": ("dada", _FROM_A_FILE),
    "dada-searched": ("dada", _searched(_DADA)),
    "autodo-shared": (
        "autodo-shared",
        {**_AUTODO, "method.loss": "cross-entropy", "points.learn": ["augment"], "points.shared": True},
    ),
    "autodo-a": ("autodo-a", {**_AUTODO, "method.loss": "cross-entropy", "points.learn": ["augment"]}),
    "autodo-aw": ("autodo-aw", {**_AUTODO, "method.loss": "cross-entropy", "points.learn": ["augment", "weight"]}),
    "autodo-aws": (
        "autodo-aws",
        {**_AUTODO, "method.loss": "symmetric-kl", "points.learn": ["augment", "weight", "soft-label"]},
    ),
}

# Settings of the methods autodo-published-*, which follow the authors' code where it differs from the paper's text.
_PUBLISHED: dict[str, Any] = {
    **{"points.label_smoothing": 0.05, "points.gate_probability": 0.2, "points.gate_temperature": 1.0},
    **{"augmentation.order": "warp-last", "augmentation.border": "edge", "augmentation.erase_area": 0.33},
    **{"policy.factors": "from-0.1", "training.schedule": "published", "training.last_batch": "drop"},
}
_PUBLISHED_DATA: dict[str, dict[str, Any]] = {
    "imagenet": {"dataset.resize": 256, "augmentation.erase_probability": 0.0, "outer.batch_size": 128}
}
"""Further ones by dataset, those of its preset `published`."""
_METHODS |= {
    f"autodo-published-{part}": (f"autodo-{part}", {**_METHODS[f"autodo-{part}"][1], **_PUBLISHED})
    for part in ("shared", "a", "aw", "aws")
}
_METHODS["autodo-published-aws"][1]["method.undistorted_loss"] = "kl"


def _strengths(drawn: tuple[int, int], colour: tuple[int, int], search: tuple[int, float]) -> dict[str, dict[str, Any]]:
    return {
        "randaugment": {"policy.draws": drawn[0], "policy.magnitude": drawn[1]},
        "colour": {"policy.draws": colour[0], "policy.magnitude": colour[1]},
        "searched": {"policy.search.images": search[0], "policy.search.lr": search[1]},
    }


PRIOR = tuple(dict.fromkeys(name for name, settings in _METHODS.values() if "points.learn" not in settings))
"""The paper's names of the methods that it compares AutoDO with."""

# Settings that a kind of policy takes from the recipe of a dataset, by dataset.
_STRENGTHS = {
    "svhn": _strengths((3, 7), (3, 7), (1000, 0.01)),
    "cifar10": _strengths((3, 15), (1, 15), (4000, 0.1)),
    "cifar100": _strengths((3, 15), (1, 15), (4000, 0.1)),
    "imagenet": _strengths((2, 9), (2, 9), (6000, 0.1)),
}

# Settings that are not compared: the place of a run in a table, and the file of a policy, which the method implies.
_AXES = ("dataset.name", "method.name", "split", "seed", "distortion.imbalance_ratio", "distortion.noise_ratio")
_FILE = ("policy.path", "policy.content")
_SAME = ("policy.search.implementation",)  # computes the same operations

_SPLITS = {"paper": "train_i", "oversplit": "train_all", "test-as-val": "test_as_val"}

LIKE_FOR_LIKE = (
    "The paper took the best epoch on the test set, as its published code does: error_best_test is the like-for-like "
    "comparison with it."
)
SEARCHED = (
    "Policies that were searched here are compared with the paper's figures for policies published by their authors."
)
TWO_READINGS = (
    "The paper's figures stand beside two readings of it: the methods autodo-* follow its text, and autodo-published-* "
    "the code that its authors published."
)


def follows_protocol(config: Mapping[str, Any], despite: Collection[str] = ()) -> bool:
    """Whether a configuration equals the paper's in all settings but seed, split and distortion.

    For the methods autodo-published-* it must equal that of the authors' code.

    Args:
        despite: further settings by dotted key in which it may differ.
    """
    departures = departures_from_protocol(config)
    return departures is not None and departures.keys() <= set(despite)


def departures_from_protocol(config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]] | None:
    """Settings in which a configuration differs from the paper's: (the paper's value, its own) by dotted key.

    None if the paper has no such dataset or method.
    """
    found = flatten(with_added(dict(config)))
    dataset, method = found.get("dataset.name"), found.get("method.name")
    if dataset not in _DATASETS or method not in _METHODS:
        return None
    settings = _METHODS[method][1]
    strengths = _STRENGTHS[dataset].get(settings.get("policy.kind", ""), {})
    outer = _OUTER.get(dataset, {}) if "outer.lr" in settings else {}
    published = _PUBLISHED_DATA.get(dataset, {}) if _follows_code(method) else {}
    protocol = {**_ALL, **_DATASETS[dataset], **settings, **outer, **strengths, **published}
    later = {key: value for key, value in {**flatten(ADDED), **flatten(PAPER)}.items() if key in found}
    wanted = {**later, **protocol}
    ignored = {*_AXES, *_SAME, *(_FILE if settings.get("policy.kind") == "file" else ())}
    if found.get("distortion.imbalance_ratio") == 1:
        ignored.add("distortion.minority")  # nothing is removed
    keys = (wanted.keys() | found.keys()) - ignored
    return {key: (wanted.get(key), found.get(key)) for key in sorted(keys) if wanted.get(key) != found.get(key)}


def _follows_code(method: str) -> bool:
    """Whether a method follows the authors' code where it differs from the paper's text."""
    return _PUBLISHED.items() <= _METHODS[method][1].items()


def check_departures(keys: Iterable[str]) -> None:
    """Raise ConfigError, with the nearest one, unless each dotted key is a setting of the paper's protocol."""
    strengths = (settings for kinds in _STRENGTHS.values() for settings in kinds.values())
    parts = [
        _ALL,
        *_DATASETS.values(),
        *_OUTER.values(),
        *_PUBLISHED_DATA.values(),
        *(own for _, own in _METHODS.values()),
        *strengths,
    ]
    known = sorted({key for part in (*parts, flatten(ADDED), flatten(PAPER)) for key in part})
    for key in keys:
        check_name(key, known, "setting")


def departure_notes(configs: Iterable[str]) -> list[str]:
    """A note on the settings in which runs beside the paper's figures differ from its protocol; none if they do not.

    Args:
        configs: of these runs, as JSON.
    """
    found: dict[str, dict[str, None]] = {}
    for config in dict.fromkeys(configs):
        for key, (papers, ours) in (departures_from_protocol(json.loads(config)) or {}).items():
            found.setdefault(key, {})[f"{_shown(ours)} (the paper: {_shown(papers)})"] = None
    listed = "; ".join(f"{key} = {', '.join(values)}" for key, values in sorted(found.items()))
    return [f"The paper's figures are shown although these runs do not follow its protocol: {listed}."] if found else []


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def paper_error(
    config: str, tables: tuple[int, ...] = (1, 2, 3, 4, 6, 5), despite: Collection[str] = ()
) -> Reference | None:
    """The paper's test error in percent for runs of a configuration; None unless they follow its protocol.

    Args:
        config: of any of the runs, as JSON.
        tables: of the paper, in order of preference: some cells are in two, rounded differently.
        despite: settings by dotted key in which the runs may differ from the protocol.
    """
    run = json.loads(config)
    if not follows_protocol(run, despite):
        return None
    cell = _cell(run)
    found = (_errors().get((table, *cell)) for table in tables)
    return next((reference for reference in found if reference), None)


def paper_name(method: str) -> str | None:
    """The paper's name of a method; None if it is not in the paper."""
    return _METHODS[method][0] if method in _METHODS else None


def paper_lead(config: str, despite: Collection[str] = ()) -> Reference | None:
    """The paper's lead of AutoDO over the best prior method in percentage points, as `paper_error`.

    The figures of section 5.2 are those of autodo-aws.

    Args:
        config: of a run of AutoDO.
    """
    run = json.loads(config)
    if not follows_protocol(run, despite):
        return None
    dataset, model, method, imbalance, noise, split = _cell(run)
    for table in (1, 2, 3, 4, 6):
        of_table = {
            name: _errors().get((table, dataset, model, name, imbalance, noise, split)) for name in (method, *PRIOR)
        }
        ours = of_table[method]
        if ours is not None and method not in PRIOR:
            prior = [reference.mean for name in PRIOR if (reference := of_table[name]) is not None]
            return Reference(round(min(prior) - ours.mean, 2))
    return None


def paper_accuracies(config: str, despite: Collection[str] = ()) -> dict[str, Reference]:
    """The paper's accuracies in percent, as `paper_error`: `all`, `minority` and `spread` (std over classes)."""
    run = json.loads(config)
    return dict(_accuracies().get(_cell(run), {})) if follows_protocol(run, despite) else {}


def paper_outer_hours(config: str, despite: Collection[str] = ()) -> Reference | None:
    """The paper's GPU hours of AutoDO's epochs from E on, on undistorted data, for the E of this run."""
    run = json.loads(config)
    settings = flatten(run)
    share = settings.get("outer.start_share")
    undistorted = settings.get("distortion.imbalance_ratio") == 1 and settings.get("distortion.noise_ratio") == 0
    ours, _ = _METHODS.get(str(settings.get("method.name")), ("", {}))
    if share is None or ours != "autodo-aws" or run.get("split") != "paper" or not undistorted:
        return None
    if not follows_protocol({**run, "outer": {**run["outer"], "start_share": _AUTODO["outer.start_share"]}}, despite):
        return None
    hours = paper_hours(str(settings["dataset.name"])).get(f"AutoDO, E={round(share * _ALL['training.epochs'])}")
    return None if hours is None else Reference(hours)


def paper_hours(dataset: str) -> dict[str, float]:
    """GPU hours by algorithm (table 7); empty for a dataset that is not in it."""
    column = f"{dataset}_gpu_hours"
    return {row["algorithm"]: float(row[column]) for row in _rows("paper_runtime_gpu_hours.csv") if row.get(column)}


_Cell = tuple[str, str, str, float, float, str]


def _cell(run: Mapping[str, Any]) -> _Cell:
    """The paper's cell for a run that follows the protocol."""
    settings = flatten(run)
    return (
        str(settings["dataset.name"]),
        str({**_ALL, **_DATASETS[settings["dataset.name"]]}["model.name"]),
        _METHODS[settings["method.name"]][0],
        float(settings["distortion.imbalance_ratio"]),
        float(settings["distortion.noise_ratio"]),
        _SPLITS.get(str(run.get("split")), ""),
    )


def _stated_cell(row: Mapping[str, str]) -> _Cell:
    ratios = float(row["imbalance_ratio"]), float(row["noise_ratio"])
    return row["dataset"], row["architecture"], row["method"], *ratios, row["split"]


@functools.cache
def _errors() -> dict[tuple[int, str, str, str, float, float, str], Reference]:
    return {
        (int(row["table"]), *_stated_cell(row)): Reference(
            float(row["error_mean_percent"]), float(row["error_std_percent"]) if row["error_std_percent"] else None
        )
        for row in _rows("paper_error_rates.csv")
    }


@functools.cache
def _accuracies() -> dict[_Cell, dict[str, Reference]]:
    found: dict[_Cell, dict[str, Reference]] = {}
    for row in _rows("paper_class_accuracy.csv"):
        found.setdefault(_stated_cell(row), {})[row["quantity"]] = Reference(float(row["percent"]))
    return found


@functools.cache
def _rows(name: str) -> tuple[dict[str, str], ...]:
    text = (resources.files("reports") / "reference" / name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
