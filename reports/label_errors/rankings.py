"""Rankings of the train points of a run by suspicion. docs/results/label-errors.md compares them."""

import dataclasses
import functools
import threading
import warnings
from collections.abc import Callable, Collection, Mapping

import numpy as np
from scipy.stats import rankdata

from reports.label_errors.signals import Floats, Signals

CLEANLAB_LIMIT = 20_000_000
"""Number N x C of probabilities above which cleanlab is left out: it copies them several times as float64."""
_NOT_LEARNED = "the method does not learn what it needs"
_CLEANLAB = threading.Lock()  # filters of warnings apply to the whole process


class MissingSignal(LookupError):
    """The run does not have a signal that a ranking needs; the text says which."""


def _same(key: Floats) -> Floats:
    return key


@dataclasses.dataclass(frozen=True)
class Ranking:
    """An order of train points.

    Args:
        summary: the criterion, for users.
        key: computes a number for each point, [N], higher for labels that are more probably wrong. Raises
            MissingSignal.
        score: converts keys to the score that users see, in the same order.
    """

    summary: str
    key: Callable[[Signals], Floats]
    score: Callable[[Floats], Floats] = _same


def _loss(signals: Signals) -> Floats:
    return signals.loss


def _loss_in_class(signals: Signals) -> Floats:
    key = np.empty(len(signals.given))
    for label in np.unique(signals.given):
        points = signals.given == label
        key[points] = rankdata(signals.loss[points]) / points.sum()
    return key


def _weight(signals: Signals) -> Floats:
    if signals.weight is None:
        raise MissingSignal(_NOT_LEARNED)
    return -signals.weight


def _soft_label(signals: Signals) -> Floats:
    if signals.soft_label is None:
        raise MissingSignal(_NOT_LEARNED)
    return 1 - signals.soft_label


def _average(signals: Signals) -> Floats:
    learned = [key(signals) for key, there in ((_weight, signals.weight), (_soft_label, signals.soft_label))
               if there is not None]  # fmt: skip
    if not learned:
        raise MissingSignal(_NOT_LEARNED)
    ranks = [rankdata(key) for key in (signals.loss, *learned)]
    return np.mean(ranks, axis=0) / len(signals.loss)


def _margin(signals: Signals, *, adjusted: bool = False) -> Floats:
    from cleanlab.rank import get_label_quality_scores

    values = len(signals.given) * signals.classes
    if values > CLEANLAB_LIMIT:
        raise MissingSignal(f"points x classes are {values:,}, more than {CLEANLAB_LIMIT:,}")
    return 1 - get_label_quality_scores(
        signals.given, signals.probabilities, method="normalized_margin", adjust_pred_probs=adjusted
    )


def _confident_learning(signals: Signals) -> Floats:
    from cleanlab.filter import find_label_issues

    margin = _margin(signals)
    with _CLEANLAB, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes with few points
        issues = find_label_issues(signals.given, signals.probabilities, n_jobs=1)
    return margin + issues  # margins lie in [0, 1]


RANKINGS: Mapping[str, Ranking] = {
    "loss": Ranking("loss of the given label", _loss, score=lambda loss: -np.expm1(-loss)),
    "loss-in-class": Ranking("rank of the loss among the points of the given class", _loss_in_class),
    "weight": Ranking("low learned weight", _weight),
    "soft-label": Ranking("1 minus the learned soft label's probability of the given label", _soft_label),
    "average": Ranking("mean rank by loss, learned weight and soft label", _average),
    "margin": Ranking("cleanlab's normalized margin", _margin),
    "adjusted-margin": Ranking(
        "the same, adjusted by cleanlab's confident thresholds", functools.partial(_margin, adjusted=True)
    ),
    "confident-learning": Ranking(
        "labels that cleanlab's find_label_issues flags, then the others, each by margin", _confident_learning
    ),
}
"""`loss` gives the same order as cleanlab's self-confidence, the probability of the given label."""

DEFAULT = "loss"
"""The best of all, for every method: docs/results/label-errors.md."""


def keys_of(signals: Signals, names: Collection[str] = tuple(RANKINGS)) -> tuple[dict[str, Floats], dict[str, str]]:
    """Keys [N] of these rankings by name, and for the rest the reason why the run lacks them."""
    keys, lacking = {}, {}
    for name in names:
        try:
            keys[name] = RANKINGS[name].key(signals)
        except MissingSignal as reason:
            lacking[name] = str(reason)
    return keys, lacking
