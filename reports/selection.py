"""A part of a store's runs: `method=baseline,method=autodo-aws,distortion=100-0.1`."""

from collections import defaultdict

import pandas as pd

from autodo.errors import ConfigError
from autodo.validation import check_name

KEYS = ("dataset", "model", "method", "distortion", "split", "seed")
"""What a part is chosen by: columns of `comparison.named`."""


def select(runs: pd.DataFrame, text: str) -> pd.DataFrame:
    """The runs that fit: any of the values of a key, and every key.

    Args:
        runs: from `comparison.named`.
    Raises:
        ConfigError: if a key is unknown or no run has the value; it names those that there are.
    """
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise ConfigError(f"--select {part!r}: is not KEY=VALUE, such as method=baseline; keys: {', '.join(KEYS)}")
        if key not in KEYS:
            raise ConfigError(f"--select {part!r}: unknown key {key!r}; keys: {', '.join(KEYS)}")
        there = runs[key].astype(str).unique()
        try:
            check_name(value, sorted(there), key)
        except ConfigError as error:
            raise ConfigError(f"--select {part!r}: {error}") from None
        wanted[key].add(value)
    fits = pd.Series(True, index=runs.index)
    for key, values in wanted.items():
        fits &= runs[key].astype(str).isin(values)
    return runs[fits].reset_index(drop=True)
