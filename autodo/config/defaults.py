"""Defaults of settings that came after the first version, so that run ids and stored configurations keep their meaning.

A setting that is new in RunConfig gets an entry in `ADDED`: the value that describes earlier runs. A stored
configuration without the setting is read with that value, and a setting with that value is left out of the hash that
makes a run id. So old runs keep their ids.

Two tables hold values that differ from it: `PAPER`, where the paper's protocol does; and `CHANGED`, where today's
default or preset does. A grid that was launched under an earlier protocol is expanded with the old values in `CHANGED`.

Importing this module imports nothing.
"""

from typing import Any

ADDED: dict[str, Any] = {
    "dataset": {"stream": False, "damaged_limit": 0.001, "resize": None, "code": None},
    "distortion": {"minority": "class", "imbalance": "step", "noise": "uniform"},
    "augmentation": {"resized_crop": None, "order": "erase-last", "border": "zeros", "erase_area": 0.4},
    "model": {
        **{"head": None, "code": None, "weights": None, "weights_content": None, "freeze": "none"},
        **{"input_size": None, "normalisation": None, "cached_views": None},
    },
    "policy": None,
    "objective": None,
    "finetune": None,
    "head": None,
    "method": {"images": "train", "undistorted_loss": None},
    "outer": {
        **{"hessian_points": None, "every": 1, "schedule": "shared", "neumann_scale": "step", "eps": 1e-8},
        **{"batch_size": None, "inner": "training"},
    },
    "points": {
        **{"precision": "fp32", "square_average": "element", "warp": "fused", "gate_temperature": 0.5},
        **{"covariance": "diagonal", "mixture": None, "soft_label": "learned"},
    },
    "training": {
        **{"precision": "fp32", "compile": False, "schedule": "to-zero", "last_batch": "even"},
        **{"ema": None, "selection": "best-val"},
        **{"optimizer": "sgd", "encoder_lr_factor": 1.0},
    },
}
"""Value before the setting existed, by section and key."""

ADDED_TO_NEW: dict[str, dict[str, Any]] = {"head": {"every": None, "start_share": None}}
"""The same for settings that came after their section, which is None in `ADDED`."""

PAPER: dict[str, Any] = {
    "distortion": {"minority": "total"},
    "outer": {"schedule": "restart", "neumann_scale": "sum"},
}
"""Value in the paper, or in its published code where the text is silent, if it differs from `ADDED`."""

METHOD_KEYS: dict[str, set[str]] = {
    "augmentation": {"order", "border", "erase_area"},
    "training": {"schedule", "last_batch", "ema", "selection"},
}
"""Settings outside a method's sections that a preset may choose; they belong to the method, not to the recipe that a
comparison holds fixed."""

PROTOCOL = 2
"""Version of today's defaults and presets; a store's grid records the version it was launched under."""

CHANGED: dict[int, dict[str, Any]] = {
    2: {
        "distortion.minority": "class",
        "outer.schedule": "shared",
        "outer.neumann_scale": "step",
        "policy.search.implementation": "own",
    }
}
"""Values before each protocol, of the settings whose default or preset it changed."""


def with_added(config: dict[str, Any]) -> dict[str, Any]:
    """Complete a stored configuration with the values of `ADDED` that it lacks."""
    full = dict(config)
    for section, settings in ADDED.items():
        if settings is None:
            full.setdefault(section, None)
        elif isinstance(config.get(section), dict):
            full[section] = settings | config[section]
    for section, settings in ADDED_TO_NEW.items():
        if isinstance(full[section], dict):
            full[section] = settings | full[section]
    return full


def without_added(config: dict[str, Any]) -> dict[str, Any]:
    """Remove the settings that have the value of `ADDED`; the result is hashed."""
    return _without(_without(config, ADDED_TO_NEW), ADDED)


def _without(config: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    inner = {
        key: _without(config[key], value)
        for key, value in added.items()
        if isinstance(value, dict) and isinstance(config.get(key), dict)
    }
    return {key: value for key, value in (config | inner).items() if key not in added or added[key] != value}


def defaults_before(protocol: int) -> dict[str, Any]:
    """Values under an earlier protocol, by dotted key, of the settings changed since; empty for the present protocol.

    Raises:
        ValueError: if there is no such protocol.
    """
    if not 1 <= protocol <= PROTOCOL:
        raise ValueError(f"protocol {protocol} is not among 1 to {PROTOCOL}")
    return {key: value for number in CHANGED if number > protocol for key, value in CHANGED[number].items()}
