"""Runs whose network is a person's own."""

from pathlib import Path

import pytest
import torch

from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.errors import DataError
from autodo.models import given
from autodo.results.classifier import Classifier
from autodo.training.trainer import Trainer
from tests.autodo.models import own_networks

NAME = "tests.autodo.models.own_networks:make"
SMALL = {
    **{"dataset.subsample": 200, "training.epochs": 2, "training.warmup_epochs": 0, "outer.start_share": 0.0},
    **{"outer.lr": 0.01},
}


def train(name: str, method: str, epochs: int | None = None, checkpoint: Path | None = None, **settings):
    overrides = {**SMALL, "model.name": name, **{f"model.{key}": value for key, value in settings.items()}}
    config = build_run("digits", method, overrides=overrides)
    trainer = Trainer(config, prepare(load(config.dataset), config), checkpoint=checkpoint)
    for row in trainer:
        if row["epoch"] + 1 == epochs:
            break
    return trainer


@pytest.mark.parametrize("given_as", ["import path", "object"])
def test_an_own_network_trains_stops_and_continues_with_the_same_bits(given_as: str, tmp_path: Path) -> None:
    name, settings = NAME, {}
    if given_as == "object":
        torch.manual_seed(0)
        name, settings["code"] = given.register(own_networks.make(1, 3))
    whole = train(name, "autodo-exact-aws", **settings)
    train(name, "autodo-exact-aws", 1, tmp_path / "checkpoint.pt", **settings)
    resumed = train(name, "autodo-exact-aws", checkpoint=tmp_path / "checkpoint.pt", **settings)
    assert len(resumed.state.history) == 2
    for one, other in ((whole.model.encoder, resumed.model.encoder), (whole.model.head, resumed.model.head)):
        state = other.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in one.state_dict().items())
    assert torch.equal(whole.points.table.values, resumed.points.table.values)

    outcome = whole.outcome()
    outcome.classifier.save(tmp_path / "model.pt")
    network = own_networks.make(1, 3) if given_as == "object" else None
    loaded = Classifier.load(tmp_path / "model.pt", network=network)
    images = torch.from_numpy(whole.context.data.test.images.read())
    assert torch.equal(loaded(images), outcome.classifier(images))
    assert loaded.model == name


def test_dropout_draws_from_the_seed_of_the_run() -> None:
    network = "tests.autodo.models.own_networks:with_dropout"
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = train(network, "autodo-exact-ws")
    assert torch.equal(torch.get_rng_state(), state), "numbers that a person draws do not depend on a training"
    torch.manual_seed(2)
    other = train(network, "autodo-exact-ws")
    assert one.state.history[-1]["train_loss"] == other.state.history[-1]["train_loss"]


def test_a_classifier_of_a_given_network_needs_it(tmp_path: Path) -> None:
    name, code = given.register(own_networks.make(1, 3), "another")
    train(name, "baseline", code=code).outcome().classifier.save(tmp_path / "model.pt")
    given._GIVEN.pop((name, code))
    with pytest.raises(
        DataError,
        match=r"model\.pt: its network cannot be built: module:Sequential was given in Python.*network=MODULE",
    ):
        Classifier.load(tmp_path / "model.pt")
    with pytest.raises(DataError, match=r"model\.pt: its network cannot be built: .*no linear layer"):
        Classifier.load(tmp_path / "model.pt", network=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)))
