"""Policies on their way into a store and out of it."""

import json
from pathlib import Path

import pytest

from autodo.augment.policy_file import PolicyFile, fingerprint
from autodo.config.recipes import build_run
from autodo.errors import ConfigError, StoreError
from orchestration.execution.execute import execute
from orchestration.grid.grid import GridConfig, expand
from orchestration.planning.required_policies import (
    load_policy,
    pin_policy_file,
    pin_policy_files,
    policy_id,
    save_policies,
    searches_left,
)
from orchestration.store.store import Store
from tests.orchestration.conftest import SMALL

ROTATE, INVERT = [[["Rotate", 0.9, 0.3]]], [[["Invert", 0.9, 0.3]]]
PUBLISHED = "fast-autoaugment-published"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "policy.json").write_text(json.dumps(ROTATE))
    return tmp_path / "policy.json"


def grid(path: Path | str, **changes: object) -> GridConfig:
    tree = {
        "name": "g",
        "datasets": ["digits"],
        "distortions": ["1-0.0"],
        "methods": ["baseline", PUBLISHED],
        "seeds": 1,
        "set": {**SMALL, "policy.path": str(path)},
    }
    return GridConfig.model_validate(tree | changes)


def test_the_run_id_depends_on_the_content_of_the_policy_and_not_on_its_path(file: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.json").write_text(json.dumps({"source": "elsewhere", "sub_policies": ROTATE}))
    (tmp_path / "other.json").write_text(json.dumps(INVERT))
    pinned = [
        pin_policy_file(build_run("digits", PUBLISHED, overrides={"policy.path": str(tmp_path / name)}))[0]
        for name in ("policy.json", "copy.json", "other.json")
    ]
    assert pinned[0] == pinned[1]
    assert pinned[0].run_id != pinned[2].run_id
    assert pinned[0].policy is not None
    assert "path" not in pinned[0].policy.model_dump(exclude_none=True)
    baseline = build_run("digits", "baseline")
    assert pin_policy_file(baseline) == (baseline, {})


def test_a_pinned_grid_does_not_need_its_files(file: Path, any_store: Store) -> None:
    store = any_store
    pinned, found = pin_policy_files(grid(file))
    store.save_grid(pinned)
    save_policies(found, store)
    file.unlink()
    (again,) = store.grids().values()
    assert isinstance(again, GridConfig)
    assert pin_policy_files(again) == (again.model_copy(update={"store": None}), {})
    runs = expand(again)
    assert [run.method.name for run in runs] == ["baseline", PUBLISHED]
    assert runs == expand(pinned)
    assert load_policy(runs[0], store) is None
    policy = load_policy(runs[1], store)
    assert policy is not None
    assert policy.sub_policies == ((("Rotate", 0.9, 0.3),),)
    list(execute(runs[1], store))
    assert store.status.is_done(runs[1].run_id)


def test_every_dataset_and_method_may_have_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / f"digits-{PUBLISHED}.json").write_text(json.dumps(ROTATE))
    (tmp_path / "mnist-dada-published.json").write_text(json.dumps(INVERT))
    (tmp_path / "digits-dada-published.json").write_text(json.dumps(INVERT))
    (tmp_path / f"mnist-{PUBLISHED}.json").write_text(json.dumps(INVERT))
    both = {"methods": [PUBLISHED, "dada-published"], "datasets": ["digits", "mnist"]}
    pinned, found = pin_policy_files(grid(tmp_path / "{dataset}-{method}.json", **both))
    assert len(found) == 2
    names = {(run.dataset.name, run.method.name): policy_id(run) for run in expand(pinned)}
    assert len(names) == 4
    assert names["digits", PUBLISHED] != names["mnist", PUBLISHED] == names["digits", "dada-published"]


def test_a_wrong_policy_file_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text('[[["Rotat", 1, 1]]]')
    with pytest.raises(ConfigError, match=r"policy.json: sub_policies\[0\]\[0\]: unknown operation 'Rotat'"):
        pin_policy_files(grid(tmp_path / "policy.json"))
    with pytest.raises(ConfigError, match="no such file"):
        pin_policy_files(grid(tmp_path / "nothing.json"))


def test_a_policy_that_the_store_lacks_is_a_clear_failure(store: Store) -> None:
    for method in (PUBLISHED, "fast-autoaugment-searched"):
        run = build_run("digits", method, overrides={**SMALL, "policy.content": "0" * 16})
        with pytest.raises(StoreError, match=rf"policies/{policy_id(run)}\.json: no such policy"):
            list(execute(run, store))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ("[" * 10**6, "damaged"),
        ('{"sub_policies": [[["Rotat", 1, 1]]]}', "damaged: sub_policies.0.0.0"),
        ('{"sub_policies": [[["Rotate", 1, 1]]]}', "is another policy"),
        (
            '{"sub_policies": [[["Rotate", 1, 1]]], "provenance": {"search_id": "dada-1"}}',
            r"is another policy \(dada-1",
        ),
        ('{"__class__": "os.system"}', "damaged"),
    ],
)
def test_a_damaged_or_foreign_policy_is_named(store: Store, content: str, message: str) -> None:
    for name in ("file-" + "0" * 16, "fast-autoaugment-12345678"):
        store.paths.policy(name).write_text(content)
        with pytest.raises(StoreError, match=message) as caught:
            store.policies.read(name)
        assert str(store.paths.policy(name)) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_policy_cannot_lead_out_of_the_store(store: Store, tmp_path: Path) -> None:
    policy = PolicyFile.model_validate({"sub_policies": ROTATE})
    (tmp_path / "secret.json").write_text(policy.model_dump_json())
    name = f"file-{fingerprint(policy)}"
    Path(store.root, "policies").mkdir()
    Path(store.paths.policy(name)).symlink_to(tmp_path / "secret.json")
    with pytest.raises(StoreError, match="symbolic link"):
        store.policies.read(name)
    with pytest.raises(StoreError, match="is not a policy id"):
        store.policies.read("../secret")


def test_runs_with_the_same_settings_of_a_search_share_it(store: Store) -> None:
    def run(method: str = "fast-autoaugment-searched", seed: int = 0, **overrides: object):
        return build_run("digits", method, seed=seed, overrides=overrides)

    same = [run(), run(**{"training.epochs": 3}), run("fast-autoaugment-searched+label-smoothing")]
    others = [run(seed=1), run(**{"policy.search.trials": 3}), run("dada-searched")]
    left = searches_left([run("baseline"), *same, *others], store)
    assert [one.search_id for one in left.values()] == list(left)
    assert len(left) == 4
    policy = PolicyFile.model_validate({"sub_policies": ROTATE, "provenance": {"search_id": run().search_id}})
    store.policies.write(str(run().search_id), policy)
    assert searches_left(same, store) == {}
