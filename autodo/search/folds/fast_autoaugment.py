"""Fast AutoAugment: sub-policies under which a model recognises images that it was not trained on.

A network is trained on one side of a split of the search's images, without a policy. A policy is good if that network
recognises the augmented images of the other side, because then they resemble the images that the network knows. TPE
looks for such policies on several splits (folds), and the best of each are put together. No network is trained with any
of the candidates. The networks and rewards come from `fold_worker`.
Reference: Lim et al. 2019, algorithm 1.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from pydantic import Field

from autodo.augment.policy_file import OPERATION_NAMES, OperationName, PolicyFile, SearchedSubPolicy, Unit
from autodo.config.policy import FastAutoAugmentSearch
from autodo.config.run import RunConfig
from autodo.config.validation import Frozen
from autodo.errors import StoreError
from autodo.io.storage import Location
from autodo.search.tasks import Json, Task, provenance, search_config
from autodo.seeds import derive

SubPolicies = tuple[SearchedSubPolicy, ...]
logger = logging.getLogger(__name__)


class TrainedNetwork(Frozen):
    """The figures of a fold's network."""

    held_out_error: float
    seconds: float
    device: str


class PolicyTrial(Frozen):
    """A candidate and its reward."""

    sub_policies: SubPolicies
    reward: Annotated[float, Field(ge=0, le=1)]
    """Share of held-out images of which at least one augmented copy is recognised."""
    seconds: float
    device: str


class FoldProgress(Frozen):
    """The part of a fold's state that is kept in the folder of the search, in fold-<number>.json."""

    trained: TrainedNetwork | None = None
    trials: tuple[PolicyTrial, ...] = ()


@dataclass
class Fold:
    """The state of one fold: its progress, and the trials at work."""

    progress: FoldProgress = field(default_factory=FoldProgress)
    candidates: list[SubPolicies] = field(default_factory=list)
    results: dict[int, PolicyTrial] = field(default_factory=dict)
    """Results of some of the candidates, by position."""
    given_out: set[str] = field(default_factory=set)
    """Names of tasks."""


class FastAutoAugmentDriver:
    """The driver. A fold's network is one task, each trial another; folds progress independently.

    TPE proposes a few trials of a fold at a time and learns their results in order, so the policy does not depend on
    the number of processes, nor on where the search was cut.
    """

    def __init__(self, config: RunConfig, files: Location) -> None:
        self._config = config
        self._search: FastAutoAugmentSearch = search_config(config)
        self._files = files
        self._folds = [Fold(self._read(number)) for number in range(self._search.folds)]
        self.policy: PolicyFile | None = None
        self._finish_if_done()

    def ready(self) -> list[Task]:
        """Tasks of the networks that are to be trained, and of trials of the folds that have one."""
        return [task for number, fold in enumerate(self._folds) for task in self._ready_in(number, fold)]

    def _ready_in(self, number: int, fold: Fold) -> Iterator[Task]:
        trials = fold.progress.trials
        if fold.progress.trained is None:
            tasks = [Task(f"fold-{number}", {"fold": number}, long=True)]
        else:
            if not fold.candidates and len(trials) < self._search.trials:
                seed = derive(self._config.seed, "search", "fold", number)
                fold.candidates = propose(self._search, trials, seed)
            tasks = [
                Task(f"fold-{number}-trial-{trial}", {"fold": number, "trial": trial, "sub_policies": candidate})
                for trial, candidate in enumerate(fold.candidates, start=len(trials))
            ]
        for task in tasks:
            if task.name not in fold.given_out:
                fold.given_out.add(task.name)
                yield task

    def task_done(self, task: Task, result: Json) -> None:
        """Keeps a network's figures, and the trials once all that were proposed together are done."""
        number = task.given["fold"]
        fold = self._folds[number]
        trials = fold.progress.trials
        if result.get("lost"):
            # The trials so far count, because the next network will be the same.
            self._folds[number] = Fold(FoldProgress(trials=trials))
        elif task.long:
            fold.progress = FoldProgress(trained=TrainedNetwork.model_validate(result), trials=trials)
            self._write(number)
        elif fold.candidates:
            position = task.given["trial"] - len(trials)
            fold.results[position] = PolicyTrial(sub_policies=fold.candidates[position], **result)
            if len(fold.results) == len(fold.candidates):
                new = (fold.results[position] for position in range(len(fold.candidates)))
                fold.progress = FoldProgress(trained=fold.progress.trained, trials=(*trials, *new))
                fold.candidates, fold.results = [], {}
                self._write(number)
                self._finish_if_done()

    def status_line(self) -> str:
        """The progress, such as `2 of 5 networks trained, 120 of 1000 trials, best reward 93.1%`."""
        trained = sum(fold.progress.trained is not None for fold in self._folds)
        rewards = [trial.reward for fold in self._folds for trial in fold.progress.trials]
        total = self._search.folds * self._search.trials
        best = f", best reward {100 * max(rewards):.1f}%" if rewards else ""
        return f"{trained} of {self._search.folds} networks trained, {len(rewards)} of {total} trials{best}"

    def _finish_if_done(self) -> None:
        folds = [fold.progress for fold in self._folds]
        if any(len(fold.trials) < self._search.trials for fold in folds):
            return
        tasks = [part for fold in folds for part in (fold.trained, *fold.trials) if part is not None]
        self.policy = PolicyFile(
            source=f"Fast AutoAugment on {self._config.dataset.label} {self._config.distortion}",
            sub_policies=tuple(step for fold in folds for step in select(fold.trials, self._search.keep)),
            provenance=provenance(
                self._config,
                seconds=sum(task.seconds for task in tasks),
                device=tasks[-1].device,
                number_of_trials=sum(len(fold.trials) for fold in folds),
                networks=[fold.trained and fold.trained.model_dump() for fold in folds],
                rewards=[[trial.reward for trial in fold.trials] for fold in folds],
                optuna=optuna.__version__,
            ),
        )

    def _file(self, number: int) -> Location:
        return self._files / f"fold-{number}.json"

    def _write(self, number: int) -> None:
        """Keeps a fold; if that is not possible now, the next time keeps all of it."""
        try:
            self._file(number).write_text(self._folds[number].progress.model_dump_json())
        except StoreError as error:
            logger.warning("the trials of fold %d were not kept: %s", number, error)

    def _read(self, number: int) -> FoldProgress:
        """The kept progress of a fold; that of a new fold if there is none, or it is damaged."""
        search = self._search
        try:
            progress = FoldProgress.model_validate_json(self._file(number).read_bytes())
            if len(progress.trials) > search.trials:
                raise ValueError(f"holds {len(progress.trials)} trials")
            for trial in progress.trials:
                if [len(steps) for steps in trial.sub_policies] != [search.operations] * search.sub_policies:
                    raise ValueError("holds a trial of another size")
        except FileNotFoundError:
            return FoldProgress()
        except ValueError as error:
            logger.warning("%s cannot be used, the fold starts again: %s", self._file(number), error)
            return FoldProgress()
        return progress


