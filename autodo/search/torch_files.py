"""States of searches in files, from which only tensors and plain values are read."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch

from autodo.io.atomic import save_torch
from autodo.io.storage import Location

FORMAT = 1


def write_state(file: Location, state: dict[str, Any]) -> None:
    """Writes tensors and plain values by name."""
    file.write_atomic(functools.partial(save_torch, {"format": FORMAT, **state}))


def read_state(file: Location, names: set[str]) -> dict[str, Any] | None:
    """Reads a state with these names; None if the file is missing or cannot be used."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "state.pt")
        try:
            file.fetch(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
            if content["format"] == FORMAT and names <= content.keys():
                return dict(content)
        except Exception:  # torch.load raises many kinds of error on damaged files
            return None
    return None
