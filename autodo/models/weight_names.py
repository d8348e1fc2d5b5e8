"""Names and files of pretrained weights, and what ties a run to a network's weights and source. Imports no torch."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autodo.errors import DataError
from autodo.io.storage import StrPath
from autodo.models.names import is_import_path, library_of

WEIGHTS_VARIABLE = "AUTODO_WEIGHTS"
"""Environment variable with the folder where files of named weights are looked for first."""
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def weights_dir() -> Path | None:
    """Folder of weights, if one is set."""
    folder = os.environ.get(WEIGHTS_VARIABLE)
    return Path(folder).expanduser() if folder else None


def use_weights_dir(folder: StrPath | None) -> None:
    """Look for files of weights there first, in this process and those that it starts; None changes nothing."""
    if folder is not None:
        os.environ[WEIGHTS_VARIABLE] = str(Path(folder).expanduser().absolute())


def file_of(weights: str) -> Path | None:
    """Path that the weights name: one with a folder or a known suffix; None if they are a name of a library.

    A file without a folder that is not in the current one is looked for in `weights_dir`.
    """
    path = Path(weights).expanduser()
    if len(path.parts) < 2 and path.suffix not in _SUFFIXES:
        return None
    folder = weights_dir()
    return folder / path if folder is not None and not path.exists() and not path.is_absolute() else path


def file_content(path: StrPath, hash: "hashlib._Hash | None" = None) -> str:
    """Fingerprint of a file's bytes in hex digits.

    Args:
        hash: an empty one, which is used; None: 8 bytes of blake2b.
    Raises:
        DataError: if it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=8) if hash is None else hash
    try:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"model.weights {os.fspath(path)}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def pinned(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a network with the fingerprints of its weights and source as they are now.

    Fingerprints that are there stay. Only weights with names need their library, which imports torch.

    Args:
        settings: of `ModelConfig`.
    Raises:
        ConfigError: if there is no such module, or there are no such weights. DataError: if a file cannot be read.
    """
    name, weights = settings["name"], settings["weights"]
    found = dict(settings)
    if is_import_path(name) and settings["code"] is None:
        from autodo.models.adopted.own_code import fingerprint

        found["code"] = fingerprint(name)
    if weights is not None and settings["weights_content"] is None:
        path = file_of(weights)
        if path is not None:
            found["weights_content"] = file_content(path)
        elif library_of(name) == "torchvision":
            from autodo.models.adopted.weights import torchvision_content

            found["weights_content"] = torchvision_content(name.partition(":")[2], weights)
        else:
            from autodo.models.adopted.weights import read

            found["weights_content"] = read(name, weights).content
    return found
