"""Pretrained weights: by name from torchvision and timm, or from a file, with the images that they expect."""

import functools
import hashlib
import logging
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from autodo.errors import ConfigError, DataError
from autodo.io.storage import StrPath
from autodo.models.adopted import libraries
from autodo.models.names import library_of
from autodo.models.weight_names import WEIGHTS_VARIABLE, file_content, file_of, weights_dir
from autodo.text import first_line, hint

logger = logging.getLogger("autodo")

Colours = tuple[float, ...]

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of the channels of ImageNet, which most pretrained networks expect."""

HALF = (0.5, 0.5, 0.5)
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
# Of parallel and compiled networks, of Lightning, and of networks of this package.
_PREFIXES = ("module.", "_orig_mod.", "module.", "model.", "encoder.")
# Names in torchvision's files of densenets, which its own loading changes.
_OLD_NAMES = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
# Networks of torchvision that take images in [-1, 1] with its weights. There they convert those that are normalised as
# for ImageNet, which `libraries.make` leaves out.
_OF_TENSORFLOW = ("googlenet", "inception_v3")
# Parts of torchvision's files that its networks lack in `libraries.make`.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


class Pretrained(NamedTuple):
    """Weights, and the images that they expect.

    Args:
        state: tensors by name, as in the state of the network, or of its encoder.
        content: fingerprint.
        channels, size: of the images; None: unknown.
        mean, std: of the normalisation, for each channel in [0, 1]; None: unknown.
    """

    state: dict[str, Tensor]
    content: str
    channels: int | None = None
    size: int | None = None
    mean: Colours | None = None
    std: Colours | None = None


def read(name: str, weights: str) -> Pretrained:
    """Weights of a network.

    Args:
        weights: `DEFAULT`, or another name of the library that has the network, or a path.
    Raises:
        ConfigError: if there are no such weights. DataError: if they cannot be read.
    """
    path, folder = file_of(weights), weights_dir()
    files = [] if folder is None or not folder.is_dir() else sorted(folder.iterdir())
    if path is not None:
        files = [path]
    # The copies of a network, such as averaged weights, read it again.
    stamp = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file())
    return _read(name, weights, stamp)


@functools.lru_cache(maxsize=1)
def _read(name: str, weights: str, stamp: tuple[tuple[str, int, int], ...]) -> Pretrained:
    library, _, network = name.partition(":")
    path = file_of(weights)
    if path is not None:
        found = from_file(path, name)
        if found.mean is None and library_of(name) is not None:
            expected = _torchvision_inputs(network) if library == "torchvision" else _timm_inputs(network)
            return found._replace(channels=libraries.CHANNELS, **expected)
        return found
    if library_of(name) == "torchvision":
        return _of_torchvision(network, weights)
    if library_of(name) == "timm":
        return _of_timm(network, weights)
    raise ConfigError(
        f"model.weights {weights!r}: names are for networks of torchvision and timm; {name} needs a file, such as "
        "weights.safetensors or weights.pt"
    )


# ----- files


def from_file(path: StrPath, name: str) -> Pretrained:
    """Weights of a file: safetensors, a state of torch, or a classifier of AutoDO.

    Raises:
        DataError: if the file cannot be read or has no weights.
    """
    path = Path(path)
    content = file_content(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return Pretrained(load_file(path), content)
        except SafetensorError as error:
            raise DataError(f"model.weights {path}: is not a safetensors file: {error}") from None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DataError(
            f"model.weights {path}: holds more than weights, or is damaged, and is not read, because such a file can "
            "run code; save only the state, torch.save(network.state_dict(), PATH), or safetensors"
        ) from None
    except Exception as error:  # of many kinds for damaged files
        raise DataError(f"model.weights {path}: torch cannot read it: {first_line(error)}") from None
    if isinstance(found, Mapping) and "class_names" in found and "state" in found:
        return _of_classifier(found, content)
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = isinstance(found, Mapping) and all(isinstance(value, Tensor) for value in found.values())
    if not tensors or not found:
        raise DataError(f"model.weights {path}: has no weights: they are a state, tensors by name")
    state = {_OLD_NAMES.sub(r"\1\2", key): value for key, value in found.items()}
    channels = None
    if library_of(name) is None:
        # The first convolution reads the images.
        channels = next((value.shape[1] for value in state.values() if value.ndim == 4), None)
    return Pretrained(state, content, channels)


def _of_classifier(found: Mapping[str, Any], content: str) -> Pretrained:
    """Weights of a saved classifier's encoder."""
    state = found["state"]
    settings = found.get("network", {})
    encoder = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    mean, std = state["mean"].flatten(), state["std"].flatten()
    if {"scale", "shift"} <= encoder.keys():
        # The encoder computes scale (x - mean) / std + shift, which is one normalisation.
        scale, shift = encoder.pop("scale").flatten(), encoder.pop("shift").flatten()
        mean, std = mean - shift * std / scale, std / scale
        encoder = {key.removeprefix("network."): value for key, value in encoder.items()}
    return Pretrained(
        encoder,
        content,
        channels=settings.get("channels") or found["channels"],
        size=settings.get("size") or found["image_size"],
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
    )


