"""Whether what a run learned of its labels is true: weights and soft labels against the labels that were changed."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

REPAIR_COLUMNS = ("label", "clean_label", "weight", "soft_label", "loss")
"""What `label_repair` reads of points."""

Floats = NDArray[np.float64]


class DetectionQuality(NamedTuple):
    """How well a score of train points, the higher the more suspicious, finds the wrong labels.

    Args:
        auroc: area under the ROC curve.
        precision: share of wrong labels among as many most suspicious points as there are wrong labels, which is the
            recall as well; of points with the same score as the last of them, the share that is wrong counts.
    """

    auroc: float
    precision: float


class LabelRepair(NamedTuple):
    """What a run knew of its wrong labels.

    Args:
        points, wrong: how many train points there are, and how many have a label that is not their clean one.
        weight, loss, soft_label: how well they are found by a low weight, a high loss and a soft label's doubt,
            1 minus its share of the observed label; None if not learned or not known of every point.
        repaired: share of the wrong labels whose soft label is highest at the clean label.
        lost: share of the right labels whose soft label is highest at another.
    """

    points: int
    wrong: int
    weight: DetectionQuality | None = None
    loss: DetectionQuality | None = None
    soft_label: DetectionQuality | None = None
    repaired: float | None = None
    lost: float | None = None


def label_repair(points: pa.Table) -> LabelRepair:
    """What one run's points say of its labels, for `reports.readers.load.reduce_runs`.

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
    """How well the score finds what is wrong; None if all or none is.

    Shape:
        score [N] float64, the higher the more suspicious; wrong [N] bool.
    """
    count = int(wrong.sum())
    if count in (0, len(wrong)):
        return None
    from scipy.stats import rankdata  # takes a second to import

    ranks = rankdata(score)
    # The Mann-Whitney statistic over all pairs is the area under the ROC curve; ties count half.
    pairs_in_order = ranks[wrong].sum() - count * (count + 1) / 2
    last = np.partition(score, len(score) - count)[len(score) - count]
    above, at = score > last, score == last
    hits = wrong[above].sum() + (count - above.sum()) * wrong[at].mean()
    return DetectionQuality(float(pairs_in_order / (count * (len(score) - count))), float(hits / count))


def _numbers(points: pa.Table, name: str) -> Floats | None:
    """A column, None if it is empty or lacks a number."""
    values = points[name].to_numpy(zero_copy_only=False).astype(float)
    return values if len(values) and np.isfinite(values).all() else None


def _soft_labels(points: pa.Table) -> NDArray[np.floating] | None:
    """Soft labels [N, C] in the dtype of the store, None if one is missing or they are not of one width."""
    column = points["soft_label"].combine_chunks()
    if column.null_count or not len(column):
        return None
    values = column.flatten().to_numpy(zero_copy_only=False)
    widths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
    if len(widths) != 1 or widths[0] == 0 or not np.isfinite(values).all():
        return None
    return values.reshape(len(column), int(widths[0]))
