"""Random batch in float64, small network with batch norm, and objectives on them."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from autodo.augment.pipeline import Pipeline
from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from autodo.objectives import Objective, ObjectiveContext, TrainStep, build_objective
from autodo.points.model import PointModel
from autodo.training.context import RunContext
from autodo.training.task_model import new_network

CLASSES = 10
DISTORTION = DistortionConfig(imbalance_ratio=10, noise_ratio=0.3)
SMALL = {"dataset.subsample": 200, "training.batch_size": 32, "training.epochs": 10, "training.warmup_epochs": 1}


def context_of(
    method: str, overrides: dict | None = None, group: ProcessGroup = SINGLE_PROCESS, split: str = "paper"
) -> ObjectiveContext:
    """Context of an objective of a run on a few digits, with images and statistics in float64."""
    overrides = {**SMALL, **(overrides or {})}
    config = build_run("digits", method, distortion=DISTORTION, split=split, overrides=overrides)
    data = prepare(load(config.dataset), config)
    mean = torch.full((1,), 0.3, dtype=torch.float64)
    return ObjectiveContext(
        config,
        data,
        torch.from_numpy(data.train.labels),
        len(data.train.labels),
        data.val.images.loader("cpu"),
        torch.from_numpy(data.val.labels),
        Pipeline(config.augmentation, mean, mean),
        group,
        torch.Generator().manual_seed(0),
        partial(new_network, RunContext(config, data, torch.device("cpu"), group), "peer network"),
    )


def objective_of(method: str, **options) -> Objective:
    return build_objective(context_of(method, **options))


def step_of(size: int = 12, *, seed: int = 1, epoch: int = 0, first: int = 0) -> TrainStep:
    """Batch of random pixels and labels, with points `first`, first + 1, ..."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(size, 1, 8, 8, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (size,), generator=generator)
    view = PointModel(None, labels, CLASSES, torch.float64).view(torch.arange(size))
    return TrainStep(torch.arange(first, first + size), size, pixels, labels, view, epoch, 0.1, generator)


def network_of(seed: int = 0, head: nn.Module | None = None) -> nn.Sequential:
    """[B, 1, 8, 8] -> [B, 10] in float64, in train mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.CELU(), nn.Flatten(), nn.Linear(27, 6)
        )
        return nn.Sequential(encoder, head or nn.Linear(6, CLASSES)).double().train()


def probabilities(network: nn.Module, pixels: Tensor) -> np.ndarray:
    """Predictions of the network in train mode. Shape: -> [B, 10]."""
    with torch.no_grad():
        logits = network(pixels).numpy()
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)
