"""Networks by import path, `PACKAGE.MODULE:FUNCTION`: what the function takes, and a fingerprint of its source."""

import hashlib
import importlib
import importlib.util
import inspect
import operator
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodo.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

ARGUMENTS = ("in_channels", "image_size", "classes")
"""What a function that makes a network may take, by these names."""
FROM_SOURCE = "source-"
"""Prefix of fingerprints that were computed from source; others are given by a person and not compared."""


def find(name: str) -> Callable[..., Any]:
    """The function of an import path. The current folder is searched too, after all others.

    Raises:
        ConfigError: if the module cannot be imported, or has no such function.
    """
    module_name, _, path = name.partition(":")
    search_here()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the module may raise anything
        raise ConfigError(
            f"{name}: {module_name} cannot be imported: {type(error).__name__}: {error}; it must be installed, in the "
            "current folder, or in PYTHONPATH"
        ) from error
    try:
        function = operator.attrgetter(path)(module)
    except AttributeError:
        raise ConfigError(f"{name}: {module.__file__} has no {path!r}") from None
    if not callable(function):
        raise ConfigError(f"{name}: is a {type(function).__name__}, not a function that returns an nn.Module")
    return function


def make(name: str, function: Callable[..., Any], **values: int) -> "nn.Module":
    """Call a function with those of `ARGUMENTS` that it takes.

    Args:
        name: import path of the function, or name of the plug-in that it is of.
    Raises:
        ConfigError: if it needs other arguments, fails, or returns no nn.Module.
    """
    from torch import nn

    try:
        takes = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: {error}") from None
    takes_any = any(one.kind is one.VAR_KEYWORD for one in takes)
    named = {one.name for one in takes if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    needed = [
        one.name
        for one in takes
        if one.default is one.empty
        and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        and (one.name not in ARGUMENTS or one.kind is one.POSITIONAL_ONLY)
    ]
    if needed:
        raise ConfigError(f"{name}: needs {', '.join(needed)}, and can have only {', '.join(ARGUMENTS)}, by name")
    try:
        network = function(**{key: value for key, value in values.items() if takes_any or key in named})
    except Exception as error:  # it may raise anything
        raise ConfigError(f"{name}: fails: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{name}: returns a {type(network).__name__}, not an nn.Module")
    return network


def search_here() -> None:
    """Add the current folder to the end of Python's path, where `autodo` does not have it."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def source_file(name: str) -> Path:
    """Source file of an import path's module, which is not imported, unlike the packages that it is in.

    Raises:
        ConfigError: if there is no such module, or it has no source.
    """
    module_name = name.partition(":")[0]
    if module_name == "__main__":
        raise ConfigError(
            f"{name}: other processes cannot import from the program that runs; move the function to a module of its "
            "own, or in Python give the nn.Module itself"
        )
    search_here()
    importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(module_name)
    except Exception as error:  # its packages may raise anything
        raise ConfigError(f"{name}: {module_name} cannot be imported: {type(error).__name__}: {error}") from error
    if spec is None:
        raise ConfigError(
            f"{name}: there is no module {module_name}; it must be installed, in the current folder, or in PYTHONPATH"
        )
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise ConfigError(f"{name}: {module_name} has no source file; give model.code, a text that names its version")
    return Path(spec.origin)


def fingerprint(name: str) -> str:
    """`source-` and 16 hex digits that depend on the source file of the import path's module, and on no other file.

    Raises:
        ConfigError: if it cannot be read.
    """
    file = source_file(name)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}: {file} cannot be read: {error.strerror}") from None
    return FROM_SOURCE + hashlib.blake2b(content, digest_size=8).hexdigest()
