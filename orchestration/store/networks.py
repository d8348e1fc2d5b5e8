"""Source of own networks in a store, for processes that cannot import it: other nodes, and launches from elsewhere."""

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


def save_networks(runs: Iterable[RunConfig], store: Store) -> None:
    """Write the source of own networks that the store does not have yet: a module's file, or its top-level package.

    Installed packages are not copied; they must be installed wherever runs are executed.

    Raises:
        ConfigError: if the package has too much source.
    """
    networks = {_name(run.model): run.model for run in runs if is_import_path(run.model.name)}
    there = store.paths.networks.names() if networks else set()
    for name, model in networks.items():
        if name not in there and (content := _archive(model.name)) is not None:
            (store.paths.networks / name).write_bytes(content)


def provide_network(model: ModelConfig, store: Store) -> None:
    """Make the network of a run importable here: as it is installed, or else from the store.

    Source of which the run has another fingerprint is replaced by that of the store, as far as it has it.
    """
    if not is_import_path(model.name):
        return
    with contextlib.suppress(ConfigError):
        by_hand = model.code is not None and not model.code.startswith(own_code.FROM_SOURCE)
        now = own_code.fingerprint(model.name)
        if by_hand or model.code in (None, now):
            return
    try:
        content = (store.paths.networks / _name(model)).read_bytes()
    except (FileNotFoundError, StoreError):
        return  # building the network says what is missing
    folder = Path(tempfile.mkdtemp(prefix="autodo-network-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(folder)
    logger.info("%s: imported from the store's copy of its source", model.name)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    package = model.name.partition(":")[0].partition(".")[0]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def _name(model: ModelConfig) -> str:
    digest = hashlib.blake2b(f"{model.name} {model.code}".encode(), digest_size=8)
    return f"{digest.hexdigest()}.zip"


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
            archive.write(path, path.relative_to(root).as_posix())
    return stream.getvalue()
