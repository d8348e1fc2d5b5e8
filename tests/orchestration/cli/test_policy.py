"""Policies on the command line, in this process."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from autodo.augment.policy_file import PolicyFile
from autodo.augment.read_policy import read_policy
from orchestration.grid.grid import expand
from orchestration.store.run_state import State
from orchestration.store.store import Store
from tests.orchestration.cli.conftest import SMALL, Answer, Launched
from tests.orchestration.search.test_task_runner import SEARCH

Autodo = Callable[..., Answer]
TRAIN = ("train", "--dataset", "digits", "--store", "S", *SMALL, "--method")
SEARCHED = [word for key, value in SEARCH.items() for word in ("--set", f"{key}={value}")]
GRID = """
name: mine
datasets: [digits]
distortions: ["1-0.0"]
methods: [baseline, fast-autoaugment-published, fast-autoaugment-searched]
seeds: 2
set: {policy.path: policy.json, training.epochs: 2, dataset.subsample: 300}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps([[["Rotate", 0.9, 0.3], ["Invert", 0.2, 0.7]]]))
    return path


def test_a_run_is_trained_with_a_policy_from_a_file(autodo: Autodo, policy: Path) -> None:
    arguments = (*TRAIN, "fast-autoaugment-published", "--set", "policy.path=policy.json")
    assert autodo(*arguments).code == 0
    (name,) = Store("S").policies.names()
    assert name.startswith("file-")
    again = autodo(*arguments)
    assert "done before" in again.out
    policy.write_text(json.dumps([[["Rotate", 0.9, 0.4]]]))
    assert "done before" not in autodo(*arguments).out, "another policy is another run"
    assert len(Store("S").policies.names()) == 2


def test_a_run_is_trained_with_a_policy_that_is_searched_first(autodo: Autodo) -> None:
    answer = autodo(*TRAIN, "fast-autoaugment-searched", *SEARCHED)
    assert answer.code == 0, answer.err
    (name,) = Store("S").policies.names()
    assert f"search found: fast-autoaugment on digits 1-0.0 seed 0: S/policies/{name}.json" in answer.out
    shown = autodo("policy", "show", "S").out
    assert "rewards: fold 0: 6 trials, best" in shown
    assert "number_of_trials: 12" in shown
    longer = autodo(*TRAIN, "fast-autoaugment-searched", *SEARCHED, "--set", "training.epochs=3")
    assert longer.code == 0
    assert "search" not in longer.out.partition("result:")[0].replace("autoaugment-searched", ""), "it has its policy"


def test_a_search_that_fails_is_a_failure_of_its_run(autodo: Autodo) -> None:
    arguments = (*TRAIN, "fast-autoaugment-searched", *SEARCHED, "--set", "policy.search.images=10")
    answer = autodo(*arguments)
    assert answer.code == 2
    assert "fewer than two classes have two of them" in answer.err
    (failure,) = Store("S").status.failures().values()
    assert failure.kind == "DataError"
    assert "1 failed (error)" in autodo("status", "S").out


def test_a_published_policy_without_its_file_is_one_line(autodo: Autodo, tmp_path: Path) -> None:
    answer = autodo(*TRAIN, "fast-autoaugment-published")
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
    assert "such as --set policy.path=policy.json" in answer.err
    (tmp_path / "bad.json").write_text('[[["Rotat", 1, 1]]]')
    for path, message in (("nowhere.json", "no such file"), ("bad.json", "unknown operation 'Rotat'")):
        answer = autodo(*TRAIN, "fast-autoaugment-published", "--set", f"policy.path={path}")
        assert (answer.code, len(answer.err.splitlines())) == (2, 1)
        assert message in answer.err
    assert not (tmp_path / "S").exists()


def test_a_grid_is_planned_launched_and_resumed(
    autodo: Autodo, policy: Path, tmp_path: Path, instead_of_ray: list[Launched]
) -> None:
    grid = tmp_path / "mine.yaml"
    grid.write_text(GRID)
    planned = autodo("plan", str(grid), "--store", "S").out
    assert "before them: 2 searches of policies to do (fast-autoaugment-" in planned
    assert not (tmp_path / "S").exists()
    assert autodo("launch", str(grid), "--store", "S", "--only", "seed=0").code == 0
    policy.unlink()
    store = Store("S")
    assert len(store.policies.names()) == 1
    assert "before them: 1 search of policies to do (fast-autoaugment-" in autodo("status", "S").out
    assert autodo("resume", "S").code == 0
    runs = [job.run for launched in instead_of_ray for job in launched.jobs]
    assert len(runs) == 6
    (saved,) = store.grids().values()
    assert {run.run_id for run in expand(saved)} == {run.run_id for run in runs}
    assert set(store.status.states(run.run_id for run in runs).values()) == {State.DONE}


