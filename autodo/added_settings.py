"""What a RunConfig had not from the beginning, with the values that change nothing.

A setting that is added later belongs here: the ids of runs stay what they were where it has that value, and runs that
were kept without it, and the paper's, count as having it. Importing this module imports nothing.
"""

from typing import Any

ADDED: dict[str, Any] = {
    "dataset": {"stream": False, "damaged_limit": 0.001},
    "augmentation": {"resized_crop": None},
    "policy": None,
    "objective": None,
    "finetune": None,
    "method": {"images": "train"},
    "outer": {"hessian_points": None, "every": 1},
    "points": {"precision": "fp32", "square_average": "element", "warp": "fused"},
    "training": {"precision": "fp32", "compile": False},
}


def with_added(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run, perhaps kept before some settings were there, with all of them."""
    full = ADDED | config
    for section, settings in ADDED.items():
        if settings is not None:
            inner = config.get(section)
            full[section] = settings | inner if isinstance(inner, dict) else inner
    return full


def without_added(config: dict[str, Any], added: dict[str, Any] = ADDED) -> dict[str, Any]:
    """The same without those that change nothing."""
    inner = {
        key: without_added(config[key], value)
        for key, value in added.items()
        if isinstance(value, dict) and isinstance(config.get(key), dict)
    }
    return {key: value for key, value in (config | inner).items() if key not in added or added[key] != value}
