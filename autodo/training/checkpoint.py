"""The files of a checkpoint: written atomically, read without unpickling code, by any number of processes.

A single process writes one file. Of several processes each writes the rows of its own points to a part beside it; when
all parts are complete, the first process writes the file, which names them. So at any moment the file and the parts
that it names are one checkpoint, the old one or the new one. A single process also writes a part if its rows may be too
many to be in memory twice: a part is written from the memory of the table, and mapped into memory when it is read.
"""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from autodo.errors import DataError
from autodo.io.atomic import save_torch
from autodo.io.storage import StrPath
from autodo.points.table_storage import ON_DEVICE

FORMAT = 3
ROW_CHUNK_SIZE = 2**16
"""Rows that are in memory at a time."""
Allocate = Callable[[Sequence[int], torch.dtype], Tensor]
_PART_NAME = r"\.part-\d+(?:\.\d+)?-\d+-of-\d+"
logger = logging.getLogger(__name__)


class UnusableCheckpoint(RuntimeError):
    """A checkpoint of the right run does not hold the state of its training."""


def files(path: StrPath) -> list[Path]:
    """Every existing file of the checkpoint `path`, itself last; parts that it does not name are included.

    To copy a checkpoint, copy them in this order.
    """
    path = Path(path)
    part = re.compile(rf"{re.escape(path.stem)}{_PART_NAME}{re.escape(path.suffix)}")
    existing = path.parent.iterdir() if path.parent.is_dir() else ()
    parts = sorted(file for file in existing if part.fullmatch(file.name))
    return [*parts, path] if path.exists() else parts


def delete(path: StrPath) -> None:
    """Deletes every file of the checkpoint, itself first, so that only parts can be left over."""
    _delete_all_but(set(), Path(path))


def run_of(path: StrPath) -> str | None:
    """Id of the run that a checkpoint belongs to; None if the file is no checkpoint or damaged."""
    try:
        run_id = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["run_id"]
    except Exception:  # torch.load raises many kinds of error on other files
        return None
    return run_id if isinstance(run_id, str) else None


def save(
    path: StrPath,
    run_id: str,
    state: dict[str, Any],
    rows: dict[str, Any],
    positions: Tensor | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    *,
    apart: bool = False,
) -> bool:
    """Writes tensors, numbers, strings, lists and dicts; a reader sees the old checkpoint or the new one.

    Args:
        state: the same on all processes, written by the first; `epoch` is in it, and `step` if it is mid-epoch.
        rows: tensors with a row for each point of this process; other values are the same on all processes.
        positions: positions of this process's points; None if all processes have the same rows.
        apart: write rows to a part even if there is one process.
    Shape:
        positions [n] int64, increasing.
    Returns:
        whether everything could be written. If not, a warning says why and the old checkpoint remains: a full disk does
        not end a run.
    """
    path = Path(path)
    names: list[str] = []
    written = True
    if positions is None or (group.size == 1 and not apart):
        state = {**state, "points": rows}
    else:
        (epoch, step), size = _moment(state), group.size
        # The names differ at every moment: until the file is written, the old one and its parts are the checkpoint.
        moment = f"{epoch}.{step}" if step else str(epoch)
        names = [f"{path.stem}.part-{moment}-{rank}-of-{size}{path.suffix}" for rank in range(size)]
        part = {"epoch": epoch, "step": step, "positions": positions, **rows}
        written = _write(path.with_name(names[group.rank]), run_id, part)
        state = {**state, "parts": names}
    # The file must not name a part that does not exist.
    written = group.all_true(written)
    if written and group.is_first:
        written = _write(path, run_id, state)
        if written:
            _delete_all_but({path.name, *names}, path)
    return group.all_true(written)


