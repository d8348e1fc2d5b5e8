"""Policies that a run needs from elsewhere: which, and published ones on their way into the store."""

import itertools
from collections.abc import Iterable

from autodo.augment.policy_file import PolicyFile, fingerprint
from autodo.augment.read_policy import read_policy
from autodo.config.policy import FilePolicy
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.errors import ConfigError
from orchestration.grid.grid import GridConfig, cell
from orchestration.store.store import Store

Policies = dict[str, PolicyFile]
"""By the name that a store keeps them under."""


def policy_id(run: RunConfig) -> str | None:
    """Under which name a store keeps the policy of a run; None if it needs none from there."""
    if isinstance(run.policy, FilePolicy):
        return f"file-{run.policy.content}"
    return run.search_id


def policy_of(run: RunConfig, store: Store) -> PolicyFile | None:
    """The policy of a run from the store; None if it needs none.

    Raises:
        StoreError: if it is missing or damaged.
    """
    name = policy_id(run)
    return None if name is None else store.policy(name)


def searches_left(runs: Iterable[RunConfig], store: Store) -> dict[str, RunConfig]:
    """The searches whose policy the store lacks, each with a run that needs it."""
    wanted = {run.search_id: run for run in reversed(list(runs)) if run.search_id is not None}
    there = store.policies() if wanted else set()
    return {search_id: wanted[search_id] for search_id in reversed(wanted) if search_id not in there}


def pin_policy(run: RunConfig) -> tuple[RunConfig, Policies]:
    """The run tied to what its policy file holds now, not to where it lies; and that policy, for the store.

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


def pin_policies(grid: GridConfig) -> tuple[GridConfig, Policies]:
    """`pin_policy` of all runs of a grid; what the store keeps of the grid names no file any more.

    Raises:
        ConfigError: if a file cannot be read, or is no policy.
    """
    contents = dict(grid.policies)
    policies: Policies = {}
    for dataset, method in itertools.product(grid.datasets, grid.methods):
        run, found = pin_policy(build_run(dataset, method, overrides=cell(grid, dataset, method)))
        policies |= found
        if isinstance(run.policy, FilePolicy) and run.policy.content is not None:
            contents[f"{dataset} {method}"] = run.policy.content
    rest = {key: value for key, value in grid.set.items() if key != "policy.path"}
    return grid.model_copy(update={"set": rest, "policies": contents}), policies


def keep(policies: Policies, store: Store) -> None:
    """Writes what the store does not have yet."""
    there = store.policies() if policies else set()
    for name, policy in policies.items():
        if name not in there:
            store.save_policy(name, policy)
