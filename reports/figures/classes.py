"""Classes of the runs of a cell: their names, and which of them imbalance makes rare."""

from typing import Any

import numpy as np
import pandas as pd


def class_names(runs: pd.DataFrame) -> tuple[str, ...]:
    """Those of the first run that has them; numbers where none has.

    Args:
        runs: rows of results of one cell.
    """
    for names in runs["class_names"]:
        if listed(names):
            return tuple(str(name) for name in listed(names))
    lengths = [len(listed(accuracy)) for accuracy in runs["per_class_accuracy"]]
    return tuple(str(i) for i in range(max(lengths, default=0)))


def listed(value: object) -> list[Any]:
    """A list column's value, which pandas gives as an array, and as something else where it is null."""
    return list(value) if isinstance(value, np.ndarray | list | tuple) else []


def minority_start(runs: pd.DataFrame, classes: int) -> int | None:
    """The first label of the minority, C//2; None where the classes are as many as the dataset has them."""
    return classes // 2 if len(runs) and float(runs["imbalance_ratio"].iloc[0]) > 1 else None
