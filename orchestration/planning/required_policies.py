"""Augmentation policies that runs need from the store: from searches, and from files, which a launch copies there."""

import itertools
from collections.abc import Iterable

from autodo.augment.policy_file import PolicyFile, fingerprint
from autodo.augment.read_policy import read_policy
from autodo.config.policy import FilePolicy
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.errors import ConfigError
from orchestration.grid.grid import GridConfig, cell_overrides
from orchestration.store.store import Store

Policies = dict[str, PolicyFile]
"""Policies by their name in the store."""


def policy_id(run: RunConfig) -> str | None:
    """Name in the store of the policy that a run needs; None if it needs none from there."""
    if isinstance(run.policy, FilePolicy):
        return f"file-{run.policy.content}"
    return run.search_id


def load_policy(run: RunConfig, store: Store) -> PolicyFile | None:
    """Policy of a run from the store; None if the run needs none.

    Raises:
        StoreError: if it is missing or damaged.
    """
    name = policy_id(run)
    return None if name is None else store.policies.read(name)


def searches_left(runs: Iterable[RunConfig], store: Store) -> dict[str, RunConfig]:
    """Searches whose policy the store lacks, by search id, each with the first run that needs it."""
    wanted: dict[str, RunConfig] = {}
    for run in runs:
        if run.search_id is not None:
            wanted.setdefault(run.search_id, run)
    there = store.policies.names() if wanted else set()
    return {search_id: run for search_id, run in wanted.items() if search_id not in there}


def pin_policy_file(run: RunConfig) -> tuple[RunConfig, Policies]:
    """Replace the path of a run's policy file by the file's content id; also return the policy, for the store.

    Raises:
        ConfigError: if the file cannot be read, or is no policy.
    """
    if not isinstance(run.policy, FilePolicy) or run.policy.path is None:
        return run, {}
    policy = read_policy(run.policy.path)
    content = fingerprint(policy)
    if run.policy.content not in (None, content):
        raise ConfigError(f"policy.content: {run.policy.content} is not that of {run.policy.path}, which is {content}")
    pinned = run.model_copy(update={"policy": FilePolicy(content=content)})
    return pinned, {f"file-{content}": policy}


def pin_policy_files(grid: GridConfig) -> tuple[GridConfig, Policies]:
    """Apply `pin_policy_file` to all runs of a grid, so that the grid in the store names no files.

    Raises:
        ConfigError: if a file cannot be read, or is no policy.
    """
    contents = dict(grid.policies)
    policies: Policies = {}
    for dataset, method in itertools.product(grid.datasets, grid.methods):
        run, found = pin_policy_file(build_run(dataset, method, overrides=cell_overrides(grid, dataset, method)))
        policies |= found
        if isinstance(run.policy, FilePolicy) and run.policy.content is not None:
            contents[f"{dataset} {method}"] = run.policy.content
    rest = {key: value for key, value in grid.set.items() if key != "policy.path"}
    return grid.model_copy(update={"set": rest, "policies": contents}), policies


def save_policies(policies: Policies, store: Store) -> None:
    """Write the policies that the store does not have yet."""
    there = store.policies.names() if policies else set()
    for name, policy in policies.items():
        if name not in there:
            store.policies.write(name, policy)
