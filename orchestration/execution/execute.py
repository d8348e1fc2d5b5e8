"""One run in this process: load, prepare, train, save. Used by `autodo train` and inside Ray alike."""

import contextlib
import dataclasses
import functools
import logging
import os
import socket
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodo.config.dataset import DatasetConfig
from autodo.config.run import RunConfig
from autodo.errors import DataError, StoreError, UserError
from autodo.io.storage import StrPath
from orchestration.display.run_display import ProgressLog
from orchestration.execution.conditions import Conditions
from orchestration.execution.options import DEFAULT_OPTIONS, ExecutionOptions
from orchestration.planning.required_policies import load_policy
from orchestration.store.run_state import RunBusy
from orchestration.store.store import Store, process_name

if TYPE_CHECKING:
    from autodo.augment.policy_file import PolicyFile
    from autodo.data import Dataset, DataSplits
    from autodo.distributed.process_group import ProcessGroup
    from autodo.progress import Durations, Progress
    from autodo.training.trainer import Trainer

logger = logging.getLogger("autodo")


@functools.lru_cache(maxsize=2)
def load_dataset(config: DatasetConfig, data_dir: str | None, download: bool = False) -> "Dataset":
    """A dataset, kept in memory for the next run of this process.

    Raises:
        DataError: if its files are missing or damaged.
    """
    from autodo import data

    return data.load(config, data_dir=data_dir, download=download)


def execute(
    config: RunConfig,
    store: Store,
    options: ExecutionOptions = DEFAULT_OPTIONS,
    *,
    device: str = "cpu",
    group: "ProcessGroup | None" = None,
    estimate: "Callable[[DataSplits, PolicyFile | None], Durations | None] | None" = None,
    on_progress: "Callable[[Progress], object] | None" = None,
) -> Generator[dict[str, Any], None, None]:
    """Trains one run, from its checkpoint if there is one, and saves its results.

    Args:
        device: `cpu`, `cuda` or `cuda:<n>`.
        group: of which this process is the first, if several train the run; the others `assist`.
        estimate: called before the first epoch of a run without a checkpoint, with what it trains on and its policy;
            says what the parts of an epoch will take, or None if it does not know.
        on_progress: called every few seconds within an epoch. The log has a line about every half minute.
    Yields:
        one dict per finished epoch with the columns of `records.SCHEMAS["epochs"]`. The run is done when the iterator
        ends; one that is closed before leaves the checkpoint.
    Raises:
        RunBusy: if another process is at work on this run. DataError, StoreError, TrainingDiverged.
    """
    run_id = config.run_id
    with contextlib.ExitStack() as stack:
        attempt = stack.enter_context(store.attempt(run_id))
        stack.enter_context(logging_to(attempt.log))
        stack.enter_context(decoding_by(options.loader_workers))
        done = store.status.is_done(run_id)
        if group is not None:
            group.broadcast_object(None if done else attempt.checkpoint)
        if done:
            logger.info("done already")
            return
        try:
            # Here, because torch takes seconds to import.
            from autodo import data
            from autodo.distributed.process_group import SINGLE_PROCESS
            from autodo.points.storage import TableStorage

            group = group or SINGLE_PROCESS
            store.begin(config)
            dataset = load_here(config.dataset, options.data_dir, options.download)
            prepared = data.prepare(dataset, config)
            policy = load_policy(config, store)
            progress_log = ProgressLog(logger, on_progress)
            training = _training(
                config,
                prepared,
                attempt.checkpoint,
                on_progress=progress_log.within,
                expected=None if estimate is None or attempt.checkpoint.exists() else estimate(prepared, policy),
                device=device,
                checkpoint_every=options.checkpoint_every,
                checkpoint_steps=options.checkpoint_steps,
                on_checkpoint=attempt.keep,
                group=group,
                policy=policy,
                storage=TableStorage(options.lambda_storage),
            )
            logger.info(
                "%s on %s, device %s, from epoch %d of %d, step %d",
                run_id, " + ".join(group.gather(process_name())), device, training.epoch, config.training.epochs,
                training.midway.step if training.midway is not None else 0,
            )  # fmt: skip
            conditions = Conditions.now(options.launch, resumed=training.epoch > 0 or training.midway is not None)
            for metrics in training:
                logger.info(
                    "epoch %d: train loss %.4f, val error %.4f, test error %.4f",
                    metrics["epoch"], metrics["train_loss"], metrics["val_error"], metrics["test_error"],
                )  # fmt: skip
                attempt.keep()
                progress_log.epoch_ended()
                yield metrics
            outcome = training.outcome(keep_embeddings="embeddings" in options.keep)
            outcome = dataclasses.replace(outcome, results=conditions.beside(outcome.results))
            attempt.settle()
            store.save(outcome, run_id, keep_model="models" in options.keep)
            attempt.saved = True
            logger.info("done")
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            logger.info("stopped; the next attempt continues from the checkpoint")
            raise
        except RunBusy as error:
            logger.info("stopped: %s", error)
            raise
        except UserError as error:
            logger.error("failed: %s", error)  # which says all
            raise
        except Exception:
            logger.exception("failed")
            raise


