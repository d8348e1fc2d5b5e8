"""A training that kills its own process with SIGKILL; a module, so that another process can import it."""

import itertools
import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from autodo.config.run import RunConfig
from autodo.data import load, prepare
from autodo.distributed.process_group import current_process_group
from autodo.points.row_store import RowStore
from autodo.points.table_storage import TableStorage
from autodo.training import checkpoint as checkpoints
from autodo.training.trainer import Trainer

MOMENTS = ("in the midst of a row", "in the midst of a part", "between the part and the file")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_until(moment: str, config: RunConfig, path: Path, folder: Path) -> None:
    """Trains with lambda in a file, and dies at this moment of the epoch after the first outer pass."""
    training = Trainer(
        config, prepare(load(config.dataset), config), checkpoint=path, storage=TableStorage("file", folder)
    )
    write, save, write_file = RowStore.write, torch.save, checkpoints._write

    def half_a_row(store: RowStore, index: torch.Tensor, rows: Any) -> None:
        if training.state.epoch == config.outer_start + 1:
            values = rows["values"].clone()
            values[-1, values.shape[1] // 2 :] = store.columns["values"][index[-1], values.shape[1] // 2 :]
            store.columns["values"][index] = values
            die()
        write(store, index, rows)

    def half_a_part(content: Any, file: Any) -> None:
        if "positions" in content["state"] and training.state.epoch == config.outer_start + 2:
            save(content, file)
            file.flush()
            os.ftruncate(file.fileno(), file.tell() // 2)
            die()
        save(content, file)

    def no_file(file: Path, *arguments: Any) -> bool:
        if file == path and training.state.epoch == config.outer_start + 2:
            die()
        return write_file(file, *arguments)

    if moment == "in the midst of a row":
        patch = mock.patch.object(RowStore, "write", half_a_row)
    elif moment == "in the midst of a part":
        patch = mock.patch.object(torch, "save", half_a_part)
    else:
        patch = mock.patch.object(checkpoints, "_write", no_file)
    with patch:
        list(training)


def train_until_step(step: int, config: RunConfig, path: Path, steps: int, meeting: Path, rank: int, size: int) -> None:
    """Trains with a checkpoint every `steps` steps, and dies just before step `step`, counted over all epochs."""
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=size)
    data = prepare(load(config.dataset), config)
    training = Trainer(config, data, checkpoint=path, checkpoint_steps=steps, group=current_process_group())
    take_step, done = training.model.optimizer.step, itertools.count(1)

    def dies() -> None:
        if next(done) == step:
            die()
        take_step()

    training.model.optimizer.step = dies  # type: ignore[method-assign]
    list(training)
