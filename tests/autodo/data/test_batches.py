"""Batches of several workers are those of one, in size and in number."""

import pytest
import torch

from autodo.data.batches import epoch_batches, ordered_batches, shuffled_batches
from autodo.distributed.process_group import SINGLE_PROCESS
from autodo.testing.process_groups import FakeGroup


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("total", [7, 16, 45, 101])
@pytest.mark.parametrize("batch_size", [3, 5, 16, 200])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_parts_of_a_batch_make_the_batch(total, batch_size, size):
    everything = torch.arange(total)
    mine = [everything[rank::size] for rank in range(size)]
    workers = [FakeGroup(rank, size) for rank in range(size)]
    shuffled = [
        list(shuffled_batches(points, total, batch_size, generator(rank), worker))
        for rank, (points, worker) in enumerate(zip(mine, workers, strict=True))
    ]
    ordered = [
        list(ordered_batches(points, total, batch_size, worker)) for points, worker in zip(mine, workers, strict=True)
    ]
    alone = [len(batch) for batch in epoch_batches(everything, batch_size, generator())]
    in_order = [len(batch) for batch in everything.split(batch_size)]
    for batches, sizes in ((shuffled, alone), (ordered, in_order)):
        assert sorted(torch.cat([batch.points for worker in batches for batch in worker]).tolist()) == list(
            range(total)
        )
        for parts, whole in zip(zip(*batches, strict=True), sizes, strict=True):
            assert {part.size for part in parts} == {whole}
            assert sum(len(part.points) for part in parts) == whole
            assert max(len(part.points) for part in parts) - min(len(part.points) for part in parts) <= 1


def test_sizes_differ_by_at_most_one_and_order_is_random():
    batches = list(epoch_batches(torch.arange(100), 16, generator()))
    assert [len(batch) for batch in batches] == [15, 15, 14, 14, 14, 14, 14]
    order = torch.cat(batches)
    assert order.tolist() != sorted(order.tolist())
    assert torch.equal(order, torch.cat(list(epoch_batches(torch.arange(100), 16, generator()))))
    in_order = [batch.points.tolist() for batch in ordered_batches(torch.arange(5), 5, 2, SINGLE_PROCESS)]
    assert in_order == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_dropping_leaves_out_what_does_not_fill_a_batch(size):
    everything = torch.arange(45)
    workers = [FakeGroup(rank, size) for rank in range(size)]
    parts = [
        list(shuffled_batches(everything[rank::size], 45, 10, generator(rank), worker, drop_last=True))
        for rank, worker in enumerate(workers)
    ]
    together = [torch.cat([part.points for part in step]) for step in zip(*parts, strict=True)]
    assert [len(batch) for batch in together] == [10, 10, 10, 10]
    assert {part.size for worker in parts for part in worker} == {10}
    assert len(torch.cat(together).unique()) == 40
    other = torch.cat(
        [b.points for b in shuffled_batches(everything, 45, 10, generator(9), FakeGroup(0, 1), drop_last=True)]
    )
    assert set(other.tolist()) != set(torch.cat(together).tolist()), "other points in each epoch"
    few = list(shuffled_batches(torch.arange(7), 7, 10, generator(), FakeGroup(0, 1), drop_last=True))
    assert [len(batch.points) for batch in few] == [7], "a set that does not fill a batch is one"