def test_a_policy_is_imported_and_shown(autodo: Autodo, tmp_path: Path) -> None:
    (tmp_path / "archive.py").write_text("A = [[('translate_x', 0.5, 0.25)]]\nB = [[('Rotate', 0.1, 0.2)]]\n")
    assert autodo("policy", "import", "archive.py", "out.json", "--name", "A").code == 0
    assert read_policy(tmp_path / "out.json").sub_policies == ((("TranslateX", 0.5, 0.25),),)
    shown = autodo("policy", "show", "out.json").out
    assert "out.json: 1 sub-policies, content " in shown
    assert "TranslateX   0.50  0.25" in shown
    assert "source: archive.py: A" in shown


def test_a_policy_cannot_write_to_the_terminal(autodo: Autodo, tmp_path: Path) -> None:
    content = {
        "sub_policies": [[["Rotate", 0.1, 0.2]]],
        "source": "\x1b[2Jgone",
        "no\x1bte": ["\x1b]0;title\x07", "[red]"],
    }
    (tmp_path / "evil.json").write_text(json.dumps(content))
    answer = autodo("policy", "show", "evil.json")
    assert answer.code == 0
    assert "\x1b" not in answer.out
    assert "gone" in answer.out
    assert "[red]" in answer.out


def test_the_policies_of_a_store_are_listed(autodo: Autodo) -> None:
    store = Store("S").create()
    assert "S: no policy yet" in autodo("policy", "show", "S").out
    for name in ("dada-00000000", "pba-00000000"):
        content = (
            {"sub_policies": [[["Rotate", 0.1, 0.2]]]}
            if name.startswith("dada")
            else {"schedule": [{"from": 0, "operations": [["Rotate", 0.1, 0.2], ["Invert", 0, 1]]}]}
        )
        store.policies.write(name, PolicyFile.model_validate({**content, "provenance": {"search_id": name}}))
    listed = autodo("policy", "show", "S").out
    assert "S: 2 policies" in listed
    assert "dada-00000000: 1 sub-policies" in listed
    shown = autodo("policy", "show", "S", "pba-00000000").out
    assert "a schedule of 1 stages" in shown
    assert "Rotate 0.10 0.20" in shown
    assert "Invert" not in shown, "it is never drawn"


def test_a_schedule_with_weights_shows_its_most_frequent_sub_policies(autodo: Autodo, tmp_path: Path) -> None:
    sub_policies = [[["Rotate", 1, level / 10]] for level in range(10)]
    stages = [{"from": 0, "weights": [1] * 10}, {"from": 0.5, "weights": [*range(10)]}]
    (tmp_path / "ohl.json").write_text(json.dumps({"sub_policies": sub_policies, "schedule": stages}))
    shown = autodo("policy", "show", "ohl.json").out
    assert "ohl.json: a schedule of 2 stages with 10 sub-policies" in shown
    assert "20.000%  Rotate 1.00 0.90" in shown
    assert "shown: the 3 most frequent of 10 sub-policies" in shown
    assert shown.count("Rotate") == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["policy", "import", "archive.py", "out.json"], "several policies, say which with --name: A, B"),
        (["policy", "import", "archive.py", "out.json", "--name", "C"], "known: A, B"),
        (["policy", "import", "archive.py", "out.txt", "--name", "A"], "out.txt: is not named *.json"),
        (["policy", "import", "archive.py", "archive.py/out.json", "--name", "A"], "cannot be written"),
        (["policy", "import", "nothing.py", "out.json"], "nothing.py: no such file"),
        (["policy", "import", "evil.py", "out.json"], "evil.py: is neither JSON nor Python"),
        (["policy", "show", "nothing"], "nothing: no such store"),
        (["policy", "show", "nothing.json"], "nothing.json: no such file"),
        (["policy", "show", "evil.py"], "evil.py: is not JSON"),
        (["policy", "show", "S", "dada-12345679"], "has this name; did you mean 'dada-12345678'"),
        (["policy", "show", "S", "../../x"], "is not a policy id"),
        (["policy", "show", "S", "dada-12345678"], "is another policy"),
    ],
)
def test_an_error_is_one_line(autodo: Autodo, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "archive.py").write_text("A = [[('Rotate', 0.5, 0.25)]]\nB = [[('Rotate', 0.1, 0.2)]]\n")
    (tmp_path / "evil.py").write_text("x = " + "[" * 10_000)
    Store("S").create().paths.policy("dada-12345678").write_text('{"sub_policies": [[["Rotate", 0.1, 0.2]]]}')
    answer = autodo(*arguments)
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert message in line


def test_the_methods_with_policies_are_listed(autodo: Autodo) -> None:
    listed = autodo("methods").out
    for name in (
        "fast-autoaugment-searched",
        "fast-autoaugment-published",
        "dada-searched",
        "faster-autoaugment",
        "ohl",
    ):
        assert name in listed
