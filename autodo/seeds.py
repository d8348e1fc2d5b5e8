"""Every random stream derives from the run's seed and a name, so a resumed run needs no saved generator state."""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names`; streams of different names or seeds are independent."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """numpy generator of the stream called `names`."""
    return np.random.default_rng(derive(seed, *names))


def torch_generator(seed: int, *names: str | int, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """torch generator of the stream called `names`, on `device`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *names))


@contextlib.contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Layers that are made here, in host memory, draw their initial weights from this seed.

    They draw from torch's global generator, which is afterwards as it was. Those of GPUs are left alone: to ask for
    their state would start CUDA, also where a run trains on the CPU.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def host_generator(generator: "torch.Generator") -> "torch.Generator":
    """For numbers that the host must know: the generator itself if it is in host memory, else one that derives from it.

    Asked for such a number a GPU would finish all of its work first. What derives from a GPU's generator is another
    stream each time, and the same again in the same place of a run.
    """
    import torch

    if generator.device.type == "cpu":
        return generator
    state = generator.get_state()  # seed and offset, which are kept in host memory
    torch.rand((), generator=generator, device=generator.device)  # the offset is another one the next time
    digest = hashlib.sha256(state.numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