def load(
    path: StrPath,
    run_id: str,
    positions: Tensor | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    allocate: Allocate = ON_DEVICE.allocate_on_host,
    *,
    data: str | None = None,
) -> dict[str, Any] | None:
    """The state that was saved for this run, or None, with a warning, if no file can be used.

    A run can always start again, so a checkpoint that is damaged, of another format or of another run does not stop it;
    it will be overwritten. Either all processes get a state or none does.

    Args:
        positions: positions of this process's points; None if all processes have the same rows.
        allocate: makes tables, of a shape and a type, for rows that are collected from several parts.
        data: fingerprint of the images that the run has now; None if the state does not depend on images.
    Shape:
        positions [n] int64, increasing.
    Raises:
        DataError: if the state is of other images: its rows would belong to other points.
    Returns:
        `state` as it was given to `save`, and as `points` the rows of this process's points, whichever processes wrote
        them; all tensors are on the CPU.
    """
    path = Path(path)
    state: dict[str, Any] | None = None
    if group.is_first:
        _sweep(path)
    if path.exists():
        try:
            state = _read(path, run_id)
            if data not in (None, state.get("data", data)):
                raise DataError(
                    f"{path}: of other images than there are now: files were added, lost or damaged since this run "
                    "began; put them back as they were, or delete the checkpoint to start from the beginning"
                )
            parts = [path.with_name(name) for name in state.pop("parts", [])]
            tables = (_read(part, run_id, moment=_moment(state)) for part in parts) if parts else [state["points"]]
            if positions is not None:
                state["points"] = _rows(tables, positions, allocate)
        except DataError:
            raise
        except Exception as error:
            # torch.load raises many kinds of error on damaged files.
            logger.warning("%s cannot be used, the run starts from the beginning: %s", path, error)
            state = None
    # If one process cannot read the file, none may continue from it.
    return state if group.all_true(state is not None) else None


def _write(path: Path, run_id: str, state: dict[str, Any]) -> bool:
    try:
        save_torch({"format": FORMAT, "run_id": run_id, "state": state}, path)
    except OSError as error:
        logger.warning("%s cannot be written, the next epoch tries again: %s", path, error.strerror or error)
        return False
    return True


def _delete_all_but(kept: set[str], path: Path) -> None:
    for file in reversed(files(path)):
        if file.name not in kept:
            file.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Deletes half-written files of a process that was killed; they may be large."""
    half_written = re.compile(rf"\.{re.escape(path.stem)}({_PART_NAME})?{re.escape(path.suffix)}\.[0-9a-f]{{32}}")
    for file in path.parent.iterdir() if path.parent.is_dir() else ():
        if half_written.fullmatch(file.name):
            file.unlink(missing_ok=True)


def _moment(state: dict[str, Any]) -> tuple[int, int]:
    """Epochs that are done, and steps of the next one."""
    return state["epoch"], state.get("step", 0)


def _read(path: Path, run_id: str, *, moment: tuple[int, int] | None = None) -> dict[str, Any]:
    """Content of a file; a part, whose moment is known, is mapped and not read into memory."""
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=moment is not None)
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']}, not {FORMAT}")
    if content["run_id"] != run_id:
        raise ValueError(f"it belongs to the run {content['run_id']}")
    state: dict[str, Any] = content["state"]
    if moment not in (None, _moment(state)):
        raise ValueError(f"{path.name} is of epoch and step {_moment(state)}, not {moment}")
    return state


def _rows(tables: Iterable[dict[str, Any]], positions: Tensor, allocate: Allocate) -> dict[str, Any]:
    """The rows at `positions`, collected from tables that each hold the rows of other positions.

    A table without `positions` has those of 0, 1, ...; values that are no tensors are copied. A table that has exactly
    these positions is returned as it is.
    """
    result: dict[str, Any] = {}
    found = torch.zeros(len(positions), dtype=torch.bool)
    for table in tables:
        columns = {name: value for name, value in table.items() if isinstance(value, Tensor)}
        held = columns.pop("positions", None)
        if held is None:
            # If no row was ever touched, there may be no column.
            held = torch.arange(len(next(iter(columns.values())))) if columns else positions
        if torch.equal(held, positions):
            table.pop("positions", None)
            return table
        target = torch.searchsorted(positions, held).clamp(max=len(positions) - 1)
        wanted = positions[target] == held
        chunks = zip(wanted.nonzero()[:, 0].split(ROW_CHUNK_SIZE), target[wanted].split(ROW_CHUNK_SIZE), strict=True)
        for sources, targets in chunks:
            for name, rows in columns.items():
                if name not in result:
                    result[name] = allocate((len(positions), *rows.shape[1:]), rows.dtype)
                result[name][targets] = rows[sources]
        found[target[wanted]] = True
        result |= {name: value for name, value in table.items() if not isinstance(value, Tensor)}
    if not found.all():
        raise ValueError(f"it lacks {int((~found).sum())} of {len(found)} points")
    return result
