"""Names of networks: built in, of torchvision and timm, of plug-ins, by import path, or given in Python.

Importing this module imports no torch.
"""

import functools
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

from autodo import plugins
from autodo.text import hint

# Pattern of a name -> module in this package. Its `build_encoder(in_channels, image_size, *numbers in the name)`
# returns an `Encoder` [B, in_channels, H, W] -> [B, features].
MODELS = {
    r"small-cnn": "small_cnn",
    r"resnet-18": "resnet",
    r"wrn-(\d+)-(\d+)": "wide_resnet",
    r"linear": "linear",
}

LIBRARIES = ("torchvision", "timm")
"""Packages whose networks have names `PACKAGE:NAME`."""

GIVEN = "module"
"""Prefix of the names of `nn.Module` objects that were given in Python: `module:CLASS`."""

_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class ModelName(NamedTuple):
    """Module that builds a model, and the numbers in the name of the model."""

    module: str
    numbers: tuple[int, ...]


def parse_model_name(name: str) -> ModelName | None:
    """Parse `wrn-28-10` to ("wide_resnet", (28, 10)); None if no such model is built in."""
    for pattern, module in MODELS.items():
        match = re.fullmatch(pattern, name)
        if match is not None:
            numbers = tuple(int(group) for group in match.groups())
            if module == "wide_resnet" and ((numbers[0] - 4) % 6 or numbers[0] < 10 or numbers[1] < 1):
                return None
            return ModelName(module, numbers)
    return None


def plugin_names() -> list[str]:
    """Names of the networks of plug-ins. Raises ConfigError if one is that of a built-in network."""
    found = plugins.names("model", ())
    return plugins.names("model", [name for name in found if parse_model_name(name) is not None])


def is_of_plugin(name: str) -> bool:
    """Whether the name can only be that of a plug-in's network, which need not be loaded."""
    return ":" not in name and parse_model_name(name) is None


def known_model_names(*, built_in: bool = False) -> list[str]:
    """Names for messages; of networks that are built in, or of all."""
    own = ["small-cnn", "resnet-18", "wrn-<depth 6n+4>-<width>, such as wrn-16-2, wrn-28-10", "linear"]
    others = "torchvision:NAME", "timm:NAME", "PACKAGE.MODULE:FUNCTION of your own", *plugin_names()
    return own if built_in else [*own, *others]


def normalised(name: str) -> str:
    """The name as it is stored: lower case and hyphens for built-in networks, and as given for all others."""
    return name.strip() if ":" in name else name.lower().replace("_", "-")


def library_of(name: str) -> str | None:
    """`torchvision` or `timm` if the name is that of one of their networks, else None."""
    library, colon, _ = name.partition(":")
    return library if colon and library in LIBRARIES else None


def is_given(name: str) -> bool:
    """Whether the name is that of an object that was given in Python."""
    return name.startswith(f"{GIVEN}:")


def is_import_path(name: str) -> bool:
    """Whether the name is the import path of a function that makes a network."""
    return ":" in name and library_of(name) is None and not is_given(name)


def problem_with(name: str) -> str | None:
    """Describe what is wrong with a name, with near ones; None if it can be used as far as is known without imports.

    That an import path leads to a function is found out when the network is built.
    """
    library, _, rest = name.partition(":")
    if library_of(name) is not None:
        return _problem_in_library(library, rest)
    if ":" in name:
        if _IMPORT_PATH.fullmatch(name):
            return None
        return f"{name!r} is not an import path PACKAGE.MODULE:FUNCTION, such as my_pkg.nets:make"
    of_plugins = plugin_names()
    if name in of_plugins or parse_model_name(name) is not None:
        return None
    meant = [repr(f"{other}:{rest}") for other in LIBRARIES if (rest := name.replace("-", "_")) in library_names(other)]
    others = ["small-cnn", "resnet-18", "linear", *of_plugins]
    near = f"; did you mean {' or '.join(meant)}?" if meant else hint(name, others)
    return f"unknown model {name!r}{near}; known: {', '.join(known_model_names())}; --plugin adds those of a file"


def _problem_in_library(library: str, name: str) -> str | None:
    if importlib.util.find_spec(library) is None:
        return f"'{library}:{name}' needs the package {library}: pip install 'autodo[{library}]'"
    known = library_names(library)
    # A network of timm may have the name of its weights after a dot.
    name = name.partition(".")[0] if library == "timm" else name
    if not known or name in known:
        return None
    near = hint(name, sorted(known)) or hint(name.replace("-", "_"), sorted(known))
    return f"{library} has no classification network {name!r}{near}; it has {len(known)}, listed in its documentation"


@functools.cache
def library_names(library: str) -> frozenset[str]:
    """Names of a library's classification networks, read from its source: importing it takes seconds.

    Empty if the library is missing, or its source has another form.
    """
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None:
        return frozenset()
    registered = re.compile(r"^@register_model\b.*?^def (\w+)", re.MULTILINE | re.DOTALL)
    files = (Path(spec.origin).parent / "models").glob("*.py")
    return frozenset(name for file in files for name in registered.findall(file.read_text(encoding="utf-8")))
