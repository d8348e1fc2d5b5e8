import pytest
import torch

from autodo.points.table import PointTable


@pytest.mark.parametrize("columns", [1, 14])
def test_row_sparse_rmsprop_is_torchs_rmsprop(columns):
    generator = torch.Generator().manual_seed(0)
    rows, steps = 40, 500
    initial = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    table = PointTable(initial)
    dense = initial.clone().requires_grad_()
    optimizer = torch.optim.RMSprop([dense], lr=1.0)
    for step in range(steps):
        lr = 0.05 * (1 - step / steps)
        optimizer.param_groups[0]["lr"] = lr
        batch = torch.randperm(rows, generator=generator)[: int(torch.randint(1, 9, (), generator=generator))]
        gradient = torch.randn(len(batch), columns, generator=generator, dtype=torch.float64)
        dense.grad = torch.zeros_like(dense)
        dense.grad[batch] = gradient
        optimizer.step()
        table.rmsprop_step(batch, gradient, lr)
    difference = (table.values - dense.detach()).abs() / dense.detach().abs()
    assert difference.max() <= 1e-12
    assert (table.values - initial).abs().max() > 0.1, "the rows must have moved for this to show anything"


def test_a_step_touches_only_its_rows():
    table = PointTable(torch.zeros(5, 2))
    table.rmsprop_step(torch.tensor([3, 1]), torch.ones(2, 2), lr=0.1)
    assert table.values.any(1).tolist() == [False, True, False, True, False]


def test_state_survives_a_round_trip():
    table = PointTable(torch.zeros(5, 2))
    table.rmsprop_step(torch.tensor([3, 1]), torch.ones(2, 2), lr=0.1)
    copy = PointTable(torch.zeros(5, 2))
    copy.load_state_dict(table.state_dict())
    for each in (table, copy):
        each.rmsprop_step(torch.tensor([1, 0]), torch.full((2, 2), 0.5), lr=0.1)
    assert torch.equal(table.values, copy.values)
