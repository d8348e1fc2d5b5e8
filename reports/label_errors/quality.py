"""Quality of rankings, measured on labels that are known to be wrong."""

from collections.abc import Mapping

import numpy as np

from reports.analysis.label_repair import DetectionQuality, detection_quality
from reports.document import Cell, Column, Row, Table
from reports.label_errors.rankings import RANKINGS
from reports.label_errors.signals import Floats, Signals


def qualities(signals: Signals, keys: Mapping[str, Floats]) -> dict[str, DetectionQuality]:
    """The quality of each key; empty if no label, or every label, is known to be wrong."""
    wrong = signals.wrong
    if wrong is None:
        return {}
    findings = {name: detection_quality(key.astype(np.float64), wrong) for name, key in keys.items()}
    return {name: found for name, found in findings.items() if found is not None}


def quality_table(found: Mapping[str, DetectionQuality], signals: Signals) -> Table:
    """A table of the qualities of one run's rankings, the best first."""
    assert signals.wrong is not None
    wrong, points = int(signals.wrong.sum()), len(signals.given)
    best = DetectionQuality(*(max(column) for column in zip(*found.values(), strict=True)))
    return Table(
        key="label-quality",
        title=f"{wrong:,} of {points:,} labels are known to be wrong",
        caption=f"how well each ranking finds the wrong labels; precision: of the first {wrong:,}",
        heading="ranking",
        columns=(Column("AUROC", "%", better="higher"), Column("precision", "%", better="higher")),
        rows=tuple(
            Row(name, tuple(_cell(value, top, len(found)) for value, top in zip(of_one, best, strict=True)))
            for name, of_one in sorted(found.items(), key=lambda item: -item[1].precision)
        ),
        notes=("; ".join(f"{name}: {RANKINGS[name].summary}" for name in found) + ".",),
    )


def _cell(value: float, top: float, of: int) -> Cell:
    return Cell(100 * value, n=1, best=of > 1 and value == top)
