"""Checkpoints: written atomically, read without unpickling code."""

import logging
from pathlib import Path
from typing import Any

import torch

from autodo.atomic import replacing

FORMAT = 1
log = logging.getLogger(__name__)


class Unusable(RuntimeError):
    """A checkpoint of the right run holds something else than its training needs."""


def save(path: Path, run_id: str, state: dict[str, Any]) -> bool:
    """Writes tensors, numbers, strings, lists and dicts; a reader sees the old checkpoint or the new one.

    Returns:
        whether it could be written. If not, a warning says why, and the old checkpoint is still there: a full disk is
        no reason to end a run.
    """
    try:
        save_torch({"format": FORMAT, "run_id": run_id, "state": state}, path)
    except OSError as error:
        log.warning("%s cannot be written, the next epoch tries again: %s", path, error.strerror or error)
        return False
    return True


def save_torch(content: Any, path: Path) -> None:
    """`torch.save`, all or nothing.

    Raises:
        OSError: if the file cannot be written; torch itself hides that in a RuntimeError.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load(path: Path, run_id: str, device: str) -> dict[str, Any] | None:
    """The state that was saved for this run, or None, with a warning, if there is none that can be used.

    A run can always start anew, so a checkpoint that is damaged, of another format or of another run is no reason
    to stop; it will be overwritten.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}, not {FORMAT}")
        if content["run_id"] != run_id:
            raise ValueError(f"it belongs to the run {content['run_id']}")
        state: dict[str, Any] = content["state"]
    except Exception as error:
        # torch.load raises many kinds of error on damaged files.
        log.warning("%s cannot be used, the run starts anew: %s", path, error)
        return None
    return state
