"""Checkpoints: written atomically, read without unpickling code, by any number of workers.

One process writes one file. Of several workers each writes the rows of its own points to a part beside it, and when all
parts are there the first worker writes the file, which names them. So at any moment the file and the parts that it
names make one checkpoint, the old one or the new. One process writes a part too if its rows may be too many to be in
memory twice: a part is written from where the rows are, and mapped when it is read.
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
from autodo.points.storage import ON_DEVICE

FORMAT = 3
READABLE = (1, 2, 3)
"""In 1 rows that were never touched are kept with their values; from 2 on they may be left out or zero. In 3
there may be one from within an epoch."""
Empty = Callable[[Sequence[int], torch.dtype], Tensor]
_PART_NAME = r"\.part-\d+(?:\.\d+)?-\d+-of-\d+"
PART = 2**16
"""Rows that are in memory at a time."""
log = logging.getLogger(__name__)


class UnusableCheckpoint(RuntimeError):
    """A checkpoint of the right run holds something else than its training needs."""


def files(path: StrPath) -> list[Path]:
    """Every file of the checkpoint `path` that there is, itself last; also parts that are no longer or not yet named.

    To copy a checkpoint, copy them in this order.
    """
    path = Path(path)
    part = re.compile(rf"{re.escape(path.stem)}{_PART_NAME}{re.escape(path.suffix)}")
    there = path.parent.iterdir() if path.parent.is_dir() else ()
    parts = sorted(file for file in there if part.fullmatch(file.name))
    return [*parts, path] if path.exists() else parts


def delete(path: StrPath) -> None:
    """Deletes every file of the checkpoint, itself first, so that what may be left over is only parts of nothing."""
    _delete_all_but(set(), Path(path))


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
        state: what all workers know, written by the first; `epoch` is in it, and `step` if it is of within an epoch.
        rows: of this worker's points: tensors with a row for each, and what is no tensor and the same for all workers.
        positions: of this worker's points; None if all workers have the same rows.
        apart: write rows to a part even if there is one worker.
    Shape:
        positions [n] int64, increasing.
    Returns:
        whether all of it could be written. If not, a warning says why, and the old checkpoint is still there: a full
        disk is no reason to end a run.
    """
    path = Path(path)
    names: list[str] = []
    written = True
    if positions is None or (group.size == 1 and not apart):
        state = {**state, "points": rows}
    else:
        (epoch, step), size = _moment(state), group.size
        # Other names for every moment, because until the file is written the old one and its parts are the checkpoint.
        moment = f"{epoch}.{step}" if step else str(epoch)
        names = [f"{path.stem}.part-{moment}-{rank}-of-{size}{path.suffix}" for rank in range(size)]
        part = {"epoch": epoch, "step": step, "positions": positions, **rows}
        written = _write(path.with_name(names[group.rank]), run_id, part)
        state = {**state, "parts": names}
    # The file must not name a part that is not there.
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
    empty: Empty = ON_DEVICE.allocate_on_host,
    *,
    data: str | None = None,
) -> dict[str, Any] | None:
    """The state that was saved for this run, or None, with a warning, if there is none that can be used.

    A run can always start anew, so a checkpoint that is damaged, of another format or of another run is no reason
    to stop; it will be overwritten. Either all workers get a state or none does.

    Args:
        positions: of this worker's points; None if all workers have the same rows.
        empty: makes tables for rows that are collected from several parts, of a shape and a type.
        data: fingerprint of the images that the run has now; None if a state is of no images.
    Shape:
        positions [n] int64, increasing.
    Raises:
        DataError: if the state is of other images: its rows would be taken for those of other points.
    Returns:
        `state` as it was given to `save`, and as `points` the rows of this worker's points, whichever workers wrote
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
                    "began; put them back as they were, or delete the checkpoint to begin anew"
                )
            parts = [path.with_name(name) for name in state.pop("parts", [])]
            tables = (_read(part, run_id, moment=_moment(state)) for part in parts) if parts else [state["points"]]
            if positions is not None:
                state["points"] = _rows(tables, positions, empty)
        except DataError:
            raise
        except Exception as error:
            # torch.load raises many kinds of error on damaged files.
            log.warning("%s cannot be used, the run starts anew: %s", path, error)
            state = None
    # One that cannot read what the others can must not begin where they do not.
    return state if group.all_true(state is not None) else None


def _write(path: Path, run_id: str, state: dict[str, Any]) -> bool:
    try:
        save_torch({"format": FORMAT, "run_id": run_id, "state": state}, path)
    except OSError as error:
        log.warning("%s cannot be written, the next epoch tries again: %s", path, error.strerror or error)
        return False
    return True


def _delete_all_but(kept: set[str], path: Path) -> None:
    for file in reversed(files(path)):
        if file.name not in kept:
            file.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Deletes what a process left behind that was killed while it wrote; it may be large."""
    half_written = re.compile(rf"\.{re.escape(path.stem)}({_PART_NAME})?{re.escape(path.suffix)}\.[0-9a-f]{{32}}")
    for file in path.parent.iterdir() if path.parent.is_dir() else ():
        if half_written.fullmatch(file.name):
            file.unlink(missing_ok=True)


def _moment(state: dict[str, Any]) -> tuple[int, int]:
    """Epochs that are done, and steps of the next one."""
    return state["epoch"], state.get("step", 0)


def _read(path: Path, run_id: str, *, moment: tuple[int, int] | None = None) -> dict[str, Any]:
    """What a file holds; a part, which is of a known moment, is not read into memory."""
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=moment is not None)
    if content["format"] not in READABLE:
        raise ValueError(f"its format is {content['format']}, not {FORMAT}")
    if content["run_id"] != run_id:
        raise ValueError(f"it belongs to the run {content['run_id']}")
    state: dict[str, Any] = content["state"]
    if moment not in (None, _moment(state)):
        raise ValueError(f"{path.name} is of epoch and step {_moment(state)}, not {moment}")
    return state


def _rows(tables: Iterable[dict[str, Any]], positions: Tensor, empty: Empty) -> dict[str, Any]:
    """The rows at `positions` from tables, read one after another, that hold the rows of other positions each.

    A table without `positions` has those of 0, 1, ...; what is no tensor in it is not by rows. A table that has all of
    them and no other is returned as it is.
    """
    result: dict[str, Any] = {}
    found = torch.zeros(len(positions), dtype=torch.bool)
    for table in tables:
        columns = {name: value for name, value in table.items() if isinstance(value, Tensor)}
        held = columns.pop("positions", None)
        if held is None:
            # If no row was ever touched there may be none.
            held = torch.arange(len(next(iter(columns.values())))) if columns else positions
        if torch.equal(held, positions):
            table.pop("positions", None)
            return table
        place = torch.searchsorted(positions, held).clamp(max=len(positions) - 1)
        wanted = positions[place] == held
        for name, rows in columns.items():
            if name not in result:
                result[name] = empty((len(positions), *rows.shape[1:]), rows.dtype)
            for sources, targets in zip(wanted.nonzero()[:, 0].split(PART), place[wanted].split(PART), strict=True):
                result[name][targets] = rows[sources]
        found[place[wanted]] = True
        result |= {name: value for name, value in table.items() if not isinstance(value, Tensor)}
    if not found.all():
        raise ValueError(f"it lacks {int((~found).sum())} of {len(found)} points")
    return result
