"""Train one run from its configuration, keeping nothing on disk."""

from collections.abc import Callable

import torch

from autodo.augment.policy_file import PolicyFile
from autodo.augment.read_policy import read_policy
from autodo.config.policy import FilePolicy, SearchedPolicy
from autodo.config.run import RunConfig
from autodo.data import DataSplits, load, prepare
from autodo.errors import ConfigError
from autodo.io.storage import StrPath
from autodo.progress import Progress
from autodo.results.outcome import Outcome
from autodo.training.state import EpochRow
from autodo.training.trainer import Trainer


def default_device() -> str:
    """`cuda` if torch finds a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fit_run(
    config: RunConfig,
    *,
    data_dir: StrPath | None = None,
    device: str | None = None,
    on_epoch: Callable[[EpochRow], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_search: Callable[[str], None] | None = None,
    policy: PolicyFile | None = None,
) -> Outcome:
    """Loads the data, trains one run to its end and returns its tables and the classifier; keeps nothing on disk.

    If the config asks for a policy search, it runs first, in this process.

    Args:
        on_epoch: called with each epoch's row.
        on_progress: called every few seconds within an epoch, with its step, loss and the seconds left of the run.
        on_search: called with a line of text after each step of a policy search.
        policy: used in place of the policy that would be searched or read.
    Raises:
        ConfigError: if the policy cannot be read, or be searched by one process, or the method has no use for it.
        DataError: if the images cannot be read. TrainingDiverged: if the loss is not finite.
    """
    data = prepare(load(config.dataset, data_dir=data_dir), config)
    device = device or default_device()
    if policy is not None and config.policy is None:
        raise ConfigError(f"policy: method {config.method.name!r} draws no operations, so no policy can be given to it")
    if policy is None:
        policy = _policy(config, data, device, on_search)
    training = Trainer(config, data, device=device, policy=policy, on_progress=on_progress)
    for row in training:
        if on_epoch is not None:
            on_epoch(row)
    return training.outcome()


def _policy(
    config: RunConfig, data: DataSplits, device: str, report: Callable[[str], None] | None
) -> PolicyFile | None:
    """The policy from a file or from a search in this process; None if the config asks for neither."""
    match config.policy:
        case FilePolicy(path=None):
            raise ConfigError(
                f"policy.content: {config.policy.content} is a policy that a store keeps; here policy.path is needed"
            )
        case FilePolicy(path=str(path)):
            return read_policy(path)
        case SearchedPolicy():
            from autodo.search.algorithms import search_in_process

            return search_in_process(config, data, device=device, report=report or (lambda _: None))
    return None
