"""Plug-ins: datasets, train losses, augmentation operations, networks and methods from other packages and files.

A plug-in is an object of one of the classes in `kinds`, which can be imported from here. It comes from

- a file, named by `--plugin FILE` or `load_file`: each plug-in at its top level counts. A launch sends the file to
  every process of Ray;
- an installed package, with an entry point of the plug-in's name in the group `autodo.datasets`, `autodo.objectives`,
  `autodo.operations`, `autodo.models` or `autodo.methods`. It is imported when a run names it, and must be installed
  wherever runs are executed.

The *code* of a plug-in is part of the ids of the runs that use it: its `version`, or else a hash of its file or of the
Python files of its package.

Importing this module imports neither torch nor numpy.
"""

import functools
import hashlib
import importlib
import linecache
import re
import sys
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from autodo.errors import ConfigError
from autodo.io.storage import StrPath

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from autodo.plugins.kinds import DatasetPlugin as DatasetPlugin
    from autodo.plugins.kinds import MethodPlugin as MethodPlugin
    from autodo.plugins.kinds import ModelPlugin as ModelPlugin
    from autodo.plugins.kinds import ObjectivePlugin as ObjectivePlugin
    from autodo.plugins.kinds import OperationPlugin as OperationPlugin
    from autodo.plugins.kinds import Plugin

KINDS = ("dataset", "objective", "operation", "model", "method")


def __getattr__(name: str) -> Any:
    """A class of `kinds`, which is imported when somebody asks for it."""
    if not name.endswith("Plugin"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("autodo.plugins.kinds"), name)


