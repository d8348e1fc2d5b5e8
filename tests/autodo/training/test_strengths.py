"""Runs with correlated and mixed augmentation strengths, beside runs with a row of strengths per point."""

import pytest

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.training.trainer import Trainer

SHORT = {"training.epochs": 4, "training.warmup_epochs": 1, "outer.start_share": 0.3, "dataset.subsample": 200}
LOSSES = ("train_loss", "val_loss", "test_loss")


def training_of(method: str, split="paper", **points) -> Trainer:
    overrides = {**SHORT, **{f"points.{key}": value for key, value in points.items()}}
    config = build_run("digits", method, distortion=DistortionConfig(noise_ratio=0.2), split=split, overrides=overrides)
    return Trainer(config, prepare(load(config.dataset), config))


@pytest.mark.parametrize(
    "settings", [{"covariance": "full"}, {"mixture": 3}, {"mixture": 16, "covariance": "full"}], ids=str
)
def test_a_run_is_the_diagonal_one_to_the_last_bit_until_its_first_outer_pass(settings):
    plain, other = list(training_of("autodo-a")), list(training_of("autodo-a", **settings))
    for epoch, (one, two) in enumerate(zip(plain, other, strict=True)):
        same = all(one[name] == two[name] for name in LOSSES)
        assert same == (epoch <= 1), "a pass follows epoch 1"
        assert one["outer_phase"] == (epoch >= 1)


@pytest.mark.parametrize("split", ["paper", "union"])
def test_a_mixture_of_one_row_is_the_shared_row_to_the_last_bit(split):
    tables = []
    for training in (training_of("autodo-shared", split), training_of("autodo-a", split, mixture=1)):
        list(training)
        outcome = training.outcome()
        tables.append([getattr(outcome, kind).drop_columns("run_id") for kind in ("points", "predictions")])
    assert tables[0] == tables[1]
    magnitudes = tables[0][0]["magnitude"].to_pylist()
    assert all(row == magnitudes[0] for row in magnitudes)


def test_points_of_a_mixture_have_strengths_of_their_own():
    training = training_of("autodo-aw", mixture=3)
    list(training)
    points = training.outcome().points
    for column in ("magnitude", "gate_probability"):
        rows = points[column].to_pylist()
        assert len({tuple(row) for row in rows}) > 0.9 * len(rows)
        assert {len(row) for row in rows} == {7}
