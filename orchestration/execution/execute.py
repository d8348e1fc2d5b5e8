"""Execution of one run in this process: load, prepare, train, save. `autodo train` and Ray's actors call it alike."""

import contextlib
import dataclasses
import functools
import logging
import os
import socket
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodo.config.run import RunConfig
from autodo.errors import StoreError, UserError
from autodo.models.weight_names import use_weights_dir
from orchestration.display.run_display import ProgressLog
from orchestration.execution.conditions import Conditions
from orchestration.execution.options import DEFAULT_OPTIONS, ExecutionOptions
from orchestration.execution.process import load_on_node, logging_to, using_loader_workers
from orchestration.planning.required_policies import load_policy
from orchestration.store.attempt import Attempt, RunLog
from orchestration.store.networks import provide_network
from orchestration.store.run_state import RunBusy
from orchestration.store.store import Store, process_name

if TYPE_CHECKING:
    from autodo.augment.policy_file import PolicyFile
    from autodo.data import DataSplits
    from autodo.distributed.process_group import ProcessGroup
    from autodo.progress import Durations, Progress
    from autodo.training.trainer import Trainer

logger = logging.getLogger("autodo")


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
    """Train one run, from its checkpoint if there is one, and save its results.

    Args:
        device: `cpu`, `cuda` or `cuda:<n>`.
        group: the processes that train the run together, each of which calls this; None for this process alone.
            The first of them marks the run, logs and saves.
        estimate: called before the first epoch of a run without a checkpoint, with its data and policy; returns the
            durations of an epoch's parts, or None if they are unknown.
        on_progress: called every few seconds within an epoch. The log has a line about every half minute.
    Yields:
        one dict per finished epoch with the columns of `records.SCHEMAS["epochs"]`. The run is done when the iterator
        ends; closing the iterator before leaves the checkpoint.
    Raises:
        RunBusy: if another process executes this run. DataError, StoreError, TrainingDiverged.
    """
    with _attempt(config.run_id, store, group) as attempt, using_loader_workers(options.loader_workers):
        if attempt is None:
            return
        # Here, because torch takes seconds to import.
        from autodo import data
        from autodo.distributed.process_group import SINGLE_PROCESS
        from autodo.points.table_storage import TableStorage

        group = group or SINGLE_PROCESS
        if group.is_first:
            store.begin(config)
        splits = data.prepare(load_on_node(config.dataset, options.data_dir, options.download), config)
        policy = load_policy(config, store)
        use_weights_dir(options.weights_dir)
        provide_network(config.model, store, options.networks)
        progress_log = ProgressLog(logger, on_progress)
        trainer = _trainer(
            config,
            splits,
            attempt.checkpoint,
            group=group,
            device=device,
            policy=policy,
            storage=TableStorage(options.lambda_storage),
            checkpoint_every=options.checkpoint_every,
            checkpoint_steps=options.checkpoint_steps,
            on_checkpoint=attempt.keep,
            test_every=options.test_every,
            expected=None if estimate is None or attempt.checkpoint.exists() else estimate(splits, policy),
            on_progress=progress_log.within if group.is_first else None,
        )
        logger.info(
            "%s on %s, device %s, from epoch %d of %d, step %d",
            config.run_id, " + ".join(group.gather(process_name())), device,
            trainer.state.epoch, config.training.epochs, trainer.state.step,
        )  # fmt: skip
        conditions = Conditions.now(options.launch, resumed=(trainer.state.epoch, trainer.state.step) != (0, 0))
        for metrics in trainer:
            logger.info(
                "epoch %d: train loss %.4f, val error %.4f, test error %s",
                metrics["epoch"], metrics["train_loss"], metrics["val_error"],
                "not measured" if metrics["test_error"] is None else f"{metrics['test_error']:.4f}",
            )  # fmt: skip
            attempt.keep()
            progress_log.epoch_ended()
            yield metrics
        outcome = trainer.outcome(keep_embeddings="embeddings" in options.keep)
        if group.is_first:
            outcome = dataclasses.replace(outcome, results=conditions.add_to(outcome.results))
            attempt.settle()
            store.save(outcome, config.run_id, keep_model="models" in options.keep)
            attempt.saved = True
            logger.info("done")


@contextlib.contextmanager
def _attempt(run_id: str, store: Store, group: "ProcessGroup | None") -> "Iterator[Attempt | None]":
    """The attempt at a run of a group of processes, whose log says how it ends; None if the run is done.

    The first process makes it; the others share its checkpoint, and their log goes nowhere.

    Raises:
        StoreError: if this process cannot see the checkpoint of the first one.
    """
    checkpoint: Path | None = None
    if group is not None and not group.is_first:
        checkpoint = group.broadcast_object(checkpoint)
        if checkpoint is not None and not checkpoint.parent.is_dir():
            raise StoreError(
                f"{store}: {checkpoint.parent} is not there on node {socket.gethostname()}: workers of one run on "
                "several nodes need a store on a file system that all of them share"
            )
        with contextlib.closing(RunLog(os.open(os.devnull, os.O_WRONLY))) as no_log:
            yield None if checkpoint is None else Attempt(no_log, checkpoint)
        return
    with store.attempt(run_id) as attempt, logging_to(attempt.log), _logging_the_end():
        done = store.status.is_done(run_id)
        if group is not None:
            group.broadcast_object(None if done else attempt.checkpoint)
        if done:
            logger.info("done already")
        yield None if done else attempt


@contextlib.contextmanager
def _logging_the_end() -> Iterator[None]:
    try:
        yield
    except (GeneratorExit, KeyboardInterrupt, SystemExit):
        logger.info("stopped; the next attempt continues from the checkpoint")
        raise
    except RunBusy as error:
        logger.info("stopped: %s", error)
        raise
    except UserError as error:
        logger.error("failed: %s", error)  # the message is complete
        raise
    except Exception:
        logger.exception("failed")
        raise


def _trainer(
    config: RunConfig, splits: "DataSplits", checkpoint_file: Path, *, group: "ProcessGroup", **options: Any
) -> "Trainer":
    """A trainer that continues from the checkpoint if that is usable.

    Args:
        options: of `Trainer`.
    """
    from autodo.training import checkpoint
    from autodo.training.trainer import Trainer

    make = functools.partial(Trainer, config, splits, checkpoint=checkpoint_file, group=group, **options)
    try:
        return make()
    except checkpoint.UnusableCheckpoint as error:
        logger.warning("%s cannot be used, the run starts from the beginning: %s", checkpoint_file, error)
        if group.is_first:
            checkpoint.delete(checkpoint_file)
        return make()
