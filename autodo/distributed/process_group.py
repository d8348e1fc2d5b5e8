"""The processes that train one run together, through torch.distributed; ALONE is the usual single process.

What is split among them is dealt like cards: thing j of a sequence goes to worker j % size. So every worker knows how
many things each has without asking, and any stretch of the sequence is split as evenly as can be.
"""

import inspect
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


class ProcessGroup:
    """A process alone. `Group` is one of several; every method of it must be called by all of them, in the same order.

    A worker that ends in between leaves the others waiting; whoever started them has to stop them.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this worker is the one that writes what all of them know."""
        return self.rank == 0

    @property
    def stream(self) -> tuple[str | int, ...]:
        """Name of this worker's random streams, so that no two draw the same; nothing for a process alone."""
        return ()

    # ----- what a worker has of a sequence

    def shard(self, things: NDArray[Any]) -> NDArray[Any]:
        """This worker's things. Shape: [N, ...] -> [n, ...]."""
        return things[self.rank :: self.size]

    def shard_size(self, count: int) -> int:
        """How many of the first `count` things this worker has."""
        return len(range(self.rank, count, self.size))

    def all_gather(self, dealt: Tensor, total: int) -> Tensor:
        """All workers' things in their order before they were dealt. Shape: [n] -> [total]."""
        return dealt

    def unshard(self, hands: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """All things in their order before they were dealt. Shape: [n, ...] of each worker -> [N, ...]."""
        things = np.empty((sum(map(len, hands)), *hands[0].shape[1:]), hands[0].dtype)
        for rank, hand in enumerate(hands):
            things[rank :: self.size] = hand
        return things

    # ----- what they tell each other

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over the workers, the same to the last bit on all of them."""
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        """The first worker's tensor."""
        return tensor

    def all_reduce_max(self, number: int) -> int:
        """The largest of the workers' numbers."""
        return number

    def all_true(self, condition: bool) -> bool:
        """Whether the condition holds on every worker."""
        return condition

    def broadcast_object(self, thing: T) -> T:
        """What the first worker has."""
        return thing

    def gather(self, thing: T) -> Sequence[T]:
        """What each worker has, on the first one; nothing on the others."""
        return [thing]

    def wrap_ddp(self, encoder: nn.Module, head: nn.Module) -> nn.Module:
        """The network for training: images -> logits.

        With several workers, batch norm uses the statistics of the whole batch (`encoder` changes in place, not the
        names of its state), and a backward pass leaves the mean over the workers of each gradient.
        """
        return nn.Sequential(encoder, head)


class TorchProcessGroup(ProcessGroup):
    """One of the workers of torch.distributed's default process group: gloo for CPUs, NCCL for GPUs.

    With NCCL each worker has a GPU of its own, made the current one by torch.cuda.set_device.
    """

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    @property
    def stream(self) -> tuple[str | int, ...]:
        return ("worker", self.rank, "of", self.size)

    def all_gather(self, dealt: Tensor, total: int) -> Tensor:
        rounds = -(-total // self.size)
        padded = torch.cat([dealt, dealt.new_zeros(rounds - len(dealt))])
        hands = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(hands, padded)
        return torch.stack(hands, 1).reshape(-1)[:total]

    def all_reduce(self, tensor: Tensor) -> Tensor:
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def broadcast(self, tensor: Tensor) -> Tensor:
        copy = tensor.detach().clone()
        dist.broadcast(copy, src=0)
        return copy

    def all_reduce_max(self, number: int) -> int:
        return max(self._everyones(number))

    def all_true(self, condition: bool) -> bool:
        return all(self._everyones(condition))

    def broadcast_object(self, thing: T) -> T:
        things = [thing]
        dist.broadcast_object_list(things, src=0)
        return things[0]

    def gather(self, thing: T) -> Sequence[T]:
        things: list[Any] | None = [None] * self.size if self.is_first else None
        dist.gather_object(thing, things)
        return things or []

    def wrap_ddp(self, encoder: nn.Module, head: nn.Module) -> nn.Module:
        # Here, because it imports torch's compiler, which takes a second.
        from autodo.distributed.batch_norm import share_statistics

        network = nn.Sequential(share_statistics(encoder, self.all_reduce), head)
        # Statistics of the whole batch are the same everywhere, so no buffer need be sent at each step. The option has
        # a new name since torch 2.15.
        known = inspect.signature(DistributedDataParallel).parameters
        send = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {send: False, "gradient_as_bucket_view": True}
        return DistributedDataParallel(network, **options)

    def _everyones(self, thing: T) -> list[T]:
        things: list[Any] = [None] * self.size
        dist.all_gather_object(things, thing)
        return things


SINGLE_PROCESS = ProcessGroup()


def current_process_group() -> ProcessGroup:
    """The workers of the default process group that this process has joined; ALONE without one, or alone in it.

    So one script trains with one process or with many, whoever started them and made the group.
    """
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return TorchProcessGroup()
    return SINGLE_PROCESS