def select(trials: Sequence[PolicyTrial], keep: int) -> SubPolicies:
    """The sub-policies of the best trials of a fold, the best first; of equal ones the earlier.

    If a trial has several sub-policies of the same operations in the same order, only the first is taken, as in the
    authors' code.
    """
    best = sorted(trials, key=lambda trial: -trial.reward)[:keep]
    return tuple(sub_policy for trial in best for sub_policy in _without_repeats(trial.sub_policies))


def _without_repeats(sub_policies: SubPolicies) -> Iterator[SearchedSubPolicy]:
    first: dict[tuple[str, ...], SearchedSubPolicy] = {}
    for sub_policy in sub_policies:
        first.setdefault(tuple(step[0] for step in sub_policy), sub_policy)
    yield from first.values()


def propose(search: FastAutoAugmentSearch, trials: Sequence[PolicyTrial], seed: int) -> list[SubPolicies]:
    """The next `at_once` candidates of a fold by TPE, a pure function of the trials so far, in their order.

    Args:
        seed: seed of the fold.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # A new sampler each time, so that a search that was cut draws as one that was not. The liar treats trials at work
    # as bad, so that candidates proposed together differ.
    sampler = optuna.samplers.TPESampler(seed=derive(seed, len(trials)) % 2**32, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    space = _space(search)
    for trial in trials:
        params = _to_params(trial.sub_policies)
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=trial.reward))
    count = min(search.at_once, search.trials - len(trials))
    return [_from_params(search, study.ask(space).params) for _ in range(count)]


def _names(search: FastAutoAugmentSearch) -> list[list[str]]:
    return [[f"{sub}_{step}" for step in range(search.operations)] for sub in range(search.sub_policies)]


def _space(search: FastAutoAugmentSearch) -> dict[str, BaseDistribution]:
    space: dict[str, BaseDistribution] = {}
    for name in (name for names in _names(search) for name in names):
        space[f"operation_{name}"] = CategoricalDistribution(OPERATION_NAMES)
        space[f"probability_{name}"] = FloatDistribution(0.0, 1.0)
        space[f"level_{name}"] = FloatDistribution(0.0, 1.0)
    return space


def _from_params(search: FastAutoAugmentSearch, params: dict[str, Any]) -> SubPolicies:
    def step(name: str) -> tuple[OperationName, Unit, Unit]:
        return params[f"operation_{name}"], params[f"probability_{name}"], params[f"level_{name}"]

    return tuple(tuple(step(name) for name in names) for names in _names(search))


def _to_params(sub_policies: SubPolicies) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for sub, steps in enumerate(sub_policies):
        for number, (operation, probability, level) in enumerate(steps):
            name = f"{sub}_{number}"
            params |= {f"operation_{name}": operation, f"probability_{name}": probability, f"level_{name}": level}
    return params
