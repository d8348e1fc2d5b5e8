"""Searches in a store, in this process, on digits."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from autodo.augment.policy_file import PolicyFile
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.io.atomic import save_torch
from autodo.search.fold_worker import FoldWorker
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

    def perform(self: FoldWorker, task: Any, checkpoint: Path | None, tell: Any) -> Any:
        nonlocal done
        done += 1

        def cut(line: str) -> None:
            tell(line)
            if "epoch 2" in line:
                raise Cut

        if done > tasks and not task.long:
            raise Cut
        return whole(self, task, checkpoint, cut if done > tasks else tell)

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
    policy = search_in_store(run, store, tell=lines.append)
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


@pytest.fixture
def one_training(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """In place of DADA: three epochs, a checkpoint after each, and the epochs that were done."""
    epochs: list[int] = []

    def search(config: RunConfig, data: Any, *, device: str, checkpoint: Path | None, tell: Any) -> PolicyFile:
        epoch = 0
        if checkpoint is not None and checkpoint.exists():
            epoch = torch.load(checkpoint, weights_only=True)["epoch"]
        assert len(data.train) > 0
        while epoch < 3:
            epoch += 1
            epochs.append(epoch)
            if checkpoint is not None:
                save_torch({"epoch": epoch}, checkpoint)
            tell(f"epoch {epoch} of 3")
        return PolicyFile.model_validate(
            {"sub_policies": [[["Rotate", 0.5, 0.5]]], "provenance": {"weights": [1.0], "seconds": 7.0}}
        )

    module = types.ModuleType("autodo.search.dada")
    monkeypatch.setattr(module, "search", search, raising=False)
    monkeypatch.setitem(sys.modules, "autodo.search.dada", module)
    return epochs


def test_a_search_of_one_task_continues_from_its_checkpoint(any_store: Store, one_training: list[int]) -> None:
    run, lines = build_run("digits", "dada-searched"), []

    def cut(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 2"):
            raise Cut

    with pytest.raises(Cut):
        search_in_store(run, any_store, tell=cut)
    assert any_store.status.last_task_line(str(run.search_id), "training") == "epoch 2 of 3"
    policy = search_in_store(run, any_store, tell=lines.append)
    assert one_training == [1, 2, 3]
    assert lines == ["epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3", "found"]
    assert policy.provenance["weights"] == [1.0]
    assert policy.provenance["seconds"] == 7.0, "what the search itself tells counts"
    assert policy.provenance["search_id"] == run.search_id
    assert any_store.policies.read(str(run.search_id)) == policy
