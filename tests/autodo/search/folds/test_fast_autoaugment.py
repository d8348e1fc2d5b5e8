"""The search on digits, and its parts on made-up rewards."""

import json

import numpy as np
import pytest

from autodo.api.run import fit_run
from autodo.augment.policy_file import OPERATION_NAMES, PolicyFile
from autodo.config.dataset import DistortionConfig
from autodo.config.policy import FastAutoAugmentSearch
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data import load, prepare
from autodo.errors import ConfigError, StoreError
from autodo.io.storage import locate
from autodo.search.algorithms import search_in_process
from autodo.search.folds.fast_autoaugment import FastAutoAugmentDriver, PolicyTrial, SubPolicies, propose, select
from autodo.search.folds.fold_worker import FoldWorker
from autodo.search.tasks import Task, TaskContext

SMALL = {
    "policy.search.images": 300,
    "policy.search.folds": 2,
    "policy.search.epochs": 4,
    "policy.search.trials": 6,
    "policy.search.keep": 2,
    "policy.search.copies": 2,
    "training.epochs": 2,
}


def searched_run(**overrides) -> RunConfig:
    distortion = DistortionConfig(imbalance_ratio=2, noise_ratio=0.1)
    return build_run("digits", "fast-autoaugment-searched", distortion=distortion, overrides={**SMALL, **overrides})


@pytest.fixture(scope="module")
def data():
    run = searched_run()
    return prepare(load(run.dataset), run)


@pytest.fixture(scope="module")
def found(data) -> PolicyFile:
    return search_in_process(searched_run(), data, device="cpu", report=lambda _: None)


def test_a_policy_is_found_with_where_it_comes_from(found):
    assert 2 * 2 <= len(found.sub_policies) <= 2 * 2 * 5, "of 2 folds the 2 best trials, of up to 5 sub-policies each"
    assert {len(steps) for steps in found.sub_policies} == {2}
    trials = found.provenance
    assert trials["search_id"] == searched_run().search_id
    assert trials["search"]["trials"] == 6
    assert (trials["distortion"], trials["seed"], trials["number_of_trials"]) == ("2-0.1", 0, 12)
    assert [len(fold) for fold in trials["rewards"]] == [6, 6]
    assert all(0.1 < reward <= 1 for fold in trials["rewards"] for reward in fold), "better than guessing"
    assert trials["seconds"] > 0
    assert "torch" in trials["versions"]
    assert PolicyFile.model_validate_json(found.model_dump_json(by_alias=True)) == found


def test_fit_searches_what_it_needs(found):
    lines: list[str] = []
    outcome = fit_run(searched_run(), device="cpu", on_search=lines.append)
    assert outcome.error < 0.9
    assert lines[-1].startswith("2 of 2 networks trained, 12 of 12 trials, best reward")
    again = fit_run(searched_run(), device="cpu", policy=found)
    assert again.error == outcome.error, "the search is the same each time"


class SearchHarness:
    """A driver and workers on one folder, with tasks done in an order of the test's choice."""

    def __init__(self, folder, data, config=None):
        self.config = config or searched_run()
        self.files = locate(folder)
        self.driver = FastAutoAugmentDriver(self.config, self.files)
        self.context = TaskContext(self.config, data, "cpu", self.files)
        self.worker = FoldWorker(self.context)
        self.tasks_left: list[Task] = []

    def continue_(self, tasks=10**6, order=list):
        """Performs up to so many tasks."""
        while self.driver.policy is None and tasks > 0:
            self.tasks_left = order(self.tasks_left + self.driver.ready())
            task = self.tasks_left.pop(0)
            # As over a wire.
            result = json.loads(json.dumps(self.worker.perform(task, None, lambda _: None)))
            self.driver.task_done(task, result)
            tasks -= 1
        return self.driver.policy


@pytest.mark.parametrize("tasks", [1, 2, 5, 9])
def test_a_search_that_is_cut_ends_as_one_that_is_not(tasks, tmp_path, data, found):
    assert SearchHarness(tmp_path, data).continue_(tasks) is None
    policy = SearchHarness(tmp_path, data).continue_()
    assert policy.sub_policies == found.sub_policies
    assert policy.provenance["rewards"] == found.provenance["rewards"]


def test_the_order_in_which_tasks_end_changes_nothing(tmp_path, data, found):
    generator = np.random.default_rng(0)

    def shuffled(tasks_left):
        return [tasks_left[n] for n in generator.permutation(len(tasks_left))]

    assert SearchHarness(tmp_path, data).continue_(order=shuffled).sub_policies == found.sub_policies


TRIAL = {"sub_policies": [[["Rotate", 0.1, 0.2]] * 2] * 5, "reward": 0.5, "seconds": 1, "device": "cpu"}


def kept(trained=None, **changes) -> bytes:
    return json.dumps({"trained": trained, "trials": [{**TRIAL, **changes}]}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"null",
        b"[" * 99999,
        kept(reward=float("nan")),
        kept(reward="much"),
        kept(reward=7),
        kept(seconds=None),
        kept(sub_policies=[[["Rotate", 0.1, 0.2]]]),
        kept(sub_policies=[[["Rotat", 0.1, 0.2]] * 2] * 5),
        kept(trained=3),
        json.dumps({"trained": None, "trials": [TRIAL] * 7}).encode(),
    ],
)
def test_damaged_progress_is_named_and_done_again(content, tmp_path, data, found, caplog):
    SearchHarness(tmp_path, data).continue_(9)
    (tmp_path / "fold-0.json").write_bytes(content)
    policy = SearchHarness(tmp_path, data).continue_()
    assert policy.sub_policies == found.sub_policies
    assert "fold-0.json cannot be used" in caplog.text


