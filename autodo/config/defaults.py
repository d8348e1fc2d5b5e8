"""Settings that a RunConfig did not have from the beginning, and what older configurations mean without them.

Three questions have three answers, which need not be the same:

- What did runs do before the setting was there? That is its *old default* in `ADDED`. A configuration that was kept
  without the setting is read with it, and it is left out of the hashes, so that the ids of runs stay what they were.
- What does the paper do? That is the old default, or the value in `PAPER` where the two differ.
- What do new runs do? The fields' defaults and the presets say. `CHANGED` lists the settings where that is no longer
  the old default, so that a grid that was launched before still means the same runs.

Importing this module imports nothing.
"""

from typing import Any

ADDED: dict[str, Any] = {
    "dataset": {"stream": False, "damaged_limit": 0.001},
    "distortion": {"minority": "class"},
    "augmentation": {"resized_crop": None},
    "policy": None,
    "objective": None,
    "finetune": None,
    "method": {"images": "train"},
    "outer": {"hessian_points": None, "every": 1, "schedule": "shared", "neumann_scale": "step", "eps": 1e-8},
    "points": {"precision": "fp32", "square_average": "element", "warp": "fused"},
    "training": {"precision": "fp32", "compile": False},
}
"""Old defaults by section and key."""

PAPER: dict[str, Any] = {
    "distortion": {"minority": "total"},
    "outer": {"schedule": "restart", "neumann_scale": "sum"},
}
"""What the paper, or its published code where the text is silent, has in place of the old default."""

PROTOCOL = 2
"""Number of the present defaults and presets; a grid keeps the number under which it was launched."""

CHANGED: dict[int, dict[str, Any]] = {
    2: {
        "distortion.minority": "class",
        "outer.schedule": "shared",
        "outer.neumann_scale": "step",
        "policy.search.implementation": "own",
    }
}
"""By protocol, the settings that since then have another default, or another value in presets, with their old value."""


def with_added(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run, perhaps kept before some settings were there, with all of them."""
    full = dict(config)
    for section, settings in ADDED.items():
        if settings is None:
            full.setdefault(section, None)
        elif isinstance(config.get(section), dict):
            full[section] = settings | config[section]
    return full


def without_added(config: dict[str, Any], added: dict[str, Any] = ADDED) -> dict[str, Any]:
    """The same without the settings that have their old default."""
    inner = {
        key: without_added(config[key], value)
        for key, value in added.items()
        if isinstance(value, dict) and isinstance(config.get(key), dict)
    }
    return {key: value for key, value in (config | inner).items() if key not in added or added[key] != value}


def defaults_before(protocol: int) -> dict[str, Any]:
    """Old values, by dotted key, of the settings that have changed since a protocol; empty for the present one.

    Raises:
        ValueError: if there is no such protocol.
    """
    if not 1 <= protocol <= PROTOCOL:
        raise ValueError(f"protocol {protocol} is not among 1 to {PROTOCOL}")
    return {key: value for number in CHANGED if number > protocol for key, value in CHANGED[number].items()}
