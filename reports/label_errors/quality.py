"""How well rankings find the labels that are known to be wrong."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from reports.analysis.label_repair import DetectionQuality, detection_quality
from reports.document import Cell, Column, Row, Table
from reports.label_errors.rankings import RANKINGS, keys_of
from reports.label_errors.signals import ROWS_AT_ONCE, Floats, Signals, UnusableSignals, read_signals

QUALITY_COLUMNS = ("index", "label", "clean_label", "prediction", "loss", "weight", "soft_label")
"""Columns of points that `label_quality` reads; every store has them."""


def label_quality(points: pa.Table) -> dict[str, DetectionQuality]:
    """The quality of each ranking that takes no time, for `reduce_runs` with QUALITY_COLUMNS.

    Returns:
        by name of the ranking; without those that the method lacks. Empty if no label is known to be wrong, or if the
        table cannot be used: the run is then a hole, and what is wrong `reduce_runs` says.
    """
    # Without the soft labels nothing says how many classes there are, and nothing here depends on it.
    lists = points["soft_label"].drop_null()
    classes = len(lists[0]) if len(lists) else np.iinfo(np.int16).max
    try:
        signals = read_signals(points.to_batches(max_chunksize=ROWS_AT_ONCE), classes)
    except UnusableSignals:
        return {}
    keys, _ = keys_of(signals, [name for name, ranking in RANKINGS.items() if not ranking.slow])
    return qualities(signals, keys)


def qualities(signals: Signals, keys: Mapping[str, Floats]) -> dict[str, DetectionQuality]:
    """The quality of each key; empty if no label is known to be wrong, or all are."""
    wrong = signals.wrong
    if wrong is None:
        return {}
    findings = {name: detection_quality(key.astype(np.float64), wrong) for name, key in keys.items()}
    return {name: found for name, found in findings.items() if found is not None}


def quality_table(found: Mapping[str, DetectionQuality], wrong: int, points: int) -> Table:
    """The qualities of one run's rankings, the best first.

    Args:
        wrong: how many labels are; points: of so many.
    """
    best = DetectionQuality(*(max(column) for column in zip(*found.values(), strict=True)))
    return Table(
        key="label-quality",
        title=f"{wrong:,} of {points:,} labels are known to be wrong",
        caption=f"how well each ranking finds the labels that were changed; precision: of the first {wrong:,}",
        heading="ranking",
        columns=(
            Column("AUROC", "%", better="higher"),
            Column("precision", "%", better="higher"),
        ),
        rows=tuple(
            Row(name, tuple(_cell(value, top, len(found)) for value, top in zip(of_one, best, strict=True)))
            for name, of_one in sorted(found.items(), key=lambda item: -item[1].precision)
        ),
        notes=("; ".join(f"{name}: {RANKINGS[name].summary}" for name in found) + ".",),
    )


def _cell(value: float, top: float, of: int) -> Cell:
    return Cell(100 * value, n=1, best=of > 1 and value == top)
