"""Train one run from its configuration, in this process."""

from collections.abc import Callable
from pathlib import Path

import torch

from autodo.augment.policy_file import PolicyFile
from autodo.augment.read_policy import read_policy
from autodo.config.policy import FilePolicy, SearchedPolicy
from autodo.config.run import RunConfig
from autodo.data import Dataset, DataSplits, load, prepare
from autodo.errors import ConfigError
from autodo.io.storage import StrPath
from autodo.progress import Durations, Progress
from autodo.results.outcome import Outcome
from autodo.training import checkpoint as checkpoints
from autodo.training.state import EpochRow
from autodo.training.trainer import Trainer


def default_device() -> str:
    """`cuda` if torch finds a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fit_run(
    config: RunConfig,
    *,
    dataset: Dataset | None = None,
    data_dir: StrPath | None = None,
    device: str | None = None,
    on_epoch: Callable[[EpochRow], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_search: Callable[[str], None] | None = None,
    policy: PolicyFile | None = None,
    checkpoint: StrPath | None = None,
    estimate: Callable[[DataSplits, PolicyFile | None], Durations | None] | None = None,
) -> Outcome:
    """Loads the data, trains one run to its end and returns its tables and the classifier.

    If the config asks for a policy search, it runs first, in this process.

    Args:
        dataset: used in place of the images that the config names.
        on_epoch: called with each epoch's row.
        on_progress: called every few seconds within an epoch, with its step, loss and the seconds left of the run.
        on_search: called with a line of text after each step of a policy search.
        policy: used in place of the policy that would be searched or read.
        checkpoint: file that is written after each epoch, and from which the same run continues; None keeps nothing.
        estimate: called before the first epoch; returns the durations of an epoch's parts, or None if they are unknown.
    Raises:
        ConfigError: if the policy cannot be read, or be searched by one process, or the method has no use for it, or
            the checkpoint cannot be used.
        DataError: if the images cannot be read. TrainingDiverged: if the loss is not finite.
    """
    if checkpoint is not None:
        _check_checkpoint(Path(checkpoint), config)
    data = prepare(dataset or load(config.dataset, data_dir=data_dir), config)
    device = device or default_device()
    if policy is not None and config.policy is None:
        raise ConfigError(f"policy: method {config.method.name!r} draws no operations, so no policy can be given to it")
    if policy is None:
        policy = _policy(config, data, device, on_search)
    expected = None if estimate is None else estimate(data, policy)
    try:
        training = Trainer(
            config,
            data,
            device=device,
            policy=policy,
            checkpoint=checkpoint,
            on_progress=on_progress,
            expected=expected,
        )
    except checkpoints.UnusableCheckpoint as error:
        raise ConfigError(f"checkpoint {checkpoint}: cannot be used: {error}; delete it to start again") from None
    for row in training:
        if on_epoch is not None:
            on_epoch(row)
    return training.outcome()


def _check_checkpoint(path: Path, config: RunConfig) -> None:
    """Raise ConfigError unless the file does not exist yet and can, or is a checkpoint of this run."""
    if not path.parent.is_dir():
        raise ConfigError(f"checkpoint {path}: there is no folder {path.parent}; create it")
    if not path.exists():
        return
    remedy = "give another path, or delete the file to start again"
    run_id = checkpoints.run_of(path) if path.is_file() else None
    if run_id is None:
        raise ConfigError(f"checkpoint {path}: not a checkpoint of AutoDO; {remedy}")
    if run_id != config.run_id:
        raise ConfigError(
            f"checkpoint {path}: belongs to {run_id}, and these images and settings make {config.run_id}; {remedy}"
        )


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