def test_progress_that_cannot_be_kept_costs_nothing_but_itself(tmp_path, data, found, caplog, monkeypatch):
    def full(*_):
        raise StoreError("no space left")

    harness = SearchHarness(tmp_path, data)
    with monkeypatch.context() as patch:
        patch.setattr(type(harness.files), "write_text", full)
        harness.continue_(7)
    assert "were not kept: no space left" in caplog.text
    assert harness.continue_().sub_policies == found.sub_policies


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return type(self.victim).touch, (self.victim,)


@pytest.mark.parametrize("damage", ["cut", "missing", "of another model", "pickle"])
def test_a_network_that_is_gone_is_trained_again(damage, tmp_path, data, found):
    import torch

    SearchHarness(tmp_path, data).continue_(6)
    file = tmp_path / "fold-0" / "model.pt"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "missing":
        file.unlink()
    elif damage == "pickle":
        torch.save({"encoder": Payload(tmp_path / "executed")}, file)
    else:
        torch.save({"encoder": {}, "head": {}}, file)
    assert SearchHarness(tmp_path, data).continue_().sub_policies == found.sub_policies
    assert not (tmp_path / "executed").exists()


def test_what_changes_the_search_changes_what_is_found(data, found):
    other = search_in_process(searched_run(**{"policy.search.lr": 0.02}), data, device="cpu", report=lambda _: None)
    assert other.provenance["rewards"] != found.provenance["rewards"]


def test_fit_reads_a_policy_from_a_file(tmp_path):
    (tmp_path / "policy.json").write_text(json.dumps([[["Rotate", 0.9, 0.3]]]))
    overrides = {"training.epochs": 2, "dataset.subsample": 300}
    run = build_run("digits", "dada-published", overrides={**overrides, "policy.path": str(tmp_path / "policy.json")})
    policy = PolicyFile.model_validate({"sub_policies": [[["Rotate", 0.9, 0.3]]]})
    pinned = build_run("digits", "dada-published", overrides={**overrides, "policy.content": "0" * 16})
    assert fit_run(run, device="cpu").error == fit_run(pinned, device="cpu", policy=policy).error
    with pytest.raises(ConfigError, match=r"a policy that a store keeps; here policy\.path is needed"):
        fit_run(pinned, device="cpu")


# ----- the parts


def step(operation: str, probability: float = 0.5, level: float = 0.5):
    return operation, probability, level


def trial(sub_policies: SubPolicies, reward: float) -> PolicyTrial:
    return PolicyTrial(sub_policies=sub_policies, reward=reward, seconds=1.0, device="cpu")


def test_the_best_trials_are_put_together_without_repeats():
    a, b = (step("Rotate"), step("Invert")), (step("Color"), step("Cutout"))
    a_again, turned = (step("Rotate", 0.9), step("Invert", 0.1)), (step("Invert"), step("Rotate"))
    trials = [
        trial((a, a_again, b), 0.7),
        trial(((step("Solarize"), step("Solarize")),), 0.1),
        trial((turned, a_again), 0.9),
        trial((b,), 0.7),
    ]
    # Best first, of equal ones the earlier; the same pair in two trials stays, as in the authors' code.
    assert select(trials, 3) == (turned, a_again, a, b, b)
    assert select(trials, 1) == (turned, a_again)


def test_candidates_are_within_the_space_and_follow_from_the_trials():
    search = FastAutoAugmentSearch(trials=30)
    trials = [trial(candidate, n / 10) for n, candidate in enumerate(propose(search, [], 1))]
    assert len(trials) == 4
    next_ones = propose(search, trials, 1)
    assert next_ones == propose(search, trials, 1)
    assert next_ones != propose(search, trials, 2)
    assert len({*next_ones, *(trial.sub_policies for trial in trials)}) == 8
    for candidate in next_ones:
        assert len(candidate) == 5
        PolicyFile.model_validate({"sub_policies": candidate})
    assert {steps[0][0] for candidate in next_ones for steps in candidate} <= set(OPERATION_NAMES)
    assert len(propose(search, trials * 7, 1)) == 2, "28 of 30 were trials"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tpe_finds_better_policies_than_chance(seed):
    """A reward that is the share of Rotate, times its level: what TPE learns of it shows in the later trials."""
    search = FastAutoAugmentSearch(trials=60, sub_policies=2)

    def reward(candidate) -> float:
        return sum(level * (operation == "Rotate") for steps in candidate for operation, _, level in steps) / 4

    trials: list[PolicyTrial] = []
    while len(trials) < search.trials:
        trials += [trial(candidate, reward(candidate)) for candidate in propose(search, trials, seed)]
    by_chance = 1 / 15 * 1 / 2
    assert np.mean([trial.reward for trial in trials[-20:]]) > 4 * by_chance