def assist(
    config: RunConfig,
    store: Store,
    options: ExecutionOptions,
    *,
    group: "ProcessGroup",
    device: str = "cpu",
) -> Generator[dict[str, Any], None, None]:
    """What the other workers do while the first one executes the run: all but to log and to save.

    Yields:
        one dict per finished epoch, as the first worker's `execute` does.
    Raises:
        StoreError: if this process cannot see the checkpoint. DataError, TrainingDiverged.
    """
    from autodo import data
    from autodo.points.storage import TableStorage

    nothing: Path | None = None
    path = group.broadcast_object(nothing)
    if path is None:
        return
    if not path.parent.is_dir():
        raise StoreError(
            f"{store}: {path.parent} is not there on node {socket.gethostname()}: workers of one run on several nodes "
            "need a store on a file system that all of them share"
        )
    with decoding_by(options.loader_workers):
        prepared = data.prepare(load_here(config.dataset, options.data_dir, download=False), config)
        training = _training(
            config,
            prepared,
            path,
            device=device,
            checkpoint_every=options.checkpoint_every,
            checkpoint_steps=options.checkpoint_steps,
            group=group,
            policy=load_policy(config, store),
            storage=TableStorage(options.lambda_storage),
        )
        group.gather(process_name())
        yield from training
        training.outcome(keep_embeddings="embeddings" in options.keep)


@contextlib.contextmanager
def decoding_by(loader_workers: int | None) -> Iterator[None]:
    """In the block so many processes decode streamed images; None: as many as without it."""
    from autodo.data.stream.pool import WORKERS_VARIABLE

    if loader_workers is None:
        yield
        return
    before = os.environ.get(WORKERS_VARIABLE)
    os.environ[WORKERS_VARIABLE] = str(loader_workers)
    try:
        yield
    finally:
        if before is None:
            del os.environ[WORKERS_VARIABLE]
        else:
            os.environ[WORKERS_VARIABLE] = before


def _training(config: RunConfig, data: "DataSplits", path: Path, *, group: "ProcessGroup", **options: Any) -> "Trainer":
    """The training, from its checkpoint if that can be used.

    Args:
        options: of `Trainer`.
    """
    from autodo.training import checkpoint
    from autodo.training.trainer import Trainer

    def begin() -> Trainer:
        return Trainer(config, data, checkpoint=path, group=group, **options)

    try:
        return begin()
    except checkpoint.UnusableCheckpoint as error:
        logger.warning("%s cannot be used, the run starts anew: %s", path, error)
        if group.is_first:
            checkpoint.delete(path)
        return begin()


def load_here(config: DatasetConfig, data_dir: StrPath | None, download: bool) -> "Dataset":
    """The dataset, whose warnings stand in the log of every run.

    An error names this node, because data can be on one node of a cluster and not on another.
    """
    loaded = load_dataset.cache_info().misses
    try:
        dataset = load_dataset(config, None if data_dir is None else os.fspath(data_dir), download)
    except DataError as error:
        raise DataError(f"node {socket.gethostname()}: {error}") from None
    if load_dataset.cache_info().misses == loaded:
        for warning in dataset.warnings:
            logger.warning("%s", warning)
    return dataset


@contextlib.contextmanager
def logging_to(stream: Any) -> Iterator[None]:
    """What the library logs goes to the stream too, for the length of a block."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
