"""Searches in a store, in this process, on digits."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from autodo.augment.policy_file import PolicyFile
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data.prepare import DataSplits
from autodo.search.algorithms import ALGORITHMS
from autodo.search.folds.fold_worker import FoldWorker
from autodo.search.gradient.gradient_search import FoundPolicy, GradientSearch, gradient_search
from orchestration.execution.execute import execute
from orchestration.search import task_runner
from orchestration.search.task_runner import TaskRunner, search_in_store
from orchestration.store import patience
from orchestration.store.run_state import RunBusy
from orchestration.store.store import Store

SEARCH = {
    "policy.search.images": 300,
    "policy.search.folds": 2,
    "policy.search.epochs": 3,
    "policy.search.trials": 6,
    "policy.search.keep": 2,
    "policy.search.copies": 2,
    "training.epochs": 2,
}


def searched(method: str = "fast-autoaugment-searched", **overrides: object) -> RunConfig:
    return build_run("digits", method, overrides={**SEARCH, **overrides})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> PolicyFile:
    """By a search that nothing disturbs."""
    return search_in_store(searched(), Store(tmp_path_factory.mktemp("whole") / "store").create())


class Cut(BaseException):
    """As Ctrl-C."""


def cut_after(tasks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next task after so many ends the search, if it is a network's in its second epoch."""
    whole, done = FoldWorker.perform, 0

    def perform(self: FoldWorker, task: Any, checkpoint: Path | None, report: Any) -> Any:
        nonlocal done
        done += 1

        def cut(line: str) -> None:
            report(line)
            if "epoch 2" in line:
                raise Cut

        if done > tasks and not task.long:
            raise Cut
        return whole(self, task, checkpoint, cut if done > tasks else report)

    monkeypatch.setattr(FoldWorker, "perform", perform)


@pytest.mark.parametrize("tasks", [0, 1, 2, 7])
def test_a_search_that_was_cut_goes_on_and_finds_the_same(
    tasks: int, any_store: Store, found: PolicyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = any_store, searched()
    search_id = str(run.search_id)
    with monkeypatch.context() as patch:
        cut_after(tasks, patch)
        with pytest.raises(Cut):
            search_in_store(run, store)
    assert store.policies.names() == set()
    assert not store.status.searching(search_id)
    if tasks < 2:
        names = (store.paths.search(search_id) / f"fold-{tasks}").names()
        assert "checkpoint.pt" in names, "a network continues from its last epoch"
    lines: list[str] = []
    policy = search_in_store(run, store, report=lines.append)
    assert policy.sub_policies == found.sub_policies
    assert policy.provenance["rewards"] == found.provenance["rewards"]
    assert store.policies.read(search_id) == policy
    if tasks < 2:
        first = next(line for line in lines if f"network {tasks + 1}" in line)
        assert "epoch 3 of 3" in first
    folder = store.paths.search(search_id)
    left = folder.names() - {"log.txt"}  # of an object store: folders that are empty now
    assert not any(folder.names_in(left).values()), "progress is removed when the policy is there"
    assert not any(name.endswith(".json") for name in left)


def test_a_run_takes_its_policy_from_the_store(any_store: Store) -> None:
    run = searched()
    policy = search_in_store(run, any_store)
    assert search_in_store(run, any_store) == policy, "read, not searched again"
    list(execute(run, any_store))
    assert any_store.status.is_done(run.run_id)


def test_a_search_at_work_is_busy_for_a_second_one(any_store: Store) -> None:
    run = searched()
    with any_store.search_attempt(str(run.search_id)):
        assert any_store.status.searching(str(run.search_id))
        with pytest.raises(RunBusy):
            search_in_store(run, any_store)
    assert not any_store.status.searching(str(run.search_id))


def test_a_task_waits_for_the_rest_of_a_killed_launch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = searched()
    task, _ = task_runner.begin(run, store).ready()
    monkeypatch.setattr(patience, "BUSY_SECONDS", 0.0)
    with store.task_attempt(str(run.search_id), task.name), pytest.raises(RunBusy):
        TaskRunner(store).perform(run, task)
    assert "held_out_error" in TaskRunner(store).perform(run, task)


# ----- searches of one task


class Counting(GradientSearch):
    """In place of DADA: three epochs that do nothing."""

    done: ClassVar[list[int]] = []

    def __init__(self, config: RunConfig, data: DataSplits, device: str) -> None:
        super().__init__(config, data, device)
        self.parts = {"network": torch.nn.Linear(1, 1)}

    def run_epoch(self, epoch: int) -> dict[str, float]:
        self.done.append(epoch + 1)
        return {"loss": 0.5}

    def found(self) -> FoundPolicy:
        return FoundPolicy(((("Rotate", 0.5, 0.5),),), {"Rotate": 1.0})


def test_a_search_of_one_task_continues_from_its_checkpoint(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run, lines = build_run("digits", "dada-searched", overrides={"policy.search.epochs": 3}), []
    monkeypatch.setitem(ALGORITHMS, "dada", gradient_search(Counting))
    monkeypatch.setattr(Counting, "done", [])

    def cut(line: str) -> None:
        lines.append(line)
        if "epoch 2" in line:
            raise Cut

    with pytest.raises(Cut):
        search_in_store(run, any_store, report=cut)
    assert "epoch 2 of 3: loss 0.5" in str(any_store.status.last_task_line(str(run.search_id), "training"))
    policy = search_in_store(run, any_store, report=lines.append)
    assert Counting.done == [1, 2, 3]
    assert [line.partition(":")[0] for line in lines[:3]] == [f"dada search, epoch {n} of 3" for n in (1, 2, 3)]
    assert lines[3:] == ["found"]
    assert policy.provenance["weights"] == {"Rotate": 1.0}
    assert policy.provenance["search_id"] == run.search_id
    assert any_store.policies.read(str(run.search_id)) == policy
