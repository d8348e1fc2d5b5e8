import math

import pytest
import torch
from sklearn.datasets import load_sample_image
from torch.nn import functional as F

from autodo.augment import affine


def photo(size: int = 32) -> torch.Tensor:
    """A real photograph's crop. Shape: [1, 3, size, size] float64 in [0, 1]."""
    crop = load_sample_image("china.jpg")[100 : 100 + 4 * size : 4, 200 : 200 + 4 * size : 4]
    pixels = torch.from_numpy(crop.copy())
    return (pixels.permute(2, 0, 1)[None] / 255).double()


def magnitude(**values: float) -> torch.Tensor:
    names = [name.replace("-", "_") for name in affine.WARP_OPERATIONS]
    return torch.tensor([[values.get(name, 0.0) for name in names]], dtype=torch.float64)


def test_no_magnitude_is_the_identity():
    torch.testing.assert_close(affine.warp(photo(), magnitude()), photo(), rtol=0, atol=1e-12)


def test_translation_by_whole_pixels_shifts_right_and_down():
    moved = affine.warp(photo(), magnitude(translate_x=3 / 32, translate_y=-5 / 32))
    expected = torch.zeros_like(photo())
    expected[:, :, :-5, 3:] = photo()[:, :, 5:, :-3]
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-10)


def test_quarter_turn_is_counter_clockwise():
    torch.testing.assert_close(
        affine.warp(photo(), magnitude(rotate=math.pi / 2)), photo().rot90(1, (2, 3)), rtol=0, atol=1e-10
    )


# Sizes even, odd and oblong, one of a single row; gray and colour.
SHAPES = [(3, 32, 32), (1, 28, 28), (1, 9, 9), (3, 20, 36), (1, 1, 7)]


def alone_and_together(generator: torch.Generator) -> list[tuple[list[int], torch.Tensor]]:
    """Columns that are not zero, with magnitudes of 6 images; each column alone, then all. Shape: of each [6, 7]."""
    columns = [[column] for column in range(len(affine.WARP_OPERATIONS))] + [list(range(len(affine.WARP_OPERATIONS)))]
    drawn = []
    for some in columns:
        value = torch.zeros(6, len(affine.WARP_OPERATIONS), dtype=torch.float64)
        value[:, some] = 0.3 * torch.randn(6, len(some), generator=generator, dtype=torch.float64)
        drawn.append((some, value))
    return drawn


def test_kornia_composes_the_same_warp_with_the_same_gradients():
    """Up to rounding errors of the positions, times the slope of the image, which is up to 1 a pixel.

    Measured are 2e-14 in float64 and 1e-5 in float32, and 1e-14 of the largest gradient. Gradients are compared in
    float64 alone: they jump where a position crosses the centre of a pixel, which a rounding error of float32 may do.
    """
    generator = torch.Generator().manual_seed(0)
    for channels, height, width in SHAPES:
        images = torch.rand(6, channels, height, width, generator=generator, dtype=torch.float64)
        upstream = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        for columns, magnitude in alone_and_together(generator):
            where = f"{channels}x{height}x{width}, columns {columns}"
            short = [warp(images.float(), magnitude.float()) for warp in affine.WARPS.values()]
            assert (short[0] - short[1]).abs().max() <= 1e-4, where
            leaves = images.clone().requires_grad_(), magnitude.requires_grad_()
            fused, kornia = (affine.WARPS[name](*leaves) for name in ("fused", "kornia"))
            assert (fused - kornia).abs().max() <= 1e-12, where
            ours, theirs = (torch.autograd.grad((result * upstream).sum(), leaves) for result in (fused, kornia))
            assert (ours[0] - theirs[0]).abs().max() <= 1e-11, where
            # Magnitudes of 0 leave pixels at the centres of pixels, where the last bit chooses the derivative's side.
            difference = (ours[1] - theirs[1])[:, columns].abs().max()
            assert difference <= 1e-11 * (1 + ours[1][:, columns].abs().max()), where