# ----- libraries


def _of_torchvision(network: str, weights: str) -> Pretrained:
    known = _torchvision_weights(network, weights)
    file = known.url.rpartition("/")[2]
    given = _in_weights_dir(file)
    if given is not None:
        found = from_file(given, f"torchvision:{network}")
    else:
        state = _downloaded(
            f"model.weights {weights}: {file} of torchvision:{network}",
            lambda: known.get_state_dict(progress=False, check_hash=True, map_location="cpu"),
        )
        found = Pretrained({_OLD_NAMES.sub(r"\1\2", key): value for key, value in state.items()}, "")
    content = torchvision_content(network, weights)
    if "-is-" in content:
        logger.warning(
            "model.weights %s: %s of torchvision:%s has another hash than its name: it is another file",
            weights,
            file,
            network,
        )
    return found._replace(
        content=content,
        channels=libraries.CHANNELS,
        **_torchvision_inputs(network, weights),
    )


def torchvision_content(network: str, weights: str) -> str:
    """Name of the file of some weights, which ends in the first digits of its sha256.

    If the file is here and has another hash, this follows the name. Torchvision itself compares them only when it
    downloads a file.
    """
    file = _torchvision_weights(network, weights).url.rpartition("/")[2]
    name = file.rpartition(".")[0]
    here = _in_weights_dir(file) or Path(torch.hub.get_dir()) / "checkpoints" / file
    if not here.is_file():
        return str(name)
    found = file_content(here, hashlib.sha256())
    return str(name) if found.startswith(name.rpartition("-")[2]) else f"{name}-is-{found[:16]}"


def _in_weights_dir(name: str) -> Path | None:
    """The file of this name in `weights_dir`, if it is there."""
    folder = weights_dir()
    return folder / name if folder is not None and (folder / name).is_file() else None


def _torchvision_weights(network: str, weights: str) -> Any:
    from torchvision.models import get_model_weights

    known = get_model_weights(network)
    names = list(known.__members__)
    if weights not in names:
        raise ConfigError(
            f"model.weights {weights!r}: torchvision:{network} has no such weights{hint(weights, names)}; known: "
            f"{', '.join(names)}, or a file"
        )
    return known[weights]


def _torchvision_inputs(network: str, weights: str = "DEFAULT") -> dict[str, Any]:
    from torchvision.models import get_model_weights

    if weights not in get_model_weights(network).__members__:
        return {}
    seen = _torchvision_weights(network, weights).transforms()
    mean, std = (HALF, HALF) if network in _OF_TENSORFLOW else (tuple(seen.mean), tuple(seen.std))
    return {"size": seen.crop_size[0], "mean": mean, "std": std}


def _of_timm(network: str, weights: str) -> Pretrained:
    full = timm_name(network, weights)
    import timm

    there = (_in_weights_dir(f"{full}{suffix}") for suffix in (".safetensors", ".bin", ".pth", ".pt"))
    file = next(filter(None, there), None)
    overlay = None if file is None else {"file": str(file)}
    model = _downloaded(
        f"model.weights {weights}: those of timm:{full}",
        lambda: timm.create_model(full, pretrained=True, in_chans=libraries.CHANNELS, pretrained_cfg_overlay=overlay),
    )
    state = model.state_dict()
    return Pretrained(state, state_content(state), channels=libraries.CHANNELS, **_timm_inputs(full))


