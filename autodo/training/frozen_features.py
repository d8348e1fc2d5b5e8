"""Features of a frozen encoder, computed once: the run then trains the head on them as on a dataset of features."""

import dataclasses
import itertools
import logging
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from autodo.augment.pipeline import Pipeline
from autodo.augment.policies import Policy
from autodo.config.pixels import computes_features_once
from autodo.data import DataSplits
from autodo.data.images.image_set import ArrayImages, Images
from autodo.progress import ProgressReporter
from autodo.training.context import FrozenEncoder, RunContext
from autodo.training.task_model import initial_model, normalisation

logger = logging.getLogger("autodo")


def with_features(context: RunContext, policy: Policy | None, progress: ProgressReporter) -> RunContext:
    """The run on the features of its images, if they can be computed before the first epoch.

    Without augmentation the training is the same as with the encoder in every step, up to rounding; only its time
    differs. With `model.cached_views` each train and val image has the features of that many views. Of several
    processes, each computes a shard of them and keeps all.
    """
    config, device = context.config, context.device
    if not computes_features_once(config.model_dump()):
        return context
    views = config.model.cached_views or 0
    encoder, head = initial_model(context, device)
    encoder.bf16 = config.training.precision == "bf16"
    encoder.eval()
    mean, std = normalisation(context, encoder)
    pipeline = Pipeline(config.augmentation, mean.to(device), std.to(device), policy and policy.at(0.0))

    logger.info("the features of the frozen encoder are computed once")
    started, data, size = context.clock(), context.data, config.training.batch_size
    passes = ((data.train.images, 1 + views), (data.val.images, 1 + views), (data.test.images, 1))
    batches_of = [times * math.ceil(len(images[context.group.shard]) / size) for images, times in passes]
    steps = progress.track(itertools.count(), "features", 0, total=sum(batches_of))

    def computed(batches: Iterable[Tensor]) -> Tensor:
        none = torch.empty(0, encoder.features)
        tracked = (batch for batch, _ in zip(batches, steps, strict=False))
        return torch.cat([none, *(encoder(batch).cpu() for batch in tracked if len(batch))])

    @torch.no_grad()
    def features(images: Images, views: int = 0) -> ArrayImages:
        shard = images[context.group.shard]
        loader = shard.loader(device)
        found = [computed(map(pipeline.test_view, loader.in_order(size)))]
        for view in range(views):
            generator = context.generator("cached views", view)
            batches = loader.batches(torch.arange(len(shard), device=device).split(size), context.crops("views", view))
            found.append(computed(pipeline.train_view(batch, generator) for batch in batches))
        of_all = context.group.all_gather(torch.stack(found, 2), len(images))
        return ArrayImages(of_all[..., None].numpy())

    of_features = DataSplits(
        train=dataclasses.replace(data.train, images=features(data.train.images, views)),
        val=dataclasses.replace(data.val, images=features(data.val.images, views)),
        test=dataclasses.replace(data.test, images=features(data.test.images)),
        class_names=data.class_names,
        minority=data.minority,
    )
    frozen = FrozenEncoder(encoder, head.cpu(), mean, std, data.train.images, context.clock() - started)
    return dataclasses.replace(context, data=of_features, frozen=frozen)
