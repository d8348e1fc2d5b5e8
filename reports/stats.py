"""Means and standard deviations over seeds."""

from collections.abc import Sequence

import numpy as np


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (ddof = 1) over the values that are not NaN.

    Returns:
        (None, None) for no value; the standard deviation is None under two values.
    Shape:
        values [n].
    """
    known = np.asarray([value for value in values if value is not None and not np.isnan(value)], dtype=float)
    if known.size == 0:
        return None, None
    return float(known.mean()), float(known.std(ddof=1)) if known.size > 1 else None
