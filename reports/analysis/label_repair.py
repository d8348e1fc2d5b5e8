"""How well the learned weights and soft labels of a run find and repair labels that are known to be wrong."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

REPAIR_COLUMNS = ("label", "clean_label", "weight", "soft_label", "loss")
"""Columns of points that `label_repair` reads."""

Floats = NDArray[np.float64]


class DetectionQuality(NamedTuple):
    """How well a suspicion score of train points detects wrong labels.

    Args:
        auroc: area under the ROC curve.
        precision: share of wrong labels among the n most suspicious points, where n is the number of wrong labels, so
            that it equals the recall. Points tied with the last one count by their share of wrong labels.
    """

    auroc: float
    precision: float


class LabelRepair(NamedTuple):
    """How well one run detects and repairs its wrong labels.

    Args:
        points, wrong: number of train points, and of those whose label is not the clean one.
        weight, loss, soft_label: detection by a low weight, a high loss, and 1 minus the soft label's probability of
            the given label; None if not learned, or unknown for some point.
        repaired: share of the wrong labels whose soft label is highest at the clean label.
        lost: share of the right labels whose soft label is highest at another label.
    """

    points: int
    wrong: int
    weight: DetectionQuality | None = None
    loss: DetectionQuality | None = None
    soft_label: DetectionQuality | None = None
    repaired: float | None = None
    lost: float | None = None


def label_repair(points: pa.Table) -> LabelRepair:
    """Detection and repair of wrong labels by one run, for `reports.readers.load.reduce_runs`.

    Args:
        points: REPAIR_COLUMNS of the train points of a run.
    """
    label, clean = _numbers(points, "label"), _numbers(points, "clean_label")
    if label is None or clean is None:
        return LabelRepair(points.num_rows, 0)
    wrong = label != clean
    found = LabelRepair(len(wrong), int(wrong.sum()))
    if not wrong.any():
        return found
    weight, loss, soft = _numbers(points, "weight"), _numbers(points, "loss"), _soft_labels(points)
    found = found._replace(
        weight=None if weight is None else detection_quality(-weight, wrong),
        loss=None if loss is None else detection_quality(loss, wrong),
    )
    if soft is None or label.min() < 0 or label.max() >= soft.shape[1]:
        return found
    top = soft.argmax(axis=1)
    return found._replace(
        soft_label=detection_quality(1 - soft[np.arange(len(soft)), label.astype(int)], wrong),
        repaired=float((top == clean)[wrong].mean()),
        lost=float((top != clean)[~wrong].mean()) if not wrong.all() else None,
    )


def detection_quality(score: Floats, wrong: NDArray[np.bool_]) -> DetectionQuality | None:
    """Quality of a score as a detector of wrong labels; None if all labels or none are wrong.

    Shape:
        score [N] float64, the higher the more suspicious; wrong [N] bool.
    """
    count = int(wrong.sum())
    if count in (0, len(wrong)):
        return None
    from scipy.stats import rankdata  # slow to import

    ranks = rankdata(score)
    # The Mann-Whitney statistic over all pairs is the area under the ROC curve; ties count half.
    pairs_in_order = ranks[wrong].sum() - count * (count + 1) / 2
    last = np.partition(score, len(score) - count)[len(score) - count]
    above, at = score > last, score == last
    hits = wrong[above].sum() + (count - above.sum()) * wrong[at].mean()
    return DetectionQuality(float(pairs_in_order / (count * (len(score) - count))), float(hits / count))


def _numbers(points: pa.Table, name: str) -> Floats | None:
    """A column; None if it is empty or a value is missing."""
    values = points[name].to_numpy(zero_copy_only=False).astype(float)
    return values if len(values) and np.isfinite(values).all() else None


def _soft_labels(points: pa.Table) -> NDArray[np.floating] | None:
    """Soft labels [N, C] in the dtype of the store; None if one is missing or their lengths differ."""
    column = points["soft_label"].combine_chunks()
    if column.null_count or not len(column):
        return None
    values = column.flatten().to_numpy(zero_copy_only=False)
    widths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
    if len(widths) != 1 or widths[0] == 0 or not np.isfinite(values).all():
        return None
    return values.reshape(len(column), int(widths[0]))
