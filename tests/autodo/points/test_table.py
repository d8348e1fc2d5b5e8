"""Table against dense RMSprop, for every storage."""

import os
from mmap import PAGESIZE

import pytest
import torch

from autodo.errors import ConfigError
from autodo.points.rounding import round_stochastically
from autodo.points.row_store import MAX_PENDING_WRITES, StagedStore, _page_ranges
from autodo.points.table import PointTable
from autodo.points.table_storage import TableStorage

STORAGES = ["device", "host", "file"]


def table_of(initial: torch.Tensor, storage: str = "device", widths: tuple[int, ...] | None = None, **options):
    widths = widths or (initial.shape[1],)
    return PointTable(
        initial.__getitem__, len(initial), widths, dtype=initial.dtype, storage=TableStorage(storage), **options
    )


def staged(table: PointTable) -> PointTable:
    """Read and write a table as for training on another device."""
    table._store = StagedStore(table._store.columns, {}, "cpu")
    return table


def test_epsilon_is_that_of_torch_rmsprop():
    initial = torch.zeros(3, 2, dtype=torch.float64)
    gradient = torch.tensor([[1e-9, -3e-9], [2e-8, 1e-12], [0.1, 1.0]], dtype=torch.float64)
    for eps, small in ((1e-8, 0.1), (1e-12, 10)):
        table, dense = table_of(initial, eps=eps), initial.clone().requires_grad_()
        optimizer = torch.optim.RMSprop([dense], lr=1.0, eps=eps)
        dense.grad = gradient
        optimizer.step()
        table.rmsprop_step(torch.arange(3), gradient, 1.0)
        torch.testing.assert_close(table.values, dense.detach(), rtol=1e-12, atol=0)
        assert -table.values[0, 0] == pytest.approx(small, rel=0.02)


@pytest.mark.parametrize("storage", [*STORAGES, "staged"])
@pytest.mark.parametrize("columns", [1, 14])
def test_row_sparse_rmsprop_equals_torch_rmsprop(columns, storage):
    generator = torch.Generator().manual_seed(0)
    rows, steps = 40, 500
    initial = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    table = staged(table_of(initial)) if storage == "staged" else table_of(initial, storage)
    dense = initial.clone().requires_grad_()
    optimizer = torch.optim.RMSprop([dense], lr=1.0)
    batches = [
        torch.randperm(rows, generator=generator)[: int(torch.randint(1, 9, (), generator=generator))]
        for _ in range(steps)
    ]
    for step, batch in enumerate(batches):
        lr = 0.05 * (1 - step / steps)
        optimizer.param_groups[0]["lr"] = lr
        following = batches[(step + 1) % steps]
        # Consecutive batches share rows, which must not be read before they are written.
        table.will_need(following, for_update=True)
        table.prefetch(following, following, for_update=step % 2 == 0)
        if step % 3:
            assert torch.equal(table.rows(batch), table.values[batch])
        gradient = torch.randn(len(batch), columns, generator=generator, dtype=torch.float64)
        dense.grad = torch.zeros_like(dense)
        dense.grad[batch] = gradient
        optimizer.step()
        table.rmsprop_step(batch, gradient, lr)
    difference = (table.values - dense.detach()).abs() / dense.detach().abs()
    assert difference.max() <= 1e-12
    assert (table.values - initial).abs().max() > 0.1, "the test needs rows that change"


def test_pending_writes_are_never_read_in_their_old_state():
    table = staged(table_of(torch.zeros(9, 2)))
    for row in range(5):
        table.rmsprop_step(torch.tensor([row]), torch.ones(1, 2), lr=0.1)
    column = table._store.columns["values"]
    assert column.any(1).tolist() == [row < 5 - MAX_PENDING_WRITES for row in range(9)], (
        "the last ones are on their way"
    )
    assert table.rows(torch.tensor([4, 7])).any(1).tolist() == [True, False]
    assert column.any(1).tolist() == [row < 5 for row in range(9)]


