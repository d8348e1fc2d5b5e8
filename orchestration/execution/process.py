"""Set-up of a process that executes runs or policy searches: data, log, threads."""

import contextlib
import functools
import gc
import logging
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from autodo import plugins
from autodo.config.dataset import DatasetConfig
from autodo.config.run import RunConfig
from autodo.errors import ConfigError, DataError
from autodo.io.storage import StrPath
from orchestration.execution.options import ExecutionOptions
from orchestration.store.store import Store

if TYPE_CHECKING:
    from autodo.data import Dataset

logger = logging.getLogger("autodo")


@functools.lru_cache(maxsize=2)
def load_dataset(config: DatasetConfig, data_dir: str | None, download: bool = False) -> "Dataset":
    """A dataset, kept in memory for the next run of this process.

    Raises:
        DataError: if its files are missing or damaged.
    """
    from autodo import data

    return data.load(config, data_dir=data_dir, download=download)


def load_on_node(config: DatasetConfig, data_dir: StrPath | None, download: bool) -> "Dataset":
    """`load_dataset`, with its warnings in the log of every run, and errors that name this node.

    Data can be on one node of a cluster and not on another.
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


def check_network(run: RunConfig, dataset: "Dataset") -> None:
    """Build the network of a run once, unless it is a built-in one without weights.

    Raises:
        ConfigError: if it cannot be used. DataError: if its weights cannot be used.
    """
    from autodo.models import build, parse_model_name

    if parse_model_name(run.model.name) is None or run.model.weights is not None:
        _, channels, *_, size = dataset.train.images.shape
        build(**run.model.network, in_channels=channels, image_size=size, classes=len(dataset.class_names))


def load_plugins(files: Iterable[plugins.PluginFile]) -> None:
    """Make plug-ins known in a process of Ray. Raises ConfigError, with this node's name, if one cannot be imported."""
    try:
        plugins.load(files)
    except ConfigError as error:
        raise ConfigError(f"node {socket.gethostname()}: {error}") from None


@contextlib.contextmanager
def using_loader_workers(count: int | None) -> Iterator[None]:
    """Within the block, `count` processes decode streamed images; None leaves the number as it is."""
    from autodo.data.stream.pool import WORKERS_VARIABLE

    before = os.environ.get(WORKERS_VARIABLE)
    if count is not None:
        os.environ[WORKERS_VARIABLE] = str(count)
    try:
        yield
    finally:
        if before is not None:
            os.environ[WORKERS_VARIABLE] = before
        else:
            os.environ.pop(WORKERS_VARIABLE, None)


@contextlib.contextmanager
def logging_to(stream: Any) -> Iterator[None]:
    """Within the block, the library's log goes to the stream too."""
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


def prepare_process(store: Store, options: ExecutionOptions) -> None:
    """Prepare a process of Ray for a run: check that its node sees the store, and set how much torch does at a time."""
    # torch reads it once, and would start up to 32 processes that compile, in each process that trains.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(options.cpus))
    import torch

    store.check_on_node()
    torch.set_num_threads(options.cpus)


def free_gpu_memory() -> None:
    """Give the memory of a finished run back to its GPU, which other processes may share."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()  # a compiled network is part of a cycle
        torch.cuda.empty_cache()
