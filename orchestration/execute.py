"""One run in this process: load, prepare, train, save. Used by `autodo train` and inside Ray alike."""

import contextlib
import functools
import logging
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodo.config import DatasetConfig, RunConfig
from orchestration.store import Store, here

if TYPE_CHECKING:
    from autodo.data import Dataset
    from autodo.workers import Workers

logger = logging.getLogger("autodo")


@functools.lru_cache(maxsize=2)
def load_dataset(config: DatasetConfig, data_dir: Path | None, download: bool = False) -> "Dataset":
    """A dataset, kept in memory for the next run of this process.

    Raises:
        DataError: if its files are missing or damaged.
    """
    from autodo import data

    return data.load(config, data_dir=data_dir, download=download)


def execute(
    config: RunConfig,
    store: Store,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    device: str = "cpu",
    checkpoint_every: int = 1,
    keep_model: bool = False,
    workers: "Workers | None" = None,
) -> Generator[dict[str, Any], None, None]:
    """Trains one run, from its checkpoint if there is one, and saves its results.

    Args:
        device: `cpu`, `cuda` or `cuda:<n>`.
        checkpoint_every: epochs between checkpoints.
        keep_model: keep the trained classifier in the store.
        workers: of which this is the first, if several train the run; the others `assist`.
    Yields:
        one dict per finished epoch with the columns of `records.SCHEMAS["epochs"]`. The run is done when the iterator
        ends; one that is closed before leaves the checkpoint.
    Raises:
        RunBusy: if another process is at work on this run. DataError, StoreError, TrainingDiverged.
    """
    run_id = config.run_id
    with store.locked_log(run_id) as log, _logging_to(log):
        done = store.is_done(run_id)
        if workers is not None:
            workers.all(not done)
        if done:
            logger.info("done already")
            return
        try:
            # Here, because torch takes seconds to import.
            from autodo import data
            from autodo.train import Training
            from autodo.workers import ALONE

            workers = workers or ALONE
            store.begin(config)
            dataset = load_dataset(config.dataset, data_dir, download)
            training = Training(
                config,
                data.prepare(dataset, config),
                device=device,
                checkpoint=store.checkpoint(run_id),
                checkpoint_every=checkpoint_every,
                workers=workers,
            )
            logger.info(
                "%s on %s, device %s, from epoch %d of %d",
                run_id, " + ".join(workers.gather(here())), device, training.epoch, config.training.epochs,
            )  # fmt: skip
            for metrics in training:
                logger.info(
                    "epoch %d: train loss %.4f, val error %.4f, test error %.4f",
                    metrics["epoch"], metrics["train_loss"], metrics["val_error"], metrics["test_error"],
                )  # fmt: skip
                yield metrics
            store.save(training.outcome(), run_id, keep_model=keep_model)
            logger.info("done")
        except (GeneratorExit, KeyboardInterrupt):
            logger.info("stopped; the next attempt continues from the checkpoint")
            raise
        except Exception:
            logger.exception("failed")
            raise


def assist(
    config: RunConfig,
    store: Store,
    *,
    workers: "Workers",
    data_dir: Path | None = None,
    device: str = "cpu",
    checkpoint_every: int = 1,
    keep_model: bool = False,
) -> Generator[dict[str, Any], None, None]:
    """What the other workers do while the first one executes the run: all but to lock, to log and to save.

    Args:
        keep_model: is the first worker's affair.
    Yields:
        a dict per epoch, as the first worker's `execute` does.
    """
    from autodo import data
    from autodo.train import Training

    if not workers.all(True):
        return
    prepared = data.prepare(load_dataset(config.dataset, data_dir), config)
    path = store.checkpoint(config.run_id)
    training = Training(
        config, prepared, device=device, checkpoint=path, checkpoint_every=checkpoint_every, workers=workers
    )
    workers.gather(here())
    yield from training
    training.outcome()


@contextlib.contextmanager
def _logging_to(stream: Any) -> Iterator[None]:
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
