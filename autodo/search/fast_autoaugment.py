"""Fast AutoAugment: sub-policies under which a model recognises images that it was not trained on.

A network is trained on one side of a split of the reduced train set, without a policy. A policy is good if that network
recognises the augmented images of the other side: then these are alike the images that it knows. TPE looks for such
policies, on several splits; the best of each are put together. No network is trained with any of the candidates.

Reference: Lim et al. 2019, algorithm 1.
"""

import json
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from autodo.augment.policy_file import OPERATION_NAMES, OperationStep, PolicyFile, SubPolicy
from autodo.config.policy import FastAutoAugmentSearch
from autodo.config.run import RunConfig
from autodo.errors import StoreError
from autodo.io.storage import Location
from autodo.search.fold_worker import FoldWorker
from autodo.search.tasks import Json, Task, provenance, search_config
from autodo.seeds import derive

__all__ = ["FastAutoAugment", "FoldWorker", "Trial", "propose", "select"]

SubPolicies = tuple[SubPolicy, ...]
log = logging.getLogger(__name__)


class Trial(NamedTuple):
    """A candidate and how good it is."""

    sub_policies: SubPolicies
    reward: float
    """Share of held-out images of which at least one augmented copy is recognised."""


def propose(search: FastAutoAugmentSearch, told: Sequence[Trial], seed: int) -> list[SubPolicies]:
    """The next `at_once` candidates of a fold, a pure function of the trials so far.

    Args:
        told: in their order.
        seed: of the fold.
    """
    study = optuna.create_study(direction="maximize", sampler=_sampler(seed, len(told)))
    space = _space(search)
    study.add_trials(
        [
            optuna.trial.create_trial(params=_to_params(trial.sub_policies), distributions=space, value=trial.reward)
            for trial in told
        ]
    )
    count = min(search.at_once, search.trials - len(told))
    return [_from_params(search, study.ask(space).params) for _ in range(count)]


def select(trials: Sequence[Trial], keep: int) -> SubPolicies:
    """The sub-policies of the best trials of a fold, the best first; of equal ones the earlier.

    Of those of a trial that have the same operations in the same order only the first is taken, as in the authors'
    code.
    """
    best = sorted(trials, key=lambda trial: -trial.reward)[:keep]
    return tuple(sub_policy for trial in best for sub_policy in _without_repeats(trial.sub_policies))


def _without_repeats(sub_policies: SubPolicies) -> SubPolicies:
    first: dict[tuple[str, ...], SubPolicy] = {}
    for sub_policy in sub_policies:
        first.setdefault(tuple(step[0] for step in sub_policy), sub_policy)
    return tuple(first.values())


class _Fold:
    """How far one split is: its network, the trials told so far, and those at work."""

    def __init__(self) -> None:
        self.trained: Json | None = None
        self.trials: list[Json] = []
        self.candidates: list[SubPolicies] = []
        self.results: dict[int, Json] = {}  # by position in `candidates`

    def content(self) -> Json:
        return {"trained": self.trained, "trials": self.trials}


