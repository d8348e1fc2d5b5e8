"""Rankings of the train points of a run by suspicion. docs/how-to/find-label-errors.md measures which is best."""

import dataclasses
import threading
import warnings
from collections.abc import Callable, Collection, Mapping

import numpy as np
from scipy.stats import rankdata

from reports.label_errors.signals import Floats, Signals

CLEANLAB_LIMIT = 20_000_000
"""Probabilities N x C above which cleanlab is left out: it holds them several times, as float64."""
_NOT_LEARNED = "the method does not learn what it needs"
_CLEANLAB = threading.Lock()  # what it warns of is kept quiet for the whole process


class MissingSignal(LookupError):
    """A ranking needs what the run does not have; the text says what."""


def _same(key: Floats) -> Floats:
    return key


@dataclasses.dataclass(frozen=True)
class Ranking:
    """An order of train points.

    Args:
        summary: what it goes by.
        key: of each point, [N]; the higher, the more probably wrong. Raises MissingSignal.
        score: what a person is shown of the key; of the same order.
        slow: takes too long for reports of many runs.
    """

    summary: str
    key: Callable[[Signals], Floats]
    score: Callable[[Floats], Floats] = _same
    slow: bool = False


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


def _margin(signals: Signals) -> Floats:
    from cleanlab.rank import get_label_quality_scores

    _require_probabilities(signals)
    quality = get_label_quality_scores(signals.given, signals.probabilities, method="normalized_margin")
    return 1 - quality


def _adjusted_margin(signals: Signals) -> Floats:
    from cleanlab.rank import get_label_quality_scores

    _require_probabilities(signals)
    quality = get_label_quality_scores(
        signals.given, signals.probabilities, method="normalized_margin", adjust_pred_probs=True
    )
    return 1 - quality


def _confident_learning(signals: Signals) -> Floats:
    from cleanlab.filter import find_label_issues

    margin = _margin(signals)
    with _CLEANLAB, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with few points
        issues = find_label_issues(signals.given, signals.probabilities, n_jobs=1)
    return margin + issues  # margins lie in [0, 1]


def _require_probabilities(signals: Signals) -> None:
    if signals.top_probabilities is None:
        raise MissingSignal("the run is older than the column top_probabilities")
    values = len(signals.given) * signals.classes
    if values > CLEANLAB_LIMIT:
        raise MissingSignal(f"points x classes are {values:,}, more than {CLEANLAB_LIMIT:,}")


RANKINGS: Mapping[str, Ranking] = {
    "loss": Ranking("loss of the given label", _loss, score=lambda loss: -np.expm1(-loss)),
    "loss-in-class": Ranking("rank of the loss among the points of the given class", _loss_in_class),
    "weight": Ranking("low learned weight", _weight),
    "soft-label": Ranking("what the learned soft label takes from the given label", _soft_label),
    "average": Ranking("mean rank by loss, learned weight and soft label", _average),
    "margin": Ranking("cleanlab's normalized margin", _margin, slow=True),
    "adjusted-margin": Ranking("the same, adjusted by cleanlab's confident thresholds", _adjusted_margin, slow=True),
    "confident-learning": Ranking(
        "what cleanlab's find_label_issues finds, then the others, each by margin", _confident_learning, slow=True
    ),
}
"""`loss` is cleanlab's self-confidence too: both order by the probability of the given label."""

DEFAULT = "loss"
"""The best of all that were measured, whatever the method: docs/how-to/find-label-errors.md."""


def keys_of(signals: Signals, names: Collection[str] = tuple(RANKINGS)) -> tuple[dict[str, Floats], dict[str, str]]:
    """Keys [N] of these rankings by name, and why the run has not the others of them."""
    keys, lacking = {}, {}
    for name in names:
        try:
            keys[name] = RANKINGS[name].key(signals)
        except MissingSignal as reason:
            lacking[name] = str(reason)
    return keys, lacking
