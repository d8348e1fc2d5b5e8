"""The worker of Fast AutoAugment: trains a network per cross-validation fold, and evaluates policies on it."""

import io
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autodo.augment.pipeline import Pipeline, channel_statistics
from autodo.augment.policies import build_policy
from autodo.augment.policy_file import PolicyFile
from autodo.config.policy import FastAutoAugmentSearch
from autodo.data.images.image_set import ArrayImages, Integers
from autodo.errors import StoreError
from autodo.io.atomic import save_torch
from autodo.io.storage import Location
from autodo.models import build
from autodo.results.provenance import device_name
from autodo.search.proxy_task import proxy_data, proxy_run, split_held_out
from autodo.search.search_data import search_subset
from autodo.search.tasks import Json, Report, Task, TaskContext, search_config
from autodo.seeds import numpy_generator, torch_generator
from autodo.training import checkpoint as checkpoints
from autodo.training.trainer import Trainer

BATCH_SIZE = 500  # of the evaluation, where no graph is kept


class FoldNetwork:
    """A fold's trained network and its held-out images, on a device."""

    def __init__(self, encoder: nn.Module, head: nn.Module, pipeline: Pipeline, images: Tensor, labels: Tensor) -> None:
        self.encoder, self.head, self.pipeline = encoder.eval(), head.eval(), pipeline
        self.images, self.labels = images, labels

    @torch.no_grad()
    def reward(self, copies: int, generator: torch.Generator) -> float:
        """Share of the images of which at least one of `copies` augmented copies is recognised.

        The copies are augmented as in training: crop and flip, the pipeline's policy, erasing.
        """
        recognised = torch.zeros_like(self.labels, dtype=torch.bool)
        for _ in range(copies):
            views = (self.pipeline.train_view(batch, generator) for batch in self.images.split(BATCH_SIZE))
            predictions = torch.cat([self.head(self.encoder(view)).argmax(1) for view in views])
            recognised |= predictions == self.labels
        return int(recognised.sum()) / len(recognised)


class FoldWorker:
    """Trains the networks of folds, and evaluates trials on them."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context
        self._search: FastAutoAugmentSearch = search_config(context.config)
        self._device = torch.device(context.device)
        self._images, self._labels = search_subset(context.data, self._search.images, context.config.seed)
        self._networks: dict[int, FoldNetwork] = {}

    def perform(self, task: Task, checkpoint: Path | None, report: Report) -> Json:
        """Writes a fold's network to the folder of the search, or evaluates a trial.

        Returns:
            `held_out_error` of a network; `reward` of a trial, or `lost` if its network is gone or damaged.
        """
        started = time.perf_counter()
        given = task.given
        result = self._train(given["fold"], checkpoint, report) if task.long else self._evaluate(**given)
        return {**result, "seconds": time.perf_counter() - started, "device": device_name(self._device)}

    def _train(self, fold: int, checkpoint: Path | None, report: Report) -> Json:
        run = proxy_run(self._context.config, f"fold-{fold}")
        data = proxy_data(self._images, self._labels, *self._split(fold), self._context.data.class_names)

        def start() -> Trainer:
            return Trainer(run, data, device=self._context.device, checkpoint=checkpoint)

        try:
            trainer = start()
        except checkpoints.UnusableCheckpoint:
            assert checkpoint is not None
            checkpoints.delete(checkpoint)
            trainer = start()
        for row in trainer:
            report(f"network {fold + 1} of {self._search.folds}, epoch {row['epoch'] + 1} of {run.training.epochs}")
        state = {"encoder": trainer.model.encoder.state_dict(), "head": trainer.model.head.state_dict()}
        self._file(fold).write_atomic(lambda path: save_torch(state, path))
        self._networks.pop(fold, None)
        return {"held_out_error": trainer.state.history[-1]["val_error"]}

    def _evaluate(self, fold: int, trial: int, sub_policies: Any) -> Json:
        config = self._context.config
        if fold not in self._networks:
            try:
                self._networks[fold] = self._load(fold)
            except _Lost:
                return {"lost": True}
        network = self._networks[fold]
        assert config.policy is not None
        policy = PolicyFile.model_validate({"sub_policies": sub_policies})
        network.pipeline.policy = build_policy(config.policy, policy)
        generator = torch_generator(config.seed, "search", "fold", fold, "trial", trial, device=self._device)
        return {"reward": network.reward(self._search.copies, generator)}

    def _split(self, fold: int) -> tuple[Integers, Integers]:
        generator = numpy_generator(self._context.config.seed, "search", "split", fold)
        return split_held_out(self._labels, self._search.held_share, generator)

    def _load(self, fold: int) -> FoldNetwork:
        device = self._device
        rest, held = self._split(fold)
        images = torch.from_numpy(self._images[held]).to(device)
        labels = torch.from_numpy(self._labels[held]).to(device)
        encoder, head = build(
            self._search.model,
            in_channels=images.shape[1],
            image_size=images.shape[-1],
            classes=len(self._context.data.class_names),
        )
        state = _read(self._file(fold))
        try:
            encoder.load_state_dict(state["encoder"])
            head.load_state_dict(state["head"])
        except (LookupError, TypeError, RuntimeError, AttributeError) as error:
            raise _Lost from error
        mean, std = channel_statistics(ArrayImages(self._images[rest]).statistics_sample())
        pipeline = Pipeline(self._context.config.augmentation, mean.to(device), std.to(device))
        return FoldNetwork(encoder.to(device), head.to(device), pipeline, images, labels)

    def _file(self, fold: int) -> Location:
        return self._context.files / f"fold-{fold}" / "model.pt"


class _Lost(Exception):
    """The network of a fold is gone or damaged."""


def _read(file: Location) -> Any:
    try:
        return torch.load(io.BytesIO(file.read_bytes()), map_location="cpu", weights_only=True)
    except StoreError:
        raise  # the file may be there once the storage answers again
    except Exception as error:
        # torch.load raises many kinds of error on damaged files.
        raise _Lost from error
