"""Selection of runs, such as `method=baseline,method=autodo-aws,distortion=100-0.1`."""

import functools

import pandas as pd

from autodo.config.validation import parse_selection

KEYS = ("dataset", "model", "method", "distortion", "split", "seed", "variant")
"""Columns of `comparison.named` by which runs can be selected; `variant` only if some run has one."""


def select(runs: pd.DataFrame, text: str) -> pd.DataFrame:
    """The runs that have, for each key, any of its values; a run without a variant is of all variants.

    Args:
        runs: from `comparison.named`.
    Raises:
        ConfigError: if a key is unknown or no run has the value; it names the known ones.
    """
    keys = [key for key in KEYS if key != "variant" or runs[key].any()]
    texts = runs[keys].astype(str)
    known = {key: functools.partial(_values, texts[key]) for key in keys}
    wanted = parse_selection("--select", text, known)
    fits = pd.Series(True, index=runs.index)
    for key, values in wanted.items():
        fits &= texts[key].isin({*values, ""})
    return runs[fits].reset_index(drop=True)


def _values(column: "pd.Series[str]") -> set[str]:
    return {value for value in column if value}
