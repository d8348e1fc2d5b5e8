"""The train points of a run, sorted by how probably their label is wrong."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa

from reports.label_errors.rankings import DEFAULT, RANKINGS, MissingSignal
from reports.label_errors.signals import ROWS_AT_ONCE, Floats, Integers, Signals, read_signals


@dataclasses.dataclass(frozen=True, eq=False)
class RankedLabels(Signals):
    """All train points of a run, the most suspicious first; equal ones in the order of the points table.

    Args:
        ranking: name of the ranking that sorts them.
        score: the higher, the more probably wrong; comparable only within a run.
    Shape:
        score [N].
    """

    ranking: str
    class_names: tuple[str, ...]
    score: Floats

    def __len__(self) -> int:
        return len(self.index)

    def first(self, n: int) -> Self:
        """The first n points."""
        return dataclasses.replace(self, **_taken(self, np.arange(min(n, len(self)))))

    def name(self, label: int) -> str:
        """The name of a class."""
        return self.class_names[label]


def _taken(points: Signals, positions: Integers) -> dict[str, Any]:
    """The fields of all points at these positions, in their order."""
    fields = {field.name: getattr(points, field.name) for field in dataclasses.fields(points)}
    arrays = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
    return {name: value[positions] for name, value in arrays.items()} | {
        "source": points.source.take(pa.array(positions))
    }


def rank_labels(points: pa.Table, class_names: Sequence[str], ranking: str = DEFAULT) -> RankedLabels:
    """Rank the points of a points table, the most probably wrong label first.

    Args:
        points: `records.SCHEMAS["points"]`, all rows of one run.
        class_names: of results, in class order.
        ranking: a key of RANKINGS.
    Raises:
        UnusableFile: if the table is damaged. MissingSignal: if the run lacks a signal that the ranking needs.
    """
    return ranked(read_signals(points.to_batches(max_chunksize=ROWS_AT_ONCE), len(class_names)), class_names, ranking)


def ranked(signals: Signals, class_names: Sequence[str], ranking: str = DEFAULT) -> RankedLabels:
    """Rank points whose signals are read already; as `rank_labels`."""
    if ranking not in RANKINGS:
        raise MissingSignal(f"unknown ranking {ranking!r}; known: {', '.join(RANKINGS)}")
    key = RANKINGS[ranking].key(signals)
    order = np.argsort(-key, kind="stable")
    fields = {field.name: getattr(signals, field.name) for field in dataclasses.fields(signals)}
    return RankedLabels(
        **(fields | _taken(signals, order)),
        ranking=ranking,
        class_names=tuple(class_names),
        score=RANKINGS[ranking].score(key)[order],
    )