class FastAutoAugment:
    """The driver. A fold's network is one task, each trial another; folds go on independently.

    Trials of a fold are asked for a few at a time and told in order, so what is found depends neither on the number of
    processes nor on where the search was cut.
    """

    def __init__(self, config: RunConfig, files: Location) -> None:
        self._config = config
        self._search: FastAutoAugmentSearch = search_config(config)
        self._files = files
        self._folds = [self._read(fold) for fold in range(self._search.folds)]
        self._given_out: set[str] = set()
        self.policy: PolicyFile | None = None
        self._finish_if_done()

    def ready(self) -> list[Task]:
        """The networks that are to be trained, and the trials of the folds that have one."""
        tasks = []
        for number, fold in enumerate(self._folds):
            if fold.trained is None:
                tasks.append(Task(f"fold-{number}", {"fold": number}, long=True))
                continue
            if not fold.candidates and len(fold.trials) < self._search.trials:
                told = [_trial(trial) for trial in fold.trials]
                fold.candidates = propose(self._search, told, derive(self._config.seed, "search", "fold", number))
            for position, candidate in enumerate(fold.candidates):
                trial = len(fold.trials) + position
                given = {"fold": number, "trial": trial, "sub_policies": candidate}
                tasks.append(Task(f"fold-{number}-trial-{trial}", given))
        new = [task for task in tasks if task.name not in self._given_out]
        self._given_out.update(task.name for task in new)
        return new

    def ended(self, task: Task, result: Json) -> None:
        """Keeps a network's figures, and the trials when all that were asked for together are there."""
        number = task.given["fold"]
        fold = self._folds[number]
        if result.get("lost"):
            self._train_again(number)
        elif task.long:
            fold.trained = result
            self._write(number)
        elif fold.candidates:
            fold.results[task.given["trial"] - len(fold.trials)] = result
            if len(fold.results) == len(fold.candidates):
                fold.trials += [
                    {"sub_policies": candidate, **fold.results[position]}
                    for position, candidate in enumerate(fold.candidates)
                ]
                fold.candidates, fold.results = [], {}
                self._write(number)
                self._finish_if_done()

    def headline(self) -> str:
        """`2 of 5 networks trained, 120 of 1000 trials, best reward 93.1%`."""
        trained = sum(fold.trained is not None for fold in self._folds)
        rewards = [trial["reward"] for fold in self._folds for trial in fold.trials]
        total = self._search.folds * self._search.trials
        best = f", best reward {100 * max(rewards):.1f}%" if rewards else ""
        return f"{trained} of {self._search.folds} networks trained, {len(rewards)} of {total} trials{best}"

    def _train_again(self, number: int) -> None:
        """The network of a fold is gone or damaged; its trials so far count, for the next one will be the same."""
        fold = self._folds[number]
        fold.trained, fold.candidates, fold.results = None, [], {}
        self._given_out -= {name for name in self._given_out if name.startswith(f"fold-{number}")}

    def _finish_if_done(self) -> None:
        if any(len(fold.trials) < self._search.trials for fold in self._folds):
            return
        trials = [[_trial(trial) for trial in fold.trials] for fold in self._folds]
        everything = [part for fold in self._folds for part in (fold.trained, *fold.trials) if part is not None]
        self.policy = PolicyFile(
            source=f"Fast AutoAugment on {self._config.dataset.label} {self._config.distortion}",
            sub_policies=tuple(step for fold in trials for step in select(fold, self._search.keep)),
            provenance=provenance(
                self._config,
                seconds=sum(part["seconds"] for part in everything),
                device=everything[-1]["device"],
                number_of_trials=sum(len(fold) for fold in trials),
                networks=[fold.trained for fold in self._folds],
                rewards=[[trial.reward for trial in fold] for fold in trials],
                optuna=optuna.__version__,
            ),
        )

    # ----- what is kept between attempts

    def _place(self, fold: int) -> Location:
        return self._files / f"fold-{fold}.json"

    def _write(self, fold: int) -> None:
        """Keeps a fold; if that is not possible now, the next time keeps all of it."""
        try:
            self._place(fold).write_text(json.dumps(self._folds[fold].content()))
        except StoreError as error:
            log.warning("the trials of fold %d were not kept: %s", fold, error)

    def _read(self, number: int) -> _Fold:
        """A fold as it was kept; as at the beginning if it was not, or is damaged."""
        fold = _Fold()
        try:
            content = json.loads(self._place(number).read_bytes())
            fold.trials, fold.trained = list(content["trials"]), content["trained"]
            self._check(fold)
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            log.warning("%s cannot be used, the fold starts anew: %s", self._place(number), error)
            fold = _Fold()
        return fold

    def _check(self, fold: _Fold) -> None:
        """Raises unless this search could have kept it."""
        search = self._search
        if len(fold.trials) > search.trials:
            raise ValueError(f"holds {len(fold.trials)} trials")
        for trial in fold.trials:
            sub_policies, reward = _trial(trial)
            if [len(steps) for steps in sub_policies] != [search.operations] * search.sub_policies:
                raise ValueError("holds a trial of another size")
            if not 0 <= reward <= 1:
                raise ValueError(f"holds a reward of {reward}")
        for part in [*fold.trials, *([] if fold.trained is None else [fold.trained])]:
            float(part["seconds"]), str(part["device"])


def _trial(kept: Json) -> Trial:
    sub_policies = PolicyFile.model_validate({"sub_policies": kept["sub_policies"]}).sub_policies
    return Trial(sub_policies, float(kept["reward"]))


def _sampler(seed: int, told: int) -> optuna.samplers.TPESampler:
    # A new one for each ask, so that a search that was cut draws as one that was not. The liar: what is at work counts
    # as bad, so that candidates asked for together differ.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.samplers.TPESampler(seed=derive(seed, told) % 2**32, constant_liar=True)


def _names(search: FastAutoAugmentSearch) -> list[list[str]]:
    return [[f"{sub}_{step}" for step in range(search.operations)] for sub in range(search.sub_policies)]


def _space(search: FastAutoAugmentSearch) -> dict[str, BaseDistribution]:
    space: dict[str, BaseDistribution] = {}
    for place in (place for places in _names(search) for place in places):
        space[f"operation_{place}"] = CategoricalDistribution(OPERATION_NAMES)
        space[f"probability_{place}"] = FloatDistribution(0.0, 1.0)
        space[f"level_{place}"] = FloatDistribution(0.0, 1.0)
    return space


def _from_params(search: FastAutoAugmentSearch, params: dict[str, Any]) -> SubPolicies:
    def step(place: str) -> OperationStep:
        return params[f"operation_{place}"], params[f"probability_{place}"], params[f"level_{place}"]

    return tuple(tuple(step(place) for place in places) for places in _names(search))


def _to_params(sub_policies: SubPolicies) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for sub, steps in enumerate(sub_policies):
        for number, (operation, probability, level) in enumerate(steps):
            place = f"{sub}_{number}"
            params |= {f"operation_{place}": operation, f"probability_{place}": probability, f"level_{place}": level}
    return params
