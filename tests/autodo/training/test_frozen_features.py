"""A frozen encoder without augmentation: its features are computed once, and the training is the same."""

import pyarrow as pa
import pytest
import torch

from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.results.outcome import Outcome
from autodo.training import trainer
from autodo.training.trainer import Trainer

FROZEN = {"training.epochs": 4, "dataset.subsample": 300, "model.freeze": "encoder", "augmentation.crop_padding": 0}


def start(method: str, **overrides: object) -> Trainer:
    config = build_run("digits", method, overrides={**FROZEN, **overrides})
    return Trainer(config, prepare(load(config.dataset), config))


def trained(method: str) -> tuple[Trainer, Outcome]:
    training = start(method)
    list(training)
    return training, training.outcome(keep_embeddings=True)


@pytest.mark.parametrize("method", ["autodo-exact-ws", "autodo", "finetune-head-on-val", "val-only", "ldam-drw"])
def test_the_training_is_that_of_the_whole_network(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    once, cached = trained(method)
    assert once.loaders.train.images[torch.tensor([0])].shape == (1, 64, 1, 1)
    monkeypatch.setattr(trainer, "with_constant_features", lambda context: context)
    whole, uncached = trained(method)
    assert whole.loaders.train.images[torch.tensor([0])].shape == (1, 1, 8, 8)
    for ours, theirs in zip(once.state.history, whole.state.history, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-4)
    assert cached.points["thumbnail"].equals(uncached.points["thumbnail"])
    assert isinstance(cached.embeddings, pa.Table)
    assert isinstance(uncached.embeddings, pa.Table)
    ours, theirs = (torch.tensor(table["embedding"].to_pylist()) for table in (cached.embeddings, uncached.embeddings))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    images = torch.from_numpy(whole.context.data.test.images.read())
    torch.testing.assert_close(cached.classifier(images), uncached.classifier(images), rtol=1e-3, atol=1e-4)
    assert cached.classifier(images).argmax(1).tolist() == cached.predictions["prediction"].to_pylist()


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        ("baseline", {"augmentation.crop_padding": 1}),
        ("baseline", {"model.freeze": "none"}),
        ("mixup", {}),
        ("randaugment", {}),
        ("autodo-exact-a", {}),
    ],
)
def test_features_that_change_are_not_kept(method: str, overrides: dict[str, object]) -> None:
    assert start(method, **overrides).context.frozen is None
