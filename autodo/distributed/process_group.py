"""The process group that trains one run: torch.distributed, or `SINGLE_PROCESS` for the usual single process.

Sequences are sharded round-robin: item j goes to rank j % size. Every rank thus knows the size of each shard without
communication, and any contiguous part of the sequence is spread as evenly as possible.
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
    """A single process, and the interface of several (`TorchProcessGroup`).

    All processes must call the same methods in the same order. If one of them ends in between, the others wait until
    they are stopped from outside.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes what all of them know."""
        return self.rank == 0

    @property
    def stream(self) -> tuple[str | int, ...]:
        """Suffix for the names of this process's random streams; empty for a single process."""
        return ()

    # ----- shards of a sequence

    @property
    def shard(self) -> slice:
        """Slice that selects this process's items of a sequence."""
        return slice(self.rank, None, self.size)

    def shard_size(self, count: int) -> int:
        """Number of items of this process among the first `count` items."""
        return len(range(self.rank, count, self.size))

    def all_gather(self, shard: Tensor, total: int) -> Tensor:
        """The whole sequence, in order, on every process. Shape: [n, ...] -> [total, ...]."""
        return shard

    def unshard(self, shards: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The whole sequence, in order, from the shards of all ranks. Shape: [n, ...] of each -> [N, ...]."""
        items = np.empty((sum(map(len, shards)), *shards[0].shape[1:]), shards[0].dtype)
        for rank, shard in enumerate(shards):
            items[rank :: self.size] = shard
        return items

    # ----- communication

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum over the processes, the same to the last bit on all of them."""
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        """The first process's tensor."""
        return tensor

    def all_reduce_max(self, number: int) -> int:
        """The largest of the processes' numbers."""
        return number

    def all_true(self, condition: bool) -> bool:
        """Whether the condition holds on every process."""
        return condition

    def broadcast_object(self, value: T) -> T:
        """The first process's value."""
        return value

    def gather(self, value: T) -> Sequence[T]:
        """The values of all ranks on the first process; an empty sequence on the others."""
        return [value]

    def wrap_ddp(self, encoder: nn.Module, head: nn.Module) -> nn.Module:
        """The network for training: images -> logits.

        With several processes, batch norm uses the statistics of the whole batch (`encoder` is modified in place; its
        state keeps its names), and a backward pass leaves the mean over the processes of each gradient.
        """
        return nn.Sequential(encoder, head)


class TorchProcessGroup(ProcessGroup):
    """The default process group of torch.distributed: gloo on CPUs, NCCL on GPUs.

    On GPUs initialise it with the backend `cpu:gloo,cuda:nccl`: with `nccl` alone objects are pickled into memory of
    the GPU. Each process has a GPU of its own, set by torch.cuda.set_device.
    """

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    @property
    def stream(self) -> tuple[str | int, ...]:
        return ("worker", self.rank, "of", self.size)

    def all_gather(self, shard: Tensor, total: int) -> Tensor:
        rounds = -(-total // self.size)
        padded = torch.cat([shard, shard.new_zeros(rounds - len(shard), *shard.shape[1:])])
        shards = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(shards, padded)
        return torch.stack(shards, 1).flatten(0, 1)[:total]

    def all_reduce(self, tensor: Tensor) -> Tensor:
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def broadcast(self, tensor: Tensor) -> Tensor:
        copy = tensor.detach().clone()
        dist.broadcast(copy, src=0)
        return copy

    def all_reduce_max(self, number: int) -> int:
        return max(self._all_gather_object(number))

    def all_true(self, condition: bool) -> bool:
        return all(self._all_gather_object(condition))

    def broadcast_object(self, value: T) -> T:
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def gather(self, value: T) -> Sequence[T]:
        values: list[Any] | None = [None] * self.size if self.is_first else None
        dist.gather_object(value, values)
        return values or []

    def wrap_ddp(self, encoder: nn.Module, head: nn.Module) -> nn.Module:
        # Here, because it imports torch's compiler, which takes a second.
        from autodo.distributed.batch_norm import share_statistics

        network = nn.Sequential(share_statistics(encoder, self.all_reduce), head)
        # Statistics of the whole batch are equal on all ranks, so buffers need not be sent at each step. The option has
        # a new name since torch 2.15.
        known = inspect.signature(DistributedDataParallel).parameters
        send = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {send: False, "gradient_as_bucket_view": True}
        return DistributedDataParallel(network, **options)

    def _all_gather_object(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


SINGLE_PROCESS = ProcessGroup()


def current_process_group() -> ProcessGroup:
    """torch's default process group; SINGLE_PROCESS if there is none, or only this process is in it.

    So one script trains with one process or with many, however they were started.
    """
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return TorchProcessGroup()
    return SINGLE_PROCESS
