import numpy as np
import pytest
import torch
from torch import nn

from autodo.objectives.mixing import box_side, draw_beta
from tests.autodo.objectives.problem import CLASSES, network_of, objective_of, probabilities, step_of


class Watched(nn.Module):
    """Network that records its input."""

    def __init__(self):
        super().__init__()
        self.network = network_of()

    def forward(self, pixels):
        self.pixels = pixels
        return self.network(pixels)


def pair_of(image, mixed, batch):
    """Partner of a mixed image, the share of the image itself, and the error of that fit."""
    fits = []
    for partner, other in enumerate(batch):
        difference = other - image
        norm = difference @ difference
        share = 1 - (mixed - image) @ difference / norm if norm else 1.0
        fits.append((np.abs(share * image + (1 - share) * other - mixed).max(), partner, share))
    return min(fits)


def cross_entropy_of_pair(p, label, other, share):
    target = np.zeros(CLASSES)
    target[label] += share
    target[other] += 1 - share
    return -(target * np.log(p)).sum()


def test_mixup_is_the_cross_entropy_of_mixed_targets():
    step, network, objective = step_of(), Watched(), objective_of("mixup", overrides={"objective.alpha": 5})
    losses = objective.losses(network, step)
    p = probabilities(network.network, network.pixels)
    batch, mixed = (pixels.flatten(1).numpy() for pixels in (step.pixels, network.pixels))
    shares = set()
    for i in range(len(batch)):
        residual, partner, share = pair_of(batch[i], mixed[i], batch)
        assert residual < 1e-12
        expected = cross_entropy_of_pair(p[i], step.labels[i], step.labels[partner], share)
        assert losses[i].item() == pytest.approx(expected, rel=1e-9)
        # An image that is its own partner fits any partner with share 1.
        if share < 1 - 1e-9:
            shares.add(round(share, 9))
    assert len(shares) == 1
    assert 0 < min(shares) < 1


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_mixes_labels_by_area(seed):
    step, network, objective = step_of(seed=seed), Watched(), objective_of("cutmix")
    losses = objective.losses(network, step)
    p = probabilities(network.network, network.pixels)
    # Random pixels differ everywhere; an image that is its own partner shows no box.
    box = (network.pixels != step.pixels).any(0).squeeze(0)
    assert torch.equal(box, box.any(1)[:, None] & box.any(0))
    share = 1 - box.sum().item() / 64
    for i in range(len(step.points)):
        images = [torch.where(box, other, step.pixels[i]) for other in step.pixels]
        partners = [j for j, image in enumerate(images) if torch.equal(network.pixels[i], image)]
        assert len(partners) == 1 or not box.any()
        expected = cross_entropy_of_pair(p[i], step.labels[i], step.labels[partners[0]], share)
        assert losses[i].item() == pytest.approx(expected, rel=1e-9)


def test_boxes_are_clipped_to_the_image():
    assert box_side(32, 0.75, 0.5) == (8, 24)
    assert box_side(32, 0.75, 0.0) == (0, 8)
    assert box_side(32, 0.75, 0.999) == (23, 32)
    assert box_side(32, 1.0, 0.3) == (9, 9)
    assert box_side(32, 0.0, 0.5) == (0, 32)


@pytest.mark.parametrize(("alpha", "deviation"), [(0.2, (1 / 5.6) ** 0.5), (1, (1 / 12) ** 0.5)])
def test_mean_and_deviation_of_beta(alpha, deviation):
    """The variance of Beta(a, a) is 1 / (4 (2 a + 1))."""
    generator = torch.Generator().manual_seed(3)
    drawn = [draw_beta(alpha, generator) for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.03)
    assert np.std(drawn) == pytest.approx(deviation, rel=0.05)
    assert drawn[0] == draw_beta(alpha, torch.Generator().manual_seed(3))
