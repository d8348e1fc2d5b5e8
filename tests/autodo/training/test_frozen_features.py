"""A frozen encoder without augmentation: its features are computed once, and the training is the same."""

import pyarrow as pa
import pytest
import torch

from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.errors import ConfigError
from autodo.results.outcome import Outcome
from autodo.testing.process_groups import WorkerPool
from autodo.training import trainer
from autodo.training.trainer import Trainer
from tests.autodo.distributed import group_jobs as jobs

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
    monkeypatch.setattr(trainer, "with_features", lambda context, policy, progress: context)
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


def test_val_points_of_the_inner_problem_have_views_too() -> None:
    training = start("finetune-head-on-val+train+val", **{"model.cached_views": 2, "augmentation.crop_padding": 1})
    assert training.loaders.train.images[torch.tensor([0, training.loaders.train_size])].shape == (2, 64, 3, 1)
    list(training)


def test_steps_draw_among_cached_views() -> None:
    training = start("randaugment", **{"model.cached_views": 3, "augmentation.crop_padding": 1})
    images = training.loaders.train.images[torch.tensor([0, 5])]
    assert images.shape == (2, 64, 4, 1)
    pipeline, generator = training.model.pipeline, torch.Generator().manual_seed(0)
    assert torch.equal(pipeline.test_view(images), images[:, :, :1])
    drawn = torch.stack([pipeline.train_view(images, generator)[1, :, 0, 0] for _ in range(40)])
    views = images[1, :, 1:, 0].T
    assert {int((view == views).all(1).nonzero()) for view in drawn} == {0, 1, 2}
    list(training)
    images = torch.from_numpy(training.context.train_images.read())
    classifier = training.outcome().classifier
    torch.testing.assert_close(
        classifier.features(images), torch.from_numpy(training.context.data.train.images.read()[:, :, 0, 0])
    )


def test_several_workers_compute_the_features_together(pool: WorkerPool) -> None:
    overrides = {**FROZEN, "training.batch_size": 300, "training.warmup_epochs": 0}
    config = build_run("digits", "autodo-exact-ws+solved-head", overrides=overrides)
    alone, _, losses = jobs.train_on_features(config)
    for mine, _, of_worker in pool.each(2, jobs.train_on_features, config):
        torch.testing.assert_close(mine, alone, rtol=1e-4, atol=1e-5)
        assert of_worker == pytest.approx(losses, rel=1e-4), "one batch of all points, so the sharding changes nothing"

    config = build_run(
        "digits", "baseline", overrides={**overrides, "model.cached_views": 2, "augmentation.crop_padding": 2}
    )
    views, others = (features for features, *_ in pool.each(2, jobs.train_on_features, config))
    assert torch.equal(views, others)
    assert views.shape == (240, 64, 3, 1)
    assert len(views.mT.flatten(0, 2).unique(dim=0)) > 600, "each view of each point is its own"


@pytest.mark.parametrize(
    ("method", "overrides", "message"),
    [
        ("autodo-exact-a", {}, "'augment' in points.learn changes images in every step: set model.cached_views=null"),
        ("mixup", {}, "objective.kind 'mixup' changes images"),
        ("baseline", {"model.freeze": "bn"}, r"cached_views \(2\) needs freeze 'encoder', not 'bn'"),
    ],
)
def test_views_that_cannot_be_kept_are_refused(method: str, overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_run("digits", method, overrides={**FROZEN, "model.cached_views": 2, **overrides})
