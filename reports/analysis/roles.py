"""Roles of methods in the comparison of AutoDO with prior methods, from the configuration of their runs."""

import json
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

Role = Literal["autodo", "prior", "anchor"]


def role(config: Mapping[str, Any]) -> Role:
    """Role of a method.

    `autodo` learns hyperparameters of train points (`points`). `anchor` trains its network or its head on the val
    images, and so on more clean images than the methods that are compared. `prior` is any other, the baseline included.
    """
    if config.get("points") is not None:
        return "autodo"
    images = (config.get("method") or {}).get("images", "train")
    head_on_val = (config.get("head") or {}).get("images") == "val"
    return "anchor" if images != "train" or config.get("finetune") is not None or head_on_val else "prior"


def roles(runs: pd.DataFrame) -> dict[str, Role]:
    """Role of each name of runs.

    Args:
        runs: from `comparison.named`.
    """
    first = runs.drop_duplicates("name")
    return {str(name): role(json.loads(config)) for name, config in zip(first["name"], first["config"], strict=True)}