@pytest.mark.parametrize("storage", STORAGES)
def test_a_step_touches_only_its_rows(storage):
    table = table_of(torch.zeros(5, 2), storage)
    table.rmsprop_step(torch.tensor([3, 1]), torch.ones(2, 2), lr=0.1)
    assert table.values.any(1).tolist() == [False, True, False, True, False]
    assert table.last_touched.tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_masked_rows_are_as_if_not_given(storage, precision):
    options = {"precision": precision, "rounding": bits_of}
    generator = torch.Generator().manual_seed(0)
    table, oracle = (table_of(torch.linspace(-1, 1, 12).view(6, 2), storage, **options) for _ in range(2))
    for batch in ([0, 1, 2, 3], [5, 2, 0], [4, 1]):
        index, gradient = torch.tensor(batch), torch.randn(len(batch), 2, generator=generator)
        mask = index % 3 > 0
        before = {name: column.clone() for name, column in table._store.columns.items()}
        table.rmsprop_step(index, gradient, 0.1, mask)
        oracle.rmsprop_step(index[mask], gradient[mask], 0.1)
        for name in before:
            column = table.state_dict()[name]
            assert torch.equal(column[::3], before[name][::3]), name
            if precision == "fp32":  # rounding noise depends on the position in the batch
                assert torch.equal(column, oracle.state_dict()[name]), name
    assert table.last_touched.tolist() == [0, 3, 2, 0, 3, 2]
    torch.testing.assert_close(table.pop_update_sum(), oracle.pop_update_sum(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("other", STORAGES)
def test_state_survives_a_round_trip(storage, other):
    initial = torch.linspace(-1, 1, 10).view(5, 2)
    table, copy = table_of(initial, storage), table_of(initial, other)
    assert table.state_dict() == {"steps": 0}, "an untouched table takes no space"
    copy.load_state_dict(table.state_dict())
    assert torch.equal(copy.values, initial)
    table.rmsprop_step(torch.tensor([3, 1]), torch.ones(2, 2), lr=0.1)
    copy.load_state_dict(table.state_dict())
    for each in (table, copy):
        each.rmsprop_step(torch.tensor([1, 0]), torch.full((2, 2), 0.5), lr=0.1)
    assert torch.equal(table.values, copy.values)
    copy.load_state_dict({"steps": 0})
    assert torch.equal(copy.values, initial)


def test_the_update_sum_shows_values_that_are_not_finite():
    table = table_of(torch.zeros(5, 2))
    table.rmsprop_step(torch.tensor([3, 1]), torch.ones(2, 2), lr=0.1)
    assert float(table.pop_update_sum()) == pytest.approx(float(table.values.sum()))
    table.rmsprop_step(torch.tensor([2]), torch.tensor([[1.0, torch.inf]]), lr=0.1)
    assert not table.pop_update_sum().isfinite()
    assert table.pop_update_sum() == 0


def test_mean_of_squares_per_part():
    generator = torch.Generator().manual_seed(0)
    initial = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    table = table_of(initial, widths=(2, 3), square_average="part")
    values, square = initial.clone(), torch.zeros(6, 5, dtype=torch.float64)
    for _ in range(50):
        batch = torch.randperm(6, generator=generator)[:2]
        gradient = torch.randn(2, 5, generator=generator, dtype=torch.float64)
        table.rmsprop_step(batch, gradient, lr=0.05)
        squared = torch.zeros(6, 5, dtype=torch.float64)
        squared[batch] = gradient**2
        for part in (slice(0, 2), slice(2, 5)):
            square[:, part] = 0.99 * square[:, part] + 0.01 * squared[:, part].mean(1, keepdim=True)
        values[batch] -= 0.05 * gradient / (square[batch].sqrt() + 1e-8)
    torch.testing.assert_close(table.values, values, rtol=1e-12, atol=0)
    assert table.square_average.shape == (6, 2)


def test_a_file_too_large_for_the_disk_is_refused():
    with pytest.raises(ConfigError, match=r"no room for a file of 4503599.6 GB"):
        TableStorage("file").allocate((2**40, 2**10), torch.float32)
    with pytest.raises(ConfigError, match=r"/nowhere/at/all has no room"):
        TableStorage("file", "/nowhere/at/all").allocate((1, 1), torch.float32)


@pytest.mark.parametrize("size", [4, 96, 4056, 5000])
def test_advised_pages_cover_the_rows_without_repetition(size):
    index = torch.randperm(3000, generator=torch.Generator().manual_seed(0))[:100].sort().values
    pages = [
        page for first, last in _page_ranges(index * size, size) for page in range(first // PAGESIZE, last // PAGESIZE)
    ]
    bytes_of = {byte // PAGESIZE for row in index.tolist() for byte in range(row * size, (row + 1) * size)}
    assert pages == sorted(bytes_of)


def test_rows_of_a_file_larger_than_memory_are_advised(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 1)  # one page of memory
    table = table_of(torch.zeros(5000, 3), "file")
    table.will_need(torch.tensor([4999, 0, 17]), for_update=True)
    table.rmsprop_step(torch.tensor([4999]), torch.ones(1, 3), lr=0.1)
    assert table.values.any(1).nonzero().tolist() == [[4999]]


# ----- 16 bits


def bits_of(step: int) -> torch.Generator:
    return torch.Generator().manual_seed(step)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float16, 11), (torch.bfloat16, 8)])
def test_stochastic_rounding_gives_a_neighbour_and_the_expected_mean(dtype, digits):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40, generator=generator) * torch.logspace(-3, 3, 40)
    noise = torch.empty(20_000, 40, dtype=torch.int32).random_(generator=generator)
    rounded = round_stochastically(values.expand_as(noise), dtype, noise).double()
    step = 2.0 ** (values.double().abs().log2().floor() - digits + 1)
    assert ((rounded - values).abs() < step).all()
    assert ((rounded.mean(0) - values).abs() < 6 * step / 20_000**0.5).all()
    exact = values.to(dtype)
    assert torch.equal(round_stochastically(exact.float().expand_as(noise), dtype, noise), exact.expand_as(noise))


@pytest.mark.parametrize(("lr", "touched"), [(0.05, 4), (1e-4, 4), (0.005, 40)])
def test_16_bits_stay_close_to_32_over_thousands_of_steps(lr, touched):
    """Small steps are the hard case: rounding to nearest would lose every one of them."""
    generator = torch.Generator().manual_seed(0)
    initial = torch.randn(40, 8, generator=generator)
    full = table_of(initial)
    half = table_of(initial, precision="fp16", rounding=bits_of)
    drift = torch.randn(40, 8, generator=generator)
    for _ in range(4000):
        batch = torch.randperm(40, generator=generator)[:touched]
        gradient = drift[batch] + torch.randn(touched, 8, generator=generator)
        for table in (full, half):
            table.rmsprop_step(batch, gradient, lr)
    moved = full.values - initial
    error = half.values - full.values
    # A rounding error is half a unit in the last of 11 digits; errors add up like a random walk.
    bound = 2**-11 * (4000 * touched / 40) ** 0.5
    assert error.square().mean().sqrt() < bound * moved.square().mean().sqrt()
    assert half.state_dict()["values"].dtype == torch.float16
    assert half.state_dict()["square_average"].dtype == torch.bfloat16
