"""Features of a frozen encoder, computed once: the run then trains the head on them as on a dataset of features."""

import dataclasses

import numpy as np
import torch

from autodo.augment.pipeline import Pipeline
from autodo.config.pixels import has_constant_features
from autodo.data import DataSplits
from autodo.data.images.image_set import ArrayImages, Images
from autodo.training.context import FrozenEncoder, RunContext
from autodo.training.task_model import initial_model, normalisation


def with_constant_features(context: RunContext) -> RunContext:
    """The run on the features of its images, if these are the same in every epoch and one process trains it.

    The training is the same as with the encoder in every step, up to rounding; only its time differs.
    """
    config = context.config
    if context.group.size > 1 or not has_constant_features(config.model_dump()):
        return context
    encoder, _ = initial_model(context, context.device)
    encoder.bf16 = config.training.precision == "bf16"
    encoder.eval()
    mean, std = normalisation(context, encoder)
    pipeline = Pipeline(config.augmentation, mean.to(context.device), std.to(context.device))

    @torch.no_grad()
    def features(images: Images) -> ArrayImages:
        batches = images.loader(context.device).in_order(config.training.batch_size)
        parts = [encoder(pipeline.test_view(batch)).cpu().numpy() for batch in batches]
        return ArrayImages(np.concatenate(parts)[:, :, None, None])

    data = context.data
    of_features = DataSplits(
        train=dataclasses.replace(data.train, images=features(data.train.images)),
        val=dataclasses.replace(data.val, images=features(data.val.images)),
        test=dataclasses.replace(data.test, images=features(data.test.images)),
        class_names=data.class_names,
        minority=data.minority,
    )
    frozen = FrozenEncoder(encoder, mean, std, data.train.images)
    return dataclasses.replace(context, data=of_features, frozen=frozen)
