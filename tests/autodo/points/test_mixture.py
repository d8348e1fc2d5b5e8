import pytest
import torch
from torch import Tensor

from autodo.points.mixture import draw_offsets, mean_row

DOUBLE = torch.float64


def problem(rows: int, points: int = 6, width: int = 14) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [points, rows], rows and offsets [rows, width]."""
    generator = torch.Generator().manual_seed(rows)
    sizes = (points, rows), (rows, width)
    logits, values = (torch.randn(size, generator=generator, dtype=DOUBLE) for size in sizes)
    return logits, values, draw_offsets(rows, width, generator, DOUBLE)


@pytest.mark.parametrize("rows", [2, 3, 16])
def test_strengths_are_the_mean_of_the_rows_by_the_softmax_of_the_logits(rows):
    logits, values, offsets = problem(rows)
    shares = logits.exp() / logits.exp().sum(1, keepdim=True)
    effective = values + offsets - offsets.mean(0)
    expected = torch.stack([sum(p * row for p, row in zip(point, effective, strict=True)) for point in shares])
    torch.testing.assert_close(mean_row(logits, values, offsets), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 16, 33])
def test_equal_rows_and_logits_give_the_row_to_the_last_bit(rows, dtype):
    row = torch.randn(14, generator=torch.Generator().manual_seed(0), dtype=dtype)
    offsets = draw_offsets(rows, 14, torch.Generator().manual_seed(1), dtype)
    logits = torch.full((100, rows if rows > 1 else 0), 0.0, dtype=dtype)
    assert torch.equal(mean_row(logits, row.expand(rows, -1), offsets), row.expand(100, -1))


def test_one_row_is_the_row_of_all_points():
    row = torch.randn(1, 14, dtype=DOUBLE, requires_grad=True)
    strengths = mean_row(torch.empty(5, 0, dtype=DOUBLE), row, torch.randn(1, 14, dtype=DOUBLE))
    assert torch.equal(strengths, row.expand(5, -1))
    (gradient,) = torch.autograd.grad(strengths.sum(), row)
    assert gradient.tolist() == [[5.0] * 14]


def test_strengths_are_differentiable_in_logits_and_rows():
    logits, values, offsets = problem(3, points=2, width=4)
    leaves = logits.requires_grad_(), values.requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: mean_row(*given, offsets), leaves)


def test_offsets_make_points_choose_and_rows_part_at_once():
    """From equal rows and logits on, as at the start of training."""
    _, _, offsets = problem(3)
    logits, rows = torch.zeros(6, 3, dtype=DOUBLE), torch.zeros(3, 14, dtype=DOUBLE)
    upstream = torch.randn(6, 14, generator=torch.Generator().manual_seed(9), dtype=DOUBLE)
    for step in range(2):
        leaves = logits.clone().requires_grad_(), rows.clone().requires_grad_()
        of_logits, of_rows = torch.autograd.grad((mean_row(*leaves, offsets) * upstream).sum(), leaves)
        assert (of_logits.std(1) > 1e-3).all(), "each point prefers a row"
        apart = (of_rows - of_rows.mean(0)).abs().max()
        assert (apart > 1e-3) == (step > 0), "rows differ once points have chosen"
        logits, rows = logits - of_logits, rows - of_rows
