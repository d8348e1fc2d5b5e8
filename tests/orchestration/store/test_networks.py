"""The source of own networks travels with the store."""

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import pytest

from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.errors import ConfigError
from autodo.models import build
from orchestration.store import networks
from orchestration.store.networks import provide_network, save_networks
from orchestration.store.store import Store

SOURCE = "from {package}.parts import make\n"
PARTS = "from tests.autodo.models.own_networks import make\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of two modules that only this process can import."""
    folder = tmp_path / "code" / "own_package_of_a_test"
    folder.mkdir(parents=True)
    (folder / "nets.py").write_text(SOURCE.format(package=folder.name))
    (folder / "parts.py").write_text(PARTS)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder.parent)])
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def run_of(package: Path, **settings: str) -> RunConfig:
    run = build_run("digits", "baseline", overrides={"model.name": f"{package.name}.nets:make"})
    return run.model_copy(update={"model": run.model.model_copy(update=settings).pinned()})


def move_away(package: Path) -> None:
    for file in package.iterdir():
        file.unlink() if file.is_file() else None
    sys.path.remove(str(package.parent))
    for name in [name for name in sys.modules if name.partition(".")[0] == package.name]:
        del sys.modules[name]


@pytest.mark.parametrize("code", [None, "v2"])
def test_a_package_is_imported_from_the_store_where_it_is_missing(code, package: Path, any_store: Store) -> None:
    run = run_of(package, **({"code": code} if code else {}))
    digests = save_networks([run], any_store)
    assert save_networks([run], any_store) == digests
    assert len(any_store.paths.networks.names()) == 1
    move_away(package)
    with pytest.raises(ConfigError, match=r"there is no module|cannot be imported"):
        build(**run.model.network, in_channels=1, image_size=8, classes=3)
    provide_network(run.model, any_store, digests)
    encoder, _ = build(**run.model.network, in_channels=1, image_size=8, classes=3)
    assert encoder.features == 8


def test_a_package_that_has_changed_since_is_replaced(package: Path, store: Store) -> None:
    run = run_of(package)
    digests = save_networks([run], store)
    build(**run.model.network, in_channels=1, image_size=8, classes=3)
    (package / "nets.py").write_text("raise RuntimeError('another state')\n")
    provide_network(run.model, store, digests)
    assert build(**run.model.network, in_channels=1, image_size=8, classes=3)[0].features == 8


def test_source_in_a_store_that_the_launch_did_not_write_is_not_executed(package: Path, store: Store) -> None:
    run = run_of(package)
    (file,) = [store.paths.networks / f"{package.name}-{digest[:16]}.zip" for digest in save_networks([run], store)]
    written = file.read_bytes()
    digests = [hashlib.sha256(written).hexdigest()]
    move_away(package)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(f"{package.name}/nets.py", "raise SystemExit('executed')\n")
    file.write_bytes(stream.getvalue())
    for known in (digests, []):
        provide_network(run.model, store, known)
        with pytest.raises(ConfigError, match=r"there is no module|cannot be imported"):
            build(**run.model.network, in_channels=1, image_size=8, classes=3)
    file.write_bytes(written)
    provide_network(run.model, store, digests)
    assert build(**run.model.network, in_channels=1, image_size=8, classes=3)[0].features == 8


def test_installed_packages_and_built_in_networks_are_not_copied(package: Path, store: Store, monkeypatch) -> None:
    save_networks([build_run("digits", "baseline")], store)
    installed = build_run("digits", "baseline", overrides={"model.name": "pydantic.main:BaseModel"})
    save_networks([installed], store)
    assert store.paths.networks.names() == set()
    monkeypatch.setattr(networks, "LARGEST", 10)
    with pytest.raises(ConfigError, match="which is too much to copy to the store: install the package"):
        save_networks([run_of(package)], store)
