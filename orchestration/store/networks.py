"""Source of own networks in a store, for processes on other nodes that cannot import it."""

import atexit
import contextlib
import hashlib
import importlib
import io
import logging
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from autodo.config.model import ModelConfig
from autodo.config.run import RunConfig
from autodo.errors import ConfigError, StoreError
from autodo.models.adopted import own_code
from autodo.models.names import is_import_path
from orchestration.store.store import Store

logger = logging.getLogger("autodo")

LARGEST = 10 * 2**20
"""Bytes of source that a store takes."""


def save_networks(runs: Iterable[RunConfig], store: Store) -> tuple[str, ...]:
    """Write the source of own networks, as it is here, to the store: a module's file, or its top-level package.

    Installed packages are not copied; they must be installed wherever runs are executed.

    Returns:
        digests of the files written, for `provide_network` in other processes.
    Raises:
        ConfigError: if a network's source is not here, or the package has too much of it.
    """
    digests = []
    for name in dict.fromkeys(run.model.name for run in runs if is_import_path(run.model.name)):
        content = _archive(name)
        if content is not None:
            digests.append(hashlib.sha256(content).hexdigest())
            (store.paths.networks / _file_name(name, digests[-1])).write_bytes(content)
    return tuple(digests)


def provide_network(model: ModelConfig, store: Store, digests: Iterable[str]) -> None:
    """Make the network of a run importable here: as it is installed, or else from the store.

    Source of which the run has another fingerprint is replaced by that of the store, as far as it has it.

    Args:
        digests: of the files that may be imported; what else is in the store is never executed.
    """
    if not is_import_path(model.name):
        return
    with contextlib.suppress(ConfigError):
        by_hand = model.code is not None and not model.code.startswith(own_code.FROM_SOURCE)
        now = own_code.fingerprint(model.name)
        if by_hand or model.code in (None, now):
            return
    content = _source(model.name, store, digests)
    if content is None:
        return  # building the network says what is missing
    folder = Path(tempfile.mkdtemp(prefix="autodo-network-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(folder)
    logger.info("%s: imported from the store's copy of its source", model.name)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.partition(".")[0] == _package(model.name)]:
        del sys.modules[name]


def _source(name: str, store: Store, digests: Iterable[str]) -> bytes | None:
    for digest in digests:
        with contextlib.suppress(FileNotFoundError, StoreError):
            content = (store.paths.networks / _file_name(name, digest)).read_bytes()
            if hashlib.sha256(content).hexdigest() == digest:
                return content
    return None


def _package(name: str) -> str:
    """Top-level package of an import path."""
    return name.partition(":")[0].partition(".")[0]


def _file_name(name: str, digest: str) -> str:
    return f"{_package(name)}-{digest[:16]}.zip"


def _archive(name: str) -> bytes | None:
    """The source as a zip file; None for a package that is installed."""
    module = name.partition(":")[0].split(".")
    file = own_code.source_file(name)
    if {"site-packages", "dist-packages"} & set(file.parts):
        return None
    depth = len(module) - 1 + (file.name == "__init__.py")
    files, root = [file], file.parent
    if depth:
        package = file.parents[depth - 1]
        files, root = sorted(package.rglob("*.py")), package.parent
    size = sum(path.stat().st_size for path in files)
    if size > LARGEST:
        raise ConfigError(
            f"{name}: {root / module[0]} has {size / 2**20:.0f} MB of source, which is too much to copy to the store: "
            "install the package on all nodes"
        )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            # Without times, so that the same source has the same digest.
            archive.writestr(zipfile.ZipInfo(path.relative_to(root).as_posix()), path.read_bytes())
    return stream.getvalue()
