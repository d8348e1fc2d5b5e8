"""Roles of methods in the comparison of AutoDO with prior methods, from the configuration of their runs."""

import json
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

Role = Literal["autodo", "prior", "anchor"]


def role(config: Mapping[str, Any]) -> Role:
    """Role of a method.

    `autodo` learns hyperparameters of train points (`points`). `anchor` trains its network on the val images, and shows
    what these are worth without a method. `prior` is any other, the baseline included.
    """
    if config.get("points") is not None:
        return "autodo"
    images = (config.get("method") or {}).get("images", "train")
    return "anchor" if images != "train" or config.get("finetune") is not None else "prior"


def roles(runs: pd.DataFrame) -> dict[str, Role]:
    """Role of each name of runs.

    Args:
        runs: from `comparison.named`.
    """
    first = runs.drop_duplicates("name")
    return {str(name): role(json.loads(config)) for name, config in zip(first["name"], first["config"], strict=True)}
