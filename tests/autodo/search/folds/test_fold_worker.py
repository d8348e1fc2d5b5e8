import numpy as np
import pytest
import torch
from torch import nn

from autodo.augment.pipeline import Pipeline
from autodo.config.run import AugmentationConfig
from autodo.errors import DataError
from autodo.search.folds.fold_worker import FoldNetwork
from autodo.search.proxy_task import split_held_out


def generator():
    return np.random.default_rng(0)


def test_both_sides_have_every_class_in_its_share():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    rest, held = split_held_out(labels, 0.4, generator())
    assert np.bincount(labels[held]).tolist() == [20, 12, 8]
    assert sorted([*rest, *held]) == list(range(100))


def test_a_class_of_one_image_is_trained_on_and_not_held_out():
    labels = np.array([0] * 20 + [3] * 2 + [7] + [5] * 10)
    for seed in range(5):
        rest, held = split_held_out(labels, 0.4, np.random.default_rng(seed))
        assert set(labels[rest]) == {0, 3, 5, 7}
        assert set(labels[held]) == {0, 3, 5}


@pytest.mark.parametrize("labels", [[0], [0, 1, 2, 3], [0, 0, 0, 1, 2]])
def test_too_few_images_are_an_error_with_a_remedy(labels):
    with pytest.raises(DataError, match=r"fewer than two classes have two of them.*raise policy\.search\.images"):
        split_held_out(np.array(labels), 0.4, generator())


class Threshold(nn.Module):
    """Class 1 if the mean of the normalised image is above 0."""

    def forward(self, pixels):
        mean = pixels.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)


def test_the_reward_against_a_slow_count(monkeypatch):
    images = torch.randint(0, 256, (37, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.randint(0, 2, (37,), generator=torch.Generator().manual_seed(1))
    pipeline = Pipeline(AugmentationConfig(crop_padding=3, erase_probability=0.5), torch.tensor([0.5]), torch.ones(1))
    network = FoldNetwork(Threshold(), nn.Identity(), pipeline, images, labels)
    monkeypatch.setattr("autodo.search.folds.fold_worker.BATCH_SIZE", 10)
    draws = torch.Generator().manual_seed(2)
    rights = np.zeros((3, 37), dtype=bool)
    for copy in range(3):
        for start in range(0, 37, 10):
            for n, view in enumerate(pipeline.train_view(images[start : start + 10], draws), start=start):
                rights[copy, n] = (1 if float(view.mean()) > 0 else 0) == int(labels[n])
    expected = sum(any(rights[:, n]) for n in range(37)) / 37
    assert network.reward(3, torch.Generator().manual_seed(2)) == expected
    assert rights.mean() < expected < 1, "the best of three is better than one, and some are never recognised"