def test_each_image_has_its_own_warp():
    images = photo().expand(2, -1, -1, -1)
    warped = affine.warp(images, torch.cat([magnitude(), magnitude(rotate=math.pi)]))
    torch.testing.assert_close(warped[0], images[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(warped[1], images[1].rot90(2, (1, 2)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", list(affine.WARPS))
def test_the_edge_moves_in_as_if_the_image_went_on(name):
    """Equals the middle of a warped larger image whose margin repeats the edge."""
    reach, side = 24, 16
    image = torch.rand(3, 2, side, side, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    drawn = 0.15 * torch.randn(3, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    large = F.pad(image, (reach,) * 4, mode="replicate")
    shares = torch.ones(7, dtype=torch.float64)
    shares[3:5] = side / (side + 2 * reach)  # translations are shares of the side
    expected = affine.warp(large, drawn * shares)[:, :, reach:-reach, reach:-reach]
    warp = affine.WARPS[name]
    torch.testing.assert_close(warp(image, drawn, "edge"), expected, rtol=0, atol=1e-9)
    assert (warp(image, drawn, "edge") - warp(image, drawn, "zeros")).abs().max() > 0.1


@pytest.mark.parametrize("name", list(affine.WARPS))
def test_warp_is_differentiable_in_the_magnitudes(name):
    generator = torch.Generator().manual_seed(4)
    drawn = (0.2 * torch.randn(2, 7, generator=generator, dtype=torch.float64)).requires_grad_()
    smooth = torch.nn.functional.avg_pool2d(photo(12), 3, 1, 1)[:, :1].expand(2, -1, -1, -1)
    assert torch.autograd.gradcheck(lambda m: affine.WARPS[name](smooth, m), (drawn,), atol=1e-6)


def test_gates_open_with_their_probability_and_closed_gates_do_nothing():
    lam = affine.initial_row(0.25).double().expand(20_000, -1)
    drawn = affine.magnitudes(lam, affine.draw_noise(20_000, torch.Generator().manual_seed(0), torch.float64))
    open_share = (drawn != 0).double().mean(0)
    assert (open_share - 0.25).abs().max() < 0.015
    deviation = torch.stack([column[column != 0].std() for column in drawn.unbind(1)])
    expected = affine.magnitude_deviation(lam[:1])[0]
    torch.testing.assert_close(deviation, expected, rtol=0.05, atol=0)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_gate_gradient_is_the_relaxed_gates(temperature):
    lam = affine.initial_row(0.4).double().repeat(3, 1).requires_grad_()
    noise = affine.draw_noise(3, torch.Generator().manual_seed(1), torch.float64)
    drawn = affine.magnitudes(lam, noise, temperature)
    assert torch.equal(drawn, affine.magnitudes(lam, noise)), "only the derivative depends on the temperature"
    drawn.sum().backward()
    logit = lam.detach()[:, 7:]
    relaxed = torch.sigmoid((logit + noise.logistic) / temperature)
    size = affine.magnitude_deviation(lam.detach()) * noise.normal
    assert lam.grad is not None
    torch.testing.assert_close(lam.grad[:, 7:], size * relaxed * (1 - relaxed) / temperature)


def test_sampling_grid_and_its_gradient_are_those_of_affine_grid():
    drawn = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    maps = [drawn.clone().requires_grad_(), drawn.clone().requires_grad_()]
    grids = [affine.sampling_grid(maps[0], 6, 9), F.affine_grid(maps[1], [5, 1, 6, 9], align_corners=False)]
    upstream = torch.randn(grids[1].shape, dtype=torch.float64)
    gradients = [torch.autograd.grad(grid, map_, upstream)[0] for grid, map_ in zip(grids, maps, strict=True)]
    torch.testing.assert_close(grids[0], grids[1], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-14)


def random_full_rows(count: int) -> torch.Tensor:
    """Rows of a full covariance. Shape: -> [count, 35] float64."""
    row = affine.initial_row(0.3, "full").double()
    return row + torch.randn(count, len(row), generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_full_covariance_begins_as_the_diagonal_one_to_the_last_bit(dtype):
    noise = affine.draw_noise(500, torch.Generator().manual_seed(3), dtype)
    rows = [affine.initial_row(0.4, name).to(dtype).expand(500, -1) for name in ("diagonal", "full")]
    diagonal, full = (affine.magnitudes(row, noise) for row in rows)
    assert rows[1].shape == (500, 35)
    assert torch.equal(full, diagonal)
    assert torch.equal(affine.correlation_factor(rows[1]), torch.eye(7, dtype=dtype).expand(500, -1, -1))


def test_every_correlation_matrix_has_its_factor():
    generator = torch.Generator().manual_seed(6)
    drawn = torch.randn(20, 7, 9, generator=generator, dtype=torch.float64)
    covariance = drawn @ drawn.transpose(1, 2)
    deviation = covariance.diagonal(dim1=1, dim2=2).sqrt()
    correlation = covariance / deviation[:, :, None] / deviation[:, None]
    factor = torch.linalg.cholesky(correlation)
    rows = torch.zeros(20, 35, dtype=torch.float64)
    column = affine.COLUMNS
    for a in range(7):
        for b in range(a):
            rows[:, column] = factor[:, a, b] / factor[:, a, a]
            column += 1
    torch.testing.assert_close(affine.correlation_factor(rows), factor, rtol=1e-12, atol=1e-12)


def test_magnitudes_with_a_full_covariance_have_it():
    rows = random_full_rows(1)
    rows[:, 7:14] = 40  # gates are open
    count = 40_000
    noise = affine.draw_noise(count, torch.Generator().manual_seed(0), torch.float64)
    drawn = affine.magnitudes(rows.expand(count, -1), noise)
    scaled = torch.diag(affine.magnitude_deviation(rows)[0]) @ affine.correlation_factor(rows)[0]
    torch.testing.assert_close(drawn, noise.normal @ scaled.T, rtol=1e-12, atol=1e-12)
    found, expected = torch.cov(drawn.T), scaled @ scaled.T
    limit = 5 * (expected.diagonal()[:, None] * expected.diagonal()).sqrt() * (2 / count) ** 0.5
    assert ((found - expected).abs() < limit).all()


def test_magnitudes_are_differentiable_in_deviations_and_correlations():
    """Not in the gates, whose derivative is the relaxed gate's while the draw is hard."""
    noise = affine.draw_noise(4, torch.Generator().manual_seed(1), torch.float64)
    rows = random_full_rows(4)
    rows[:, 7:14] += 2  # most gates are open
    free = rows[:, [*range(7), *range(14, 35)]].requires_grad_()

    def magnitudes(free: torch.Tensor) -> torch.Tensor:
        return affine.magnitudes(torch.cat([free[:, :7], rows[:, 7:14], free[:, 7:]], 1), noise)

    assert torch.autograd.gradcheck(magnitudes, (free,))
    gradient = torch.autograd.grad(magnitudes(free).square().sum(), free)[0]
    assert gradient.abs().amax(0).min() > 0, "every column has an effect"


def test_ranges_are_the_papers():
    names = ["rotate", "scale-x", "scale-y", "translate-x", "translate-y", "shear-x", "shear-y"]
    assert list(affine.WARP_OPERATIONS) == names
    assert list(affine.WARP_OPERATIONS.values()) == pytest.approx([math.pi / 6, 0.5, 0.5, 0.45, 0.45, 0.3, 0.3])
    assert affine.COLUMNS == 14


def test_a_row_is_magnitudes_and_then_gates():
    row = affine.initial_row(0.25)
    assert row.tolist() == pytest.approx([0.0] * 7 + [-math.log(3)] * 7)
    lam = torch.arange(14, dtype=torch.float64)[None] / 10
    assert affine.gate_probability(lam)[0].tolist() == pytest.approx(
        [1 / (1 + math.exp(-x / 10)) for x in range(7, 14)]
    )
    deviation = [size / (1 + math.exp(-x / 10)) for x, size in enumerate(affine.WARP_OPERATIONS.values())]
    assert affine.magnitude_deviation(lam)[0].tolist() == pytest.approx(deviation)


def test_a_gate_is_open_from_its_threshold_on_and_scales_the_noise():
    lam = torch.zeros(2, 14, dtype=torch.float64)
    lam[:, 7:] = 0.3
    noise = affine.WarpNoise(torch.full((2, 7), -2.0).double(), torch.tensor([[-0.29] * 7, [-0.31] * 7]).double())
    drawn = affine.magnitudes(lam, noise)
    assert drawn[0].tolist() == pytest.approx([-size for size in affine.WARP_OPERATIONS.values()])
    assert drawn[1].tolist() == [0.0] * 7


def test_noise_is_normal_and_logistic_and_finite():
    noise = affine.draw_noise(5000, torch.Generator().manual_seed(0))
    assert noise.normal.shape == noise.logistic.shape == (5000, 7)
    assert noise.normal.dtype == noise.logistic.dtype == torch.float32
    assert float(noise.normal.std()) == pytest.approx(1, abs=0.02)
    assert float(noise.logistic.std()) == pytest.approx(math.pi / 3**0.5, abs=0.05)
    for values in noise:
        assert float(values.mean()) == pytest.approx(0, abs=0.05)