def timm_name(network: str, weights: str) -> str:
    """`resnet50.a1_in1k` for the network `resnet50` and the weights `a1_in1k`, or `DEFAULT` if they are the default.

    Raises:
        ConfigError: if timm has no such weights.
    """
    import timm

    architecture, _, tag = network.partition(".")
    names = [name for name in timm.list_pretrained(f"{architecture}*") if name.partition(".")[0] == architecture]
    tags = [name.partition(".")[2] for name in names]
    if weights != "DEFAULT" and tag not in ("", weights):
        raise ConfigError(f"model.weights {weights!r}: model.name timm:{network} names the weights {tag!r} already")
    wanted = tag if weights == "DEFAULT" else weights
    if not tag and weights == "DEFAULT" and names:
        default = timm.get_pretrained_cfg(architecture)
        wanted = (default.tag if default is not None else "") or tags[0]
    if wanted not in tags:
        known = ", ".join(tags) or "none"
        raise ConfigError(
            f"model.weights {weights!r}: timm:{architecture} has no such weights{hint(wanted, tags)}; known: DEFAULT, "
            f"{known}, or a file"
        )
    return f"{architecture}.{wanted}" if wanted else architecture


def _timm_inputs(network: str) -> dict[str, Any]:
    import timm

    seen = timm.get_pretrained_cfg(network, allow_unregistered=True)
    return {} if seen is None else {"size": seen.input_size[-1], "mean": tuple(seen.mean), "std": tuple(seen.std)}


def _downloaded(what: str, load: Callable[[], Any]) -> Any:
    """Load something of a library from its cache or the network.

    Raises:
        DataError: if it cannot.
    """
    # Each failed request has two lines in its log, and is repeated several times.
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        return load()
    except Exception as error:  # of many kinds: the libraries' and those of their connections
        raise DataError(
            f"{what} cannot be loaded: {type(error).__name__}: {first_line(error)}; where there is no network, put the "
            f"file into the library's cache, or into the folder of --weights-dir or {WEIGHTS_VARIABLE}"
        ) from error
    finally:
        log.setLevel(level)


def state_content(state: Mapping[str, Tensor]) -> str:
    """16 hex digits of the names, types, shapes and values of a state."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in state.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()


# ----- the network


def load_into(network: nn.Module, pretrained: Pretrained, head: str | None, where: str) -> None:
    """Give a network these weights, all but those of its head, whatever its classes are.

    Args:
        network: whose head was taken off.
        head: name of the head in the file; None: it has none.
        where: of the weights, for messages.
    Raises:
        DataError: if they do not fit.
    """
    wanted = network.state_dict()
    state = pretrained.state
    for prefix in _PREFIXES:
        if state.keys() & wanted.keys():
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    of_head = () if head is None else (f"{head}.",)
    state = {key: value for key, value in state.items() if not key.startswith(of_head)}
    state = {key: value for key, value in state.items() if key in wanted or not key.startswith(_AUXILIARY)}
    # Files of old versions of torch lack these counters.
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in wanted]
    other = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    # Counters and masks are not floating-point numbers, and have no NaN.
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    problems = []
    if broken:
        problems.append(f"{len(broken)} of {len(state)} tensors hold NaN or infinity, such as {broken[0]}")
    if missing:
        problems.append(f"{len(missing)} of {len(wanted)} tensors are missing, such as {missing[0]}")
    if unknown:
        problems.append(f"{len(unknown)} are unknown to the network, such as {unknown[0]}")
    if other:
        key = other[0]
        problems.append(
            f"{len(other)} have other shapes, such as {key}: {tuple(state[key].shape)}, not {tuple(wanted[key].shape)}"
        )
    if problems:
        raise DataError(f"{where}: are not those of this network: {'; '.join(problems)}")
    network.load_state_dict(wanted | state)