class PluginFile(NamedTuple):
    """A Python file with plug-ins, as it is sent to other processes."""

    path: str
    text: str

    @property
    def name(self) -> str:
        """File name."""
        return Path(self.path).name

    @property
    def content(self) -> str:
        """First 16 hex digits of the sha256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


class Loaded(NamedTuple):
    """A plug-in, and where it is from.

    Args:
        source: name of the file or the package.
        version: hash of the file, or version of the package.
        code: fingerprint that is part of the ids of runs.
    """

    plugin: Any
    source: str
    version: str
    code: str


class _Registry:
    """Plug-ins of this process, by kind and name."""

    def __init__(self) -> None:
        self.files: dict[str, PluginFile] = {}
        self.of_files: dict[tuple[str, str], Loaded] = {}
        self.of_packages: dict[tuple[str, str], Loaded] = {}


_registry = _Registry()


# ----- files


def load_file(path: StrPath) -> None:
    """Import a Python file, and make the plug-ins at its top level known in this process.

    Raises:
        ConfigError: if it cannot be read or imported, or has no plug-in, or one whose name is taken.
    """
    place = Path(path)
    if place.suffix != ".py":
        raise ConfigError(f"--plugin {place}: is not a Python file; its name must end with .py")
    try:
        text = place.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"--plugin {place}: cannot be read: {error}") from None
    except OSError as error:
        raise ConfigError(f"--plugin {place}: cannot be read: {error.strerror}") from None
    load([PluginFile(str(place.absolute()), text)])


def load(files: Iterable[PluginFile]) -> None:
    """Make the plug-ins of these files known in this process; those that are known already are left alone.

    A file that has changed replaces its earlier state. The text is what counts: the paths need not exist here.

    Raises:
        ConfigError: as `load_file`.
    """
    for file in files:
        before = _registry.files.get(file.name)
        if before == file:
            continue
        if before is not None and before.path != file.path:
            raise ConfigError(f"--plugin {file.path}: {before.path} has the same file name; rename one of them")
        others = {key: one for key, one in _registry.of_files.items() if one.source != file.name}
        found: dict[tuple[str, str], Loaded] = {}
        for plugin in _plugins_in(_imported(file)):
            key = plugin.kind, plugin.name
            taken = others.get(key) or found.get(key)
            if taken is not None:
                where = f"{taken.source} has" if taken.source != file.name else "the file has"
                raise ConfigError(f"--plugin {file.path}: {where} another {' '.join(key)!r}; rename one of them")
            found[key] = Loaded(plugin, file.name, file.content, plugin.version or file.content)
        if not found:
            raise ConfigError(
                f"--plugin {file.path}: has no plug-in at its top level; a plug-in is an object of a class of "
                f"autodo.plugins: {', '.join(f'{kind.capitalize()}Plugin' for kind in KINDS)}"
            )
        _registry.files[file.name] = file
        _registry.of_files = others | found


def files() -> tuple[PluginFile, ...]:
    """The files loaded in this process, for `load` in others."""
    return tuple(_registry.files.values())


def _imported(file: PluginFile) -> types.ModuleType:
    """The module of a file, under a name that no other file has."""
    name = f"autodo_plugin_{re.sub(r'[^A-Za-z0-9_]', '_', Path(file.path).stem)}_{file.content}"
    module = types.ModuleType(name)
    module.__file__ = file.path
    # Tracebacks show its lines also where the file itself is not.
    linecache.cache[file.path] = (len(file.text), None, file.text.splitlines(keepends=True), file.path)
    sys.modules[name] = module
    try:
        exec(compile(file.text, file.path, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:  # whatever the file does
        del sys.modules[name]
        raise ConfigError(f"--plugin {file.path}: cannot be imported: {_where(error, file.path)}") from None
    return module


def _where(error: BaseException, path: str) -> str:
    """`line 3: ModuleNotFoundError: No module named 'x'`, with the last line of the file that was executed."""
    frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == path else (frames or [None])[-1]
    message = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    return f"{'' if line is None else f'line {line}: '}{type(error).__name__}: {message}"


def _plugins_in(module: types.ModuleType) -> "Iterator[Plugin]":
    from autodo.plugins.kinds import Plugin

    values = {id(value): value for value in vars(module).values() if isinstance(value, Plugin)}
    yield from values.values()


# ----- packages


@functools.cache
def _entry_points() -> Mapping[tuple[str, str], Sequence["EntryPoint"]]:
    """Entry points of the installed packages, by kind and name; nothing is imported."""
    from importlib import metadata

    found: dict[tuple[str, str], list[EntryPoint]] = {}
    everything = metadata.entry_points()  # once, since each call reads the metadata of all packages
    for kind in KINDS:
        for point in everything.select(group=f"autodo.{kind}s"):
            found.setdefault((kind, point.name), []).append(point)
    return found


def _load_entry_point(kind: str, point: "EntryPoint") -> Loaded:
    package, version = _package(point)
    where = f"package {package} {version}: {kind} {point.name!r} ({point.value})"
    try:
        plugin = point.load()
    except (Exception, SystemExit) as error:  # whatever the package does
        raise ConfigError(f"{where}: cannot be imported: {_where(error, '')}") from None
    wanted = __getattr__(f"{kind.capitalize()}Plugin")
    if not isinstance(plugin, wanted):
        raise ConfigError(f"{where}: is a {type(plugin).__name__}, not a {wanted.__name__} of autodo.plugins")
    if plugin.name != point.name:
        raise ConfigError(f"{where}: calls itself {plugin.name!r}; the entry point must have the same name")
    return Loaded(plugin, package, version, plugin.version or _package_content(point.module))


def _package(point: "EntryPoint") -> tuple[str, str]:
    """Name and version of the package of an entry point."""
    return ("unknown", "unknown") if point.dist is None else (point.dist.name, point.dist.version)


def _package_content(module: str) -> str:
    """First 16 hex digits of the sha256 of the names and texts of the Python files of a top-level package."""
    top = sys.modules[module.partition(".")[0]]
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    found = [(file.relative_to(folder).as_posix(), file) for folder in folders for file in folder.rglob("*.py")]
    if not found and top.__file__ is not None:
        found = [(Path(top.__file__).name, Path(top.__file__))]
    digest = hashlib.sha256()
    for name, file in sorted(found):
        digest.update(f"{name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


# ----- look-up


def names(kind: str, built_in: Iterable[str]) -> list[str]:
    """Names of the plug-ins of a kind, sorted; nothing is imported.

    Args:
        built_in: names of this kind that AutoDO has.
    Raises:
        ConfigError: if a plug-in has one of these.
    """
    found = {name for of_kind, name in [*_registry.of_files, *_entry_points()] if of_kind == kind}
    for name in sorted(found.intersection(built_in)):
        loaded = _registry.of_files.get((kind, name))
        source = " ".join(_package(_entry_points()[kind, name][0])) if loaded is None else loaded.source
        raise ConfigError(f"{source}: {kind} {name!r}: AutoDO itself has one of this name; give it another")
    return sorted(found)


def find(kind: str, name: str) -> Loaded | None:
    """The plug-in of this kind and name; None if there is none.

    Raises:
        ConfigError: if several have the name, or its package cannot be imported.
    """
    key = kind, name
    points = _entry_points().get(key, ())
    packages = [" ".join(_package(point)) for point in points]
    loaded = _registry.of_files.get(key)
    sources = packages if loaded is None else [loaded.source, *packages]
    if len(sources) > 1:
        raise ConfigError(f"{kind} {name!r}: is in {' and in '.join(sources)}; only one may have this name")
    if loaded is None and points:
        if key not in _registry.of_packages:
            _registry.of_packages[key] = _load_entry_point(kind, points[0])
        loaded = _registry.of_packages[key]
    return loaded


def get(kind: str, name: str, code: str | None = None) -> Loaded:
    """The plug-in that a run needs.

    Args:
        code: the code that it must have; None: any.
    Raises:
        ConfigError: if it is missing, or has another code.
    """
    loaded = find(kind, name)
    if loaded is None:
        raise ConfigError(
            f"{kind} {name!r}: is of a plug-in that is not loaded; give its file with --plugin, or install its package"
        )
    if code not in (None, loaded.code):
        raise ConfigError(
            f"{kind} {name!r}: {loaded.source} is not as it was when the run was planned (its code was {code}, here it "
            f"is {loaded.code}); put the old one back, or launch again for new runs"
        )
    return loaded


def all_of(kind: str) -> list[Loaded]:
    """All plug-ins of a kind, by name; packages that have some are imported."""
    return [loaded for name in names(kind, ()) if (loaded := find(kind, name)) is not None]
