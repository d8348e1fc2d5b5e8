"""The train points of a run, the most probably wrong label first."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from reports.label_errors.rankings import DEFAULT, RANKINGS, MissingSignal
from reports.label_errors.signals import ROWS_AT_ONCE, Floats, Integers, Signals, read_signals


@dataclasses.dataclass(frozen=True, eq=False)
class RankedLabels:
    """All train points of a run, the worst first; of equal ones in the order of the points table.

    Args:
        ranking: by which they are sorted.
        index: position in the original train set; source: file of the image, null if it has none.
        given, proposed, prediction: numbers of classes; `proposed` is UNKNOWN (-1) where there is none.
        score: the higher, the more probably wrong; comparable within a run only.
        weight, soft_label: learned weight, and what the learned soft label gives the given label; None if not learned.
        wrong: which labels the distortion changed; None if it changed none, because then nobody knows.
    Shape:
        all [N].
    """

    ranking: str
    class_names: tuple[str, ...]
    index: Integers
    source: pa.Array
    given: Integers
    proposed: Integers
    prediction: Integers
    score: Floats
    loss: Floats
    weight: Floats | None
    soft_label: Floats | None
    wrong: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.index)

    def first(self, n: int) -> Self:
        """The first n of them."""
        arrays = {name: getattr(self, name) for name in _COLUMNS}
        cut: dict[str, Any] = {name: None if values is None else values[:n] for name, values in arrays.items()}
        return dataclasses.replace(self, **cut)

    def name(self, label: int) -> str:
        """The name of a class; a dash for none."""
        return self.class_names[label] if label >= 0 else "–"


_COLUMNS = [field.name for field in dataclasses.fields(RankedLabels) if field.name not in ("ranking", "class_names")]


def rank_labels(points: pa.Table, class_names: Sequence[str], ranking: str = DEFAULT) -> RankedLabels:
    """The points of a points table, the most probably wrong label first.

    Args:
        points: `records.SCHEMAS["points"]`, all rows of one run; younger columns may be absent.
        class_names: of results, in class order.
        ranking: a key of RANKINGS.
    Raises:
        UnusableSignals: if the table is damaged. MissingSignal: if the run has not what the ranking needs.
    """
    return ranked(read_signals(points.to_batches(max_chunksize=ROWS_AT_ONCE), len(class_names)), class_names, ranking)


def ranked(signals: Signals, class_names: Sequence[str], ranking: str = DEFAULT) -> RankedLabels:
    """As `rank_labels`, of signals that are read already.

    Raises:
        MissingSignal: if the run has not what the ranking needs.
    """
    if ranking not in RANKINGS:
        raise MissingSignal(f"unknown ranking {ranking!r}; known: {', '.join(RANKINGS)}")
    key = RANKINGS[ranking].key(signals)
    order = np.argsort(-key, kind="stable")
    return RankedLabels(
        ranking=ranking,
        class_names=tuple(class_names),
        index=signals.index[order],
        source=signals.source.take(pa.array(order)),
        given=signals.given[order],
        proposed=signals.proposed[order],
        prediction=signals.prediction[order],
        score=RANKINGS[ranking].score(key)[order],
        loss=signals.loss[order],
        weight=None if signals.weight is None else signals.weight[order],
        soft_label=None if signals.soft_label is None else signals.soft_label[order],
        wrong=None if signals.wrong is None else signals.wrong[order],
    )
