"""Random streams, derived from the seed of the run and a name, so that resuming needs no saved generator state."""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *names: str | int) -> int:
    """Derive a 63-bit seed for the stream `names`; different names or seeds give independent streams."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Make the numpy generator of the stream `names`."""
    return np.random.default_rng(derive(seed, *names))


def torch_generator(seed: int, *names: str | int, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """Make the torch generator of the stream `names`, on `device`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *names))


@contextlib.contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Make layers that are built in this block draw their initial weights from a seed.

    Layers draw from torch's global CPU generator, whose state is restored afterwards. The generators of GPUs are not
    touched, because reading their state would start CUDA even for a run on the CPU.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def seed_layers(seed: int, *names: str | int, device: "torch.device") -> None:
    """Make layers that draw random numbers, such as dropout, draw those of the stream `names` from now on.

    They draw from torch's global generators, of which those of the CPU and of the device are set.
    """
    import torch

    stream = derive(seed, *names)
    torch.default_generator.manual_seed(stream)
    if device.type == "cuda":
        number = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[number].manual_seed(stream)


@contextlib.contextmanager
def global_generators_kept(device: "torch.device") -> Iterator[None]:
    """Restore torch's global generators, of the CPU and of the device, after the block."""
    import torch

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def host_generator(generator: "torch.Generator") -> "torch.Generator":
    """Generator for numbers that the host needs: the generator itself on the CPU, else one derived from its state.

    Reading a random number from a GPU would wait for all of its work. Each call derives another stream,
    reproducibly for the same point of a run.
    """
    import torch

    if generator.device.type == "cpu":
        return generator
    state = generator.get_state()  # seed and offset, which are in host memory
    torch.rand((), generator=generator, device=generator.device)  # advances the offset
    digest = hashlib.sha256(state.numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
