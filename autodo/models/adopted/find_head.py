"""The final linear layer of a network, found by computing a few random images."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from autodo.errors import ConfigError
from autodo.text import first_line, hint

APPEND = "append"
"""Name of a head that is put on the outputs of the whole network."""
PROBES = 2
"""Images that are computed; batch norm needs more than one."""


class Split(NamedTuple):
    """The place where a network ends."""

    head: str
    """Dotted name of its final linear layer, or `APPEND`."""
    channels: int
    """Channels of the images that it takes."""
    features: int
    """Inputs of the head."""
    outputs: Tensor
    """Of the whole network in eval mode, for the images of the probe."""


def split_of(network: nn.Module, name: str, head: str | None, channels: Sequence[int], size: int) -> Split:
    """Find the head of a network, whose weights and statistics do not change.

    The head is the linear layer whose output the network returns.

    Args:
        name: of the network, for messages.
        head: dotted name of the head, which is then checked, or `APPEND`; None: found.
        channels: numbers of channels that the images may have, the preferred one first.
    Raises:
        ConfigError: if the network does not take such images or returns no logits, or the layer is not its head.
    """
    with _undisturbed(network):
        taken, result, layers = _first_that_works(network.eval(), name, channels, size)
        _check_logits(result, name, "eval")
        in_training, layers_in_training = _in_train_mode(network, name, taken, size)
    if head == APPEND:
        return Split(APPEND, taken, result.shape[1], result)
    last = _last(network, layers, result)
    if head is not None:
        found = _named(network, name, head)
        if not _same(layers.get(found), result):
            raise ConfigError(f"{name}: model.head {head!r}: the network does not return the outputs of this layer")
    elif last is None or not isinstance(last[1], nn.Linear) or layers[last[0]].ndim != 2:
        raise ConfigError(
            f"{name}: its outputs come from {_source(last)}, not from a linear layer (nn.Linear); let it return the "
            f"logits of one, or set model.head={APPEND}, which puts a linear layer on its outputs"
        )
    else:
        found = last[0]
    if not _same(layers_in_training.get(found), in_training):
        raise ConfigError(
            f"{name}: in train mode it does not return the outputs of its head {found}, but changes them, perhaps by "
            f"dropout; let it return the logits, or set model.head={APPEND}"
        )
    return Split(found, taken, network.get_submodule(found).in_features, result)  # type: ignore[arg-type]


def check_encoder(network: nn.Module, head: nn.Linear, split: Split, name: str, size: int) -> None:
    """Check that a network without its head computes the inputs of that head.

    Raises:
        ConfigError: if not, because it uses the layer in other places, too.
    """
    problem = ""
    with _undisturbed(network), torch.no_grad():
        try:
            features = network.eval()(_images(split.channels, size))
            same = torch.allclose(head(features), split.outputs, rtol=1e-4, atol=1e-5)
        except Exception as error:  # the network may raise anything
            same, problem = False, f" ({type(error).__name__}: {first_line(error)})"
    if not same:
        raise ConfigError(
            f"{name}: its head {split.head} cannot be taken off: without it the network does not compute the inputs of "
            f"the head{problem}, perhaps because it uses the layer more than once; set model.head={APPEND}"
        )


@contextlib.contextmanager
def _undisturbed(network: nn.Module) -> Iterator[None]:
    """Restore torch's random numbers and the mode of the network after the block."""
    was_training = network.training
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        network.train(was_training)


def _source(last: tuple[str, nn.Module] | None) -> str:
    """Origin of the outputs of a network that does not end in a linear layer."""
    if last is None:
        return "a calculation after its last layer"
    name, layer = last
    return f"its layer {name} ({type(layer).__name__})" if name else "a calculation of its own"


def _first_that_works(
    network: nn.Module, name: str, channels: Sequence[int], size: int
) -> tuple[int, Any, dict[str, Any]]:
    first: Exception = ConfigError("no number of channels is possible")
    for count in channels:
        layers: dict[str, Any] = {}
        try:
            with _recording(network, layers), torch.no_grad():
                return count, network(_images(count, size)), layers
        except Exception as error:  # the network may raise anything
            first = error if count == channels[0] else first
    raise ConfigError(
        f"{name}: cannot take images of {channels[0]} x {size} x {size} ({first_line(first)}); model.input_size, such "
        "as 224, sets the size to which they are resized"
    ) from first


def _check_logits(result: Any, name: str, mode: str) -> None:
    if not isinstance(result, Tensor):
        raise ConfigError(
            f"{name}: returns a {type(result).__name__} in {mode} mode, not one tensor of logits; switch its other "
            "outputs off, or give a module whose forward returns the logits alone"
        )
    if result.ndim != 2 or len(result) != PROBES or not result.is_floating_point():
        raise ConfigError(
            f"{name}: returns a tensor of {result.dtype} {tuple(result.shape)} for {PROBES} images in {mode} mode, not "
            "of floats [images, classes]"
        )
    if not result.isfinite().all():
        raise ConfigError(f"{name}: its outputs in {mode} mode are NaN or infinite, for {PROBES} images of noise")


def _in_train_mode(network: nn.Module, name: str, channels: int, size: int) -> tuple[Tensor, dict[str, Any]]:
    """Outputs in train mode, and those of each layer."""
    buffers = {key: value.clone() for key, value in network.named_buffers()}
    layers: dict[str, Any] = {}
    network.train()
    try:
        with _recording(network, layers), torch.no_grad():
            result = functional_call(network, buffers, (_images(channels, size),))
    except Exception as error:  # the network may raise anything
        raise ConfigError(f"{name}: fails in train mode: {type(error).__name__}: {first_line(error)}") from error
    _check_logits(result, name, "train")
    return result, layers


def _images(channels: int, size: int) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(b"images for a probe").digest()[:4], "big")
    return torch.randn(PROBES, channels, size, size, generator=torch.Generator().manual_seed(seed))


@contextlib.contextmanager
def _recording(network: nn.Module, layers: dict[str, Any]) -> Iterator[None]:
    """Within the block, the last output of each layer that has no layers inside is kept by its name, in call order."""

    def keep(name: str, output: Any) -> None:
        layers.pop(name, None)
        layers[name] = output

    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: keep(name, output))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) or not list(module.children())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _last(network: nn.Module, layers: dict[str, Any], result: Tensor) -> tuple[str, nn.Module] | None:
    """The layer whose output the network returns; None if it changes the output of its last one."""
    for name, output in reversed(layers.items()):
        layer = network.get_submodule(name)
        if _same(output, result) and not isinstance(layer, nn.Identity):
            return name, layer
    return None


def _same(output: Any, result: Tensor) -> bool:
    """Whether a layer returned the result, perhaps with positions that were flattened away since."""
    same_size = isinstance(output, Tensor) and output.numel() == result.numel()
    return same_size and torch.equal(output.reshape(result.shape), result)


def _named(network: nn.Module, name: str, head: str) -> str:
    linear = [path for path, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if head not in linear:
        known = ", ".join(linear[-5:]) or "none"
        raise ConfigError(
            f"{name}: model.head {head!r} is no linear layer of it{hint(head, linear)}; its last ones: {known}; "
            f"{APPEND!r} puts one on its outputs"
        )
    return head
