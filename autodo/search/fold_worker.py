"""Cross-validation folds of a search: a network for each, and how well it recognises augmented held-out images."""

import io
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autodo.augment.pipeline import Pipeline, channel_statistics
from autodo.augment.policies import build_policy
from autodo.augment.policy_file import PolicyFile
from autodo.data.image_set import ArrayImages, Integers
from autodo.errors import StoreError
from autodo.io.atomic import save_torch
from autodo.io.storage import Location
from autodo.models import build
from autodo.results.provenance import device_name
from autodo.search.proxy_task import proxy_data, proxy_run, split_held_out
from autodo.search.subset import search_subset
from autodo.search.tasks import Json, ReportLine, Task, TaskContext, search_config
from autodo.seeds import numpy_generator, torch_generator
from autodo.training import checkpoint as checkpoints
from autodo.training.trainer import Trainer

BATCH_SIZE = 500  # of the evaluation, where no graph is kept
MODEL = "model.pt"


class Fold:
    """A trained network and its held-out images, on a device."""

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
        self._search = search_config(context.config)
        self._images, self._labels = search_subset(context.data, self._search.images, context.config.seed)
        self._folds: dict[int, Fold] = {}

    def perform(self, task: Task, checkpoint: Path | None, tell: ReportLine) -> Json:
        """A fold's network is written to the folder of the search; of a trial the reward is told.

        Returns:
            `lost`, if the network that a trial needs is gone or damaged.
        """
        begun = time.perf_counter()
        given = task.given
        result = self._train(given["fold"], checkpoint, tell) if task.long else self._evaluate(**given)
        device = device_name(torch.device(self._context.device))
        return {**result, "seconds": time.perf_counter() - begun, "device": device}

    def _train(self, number: int, checkpoint: Path | None, tell: ReportLine) -> Json:
        run = proxy_run(self._context.config, f"fold-{number}")
        data = proxy_data(self._images, self._labels, *self._split(number), self._context.data.class_names)

        def begin() -> Trainer:
            return Trainer(run, data, device=self._context.device, checkpoint=checkpoint)

        try:
            training = begin()
        except checkpoints.UnusableCheckpoint:
            assert checkpoint is not None
            checkpoints.delete(checkpoint)
            training = begin()
        for row in training:
            tell(f"network {number + 1} of {self._search.folds}, epoch {row['epoch'] + 1} of {run.training.epochs}")
        state = {"encoder": training.model.encoder.state_dict(), "head": training.model.head.state_dict()}
        self._place(number).write_atomic(lambda path: save_torch(state, path))
        self._folds.pop(number, None)
        return {"held_out_error": training.state.history[-1]["val_error"]}

    def _evaluate(self, fold: int, trial: int, sub_policies: Any) -> Json:
        seed, device = self._context.config.seed, torch.device(self._context.device)
        if fold not in self._folds:
            try:
                self._folds[fold] = self._load(fold)
            except _Lost:
                return {"lost": True}
        chosen = self._folds[fold]
        assert self._context.config.policy is not None
        chosen.pipeline.policy = build_policy(
            self._context.config.policy, PolicyFile.model_validate({"sub_policies": sub_policies})
        )
        generator = torch_generator(seed, "search", "fold", fold, "trial", trial, device=device)
        return {"reward": chosen.reward(self._search.copies, generator)}

    def _split(self, number: int) -> tuple[Integers, Integers]:
        generator = numpy_generator(self._context.config.seed, "search", "split", number)
        return split_held_out(self._labels, self._search.held_share, generator)

    def _load(self, number: int) -> Fold:
        device = torch.device(self._context.device)
        rest, held = self._split(number)
        images = torch.from_numpy(self._images[held]).to(device)
        encoder, head = build(
            self._search.model,
            in_channels=images.shape[1],
            image_size=images.shape[-1],
            classes=len(self._context.data.class_names),
        )
        state = _read(self._place(number))
        try:
            encoder.load_state_dict(state["encoder"])
            head.load_state_dict(state["head"])
        except (LookupError, TypeError, RuntimeError, AttributeError) as error:
            raise _Lost from error
        mean, std = channel_statistics(ArrayImages(self._images[rest]).statistics_sample())
        pipeline = Pipeline(self._context.config.augmentation, mean.to(device), std.to(device))
        return Fold(
            encoder.to(device), head.to(device), pipeline, images, torch.from_numpy(self._labels[held]).to(device)
        )

    def _place(self, number: int) -> Location:
        return self._context.files / f"fold-{number}" / MODEL


class _Lost(Exception):
    """The network of a fold is gone or damaged."""


def _read(place: Location) -> Any:
    try:
        return torch.load(io.BytesIO(place.read_bytes()), map_location="cpu", weights_only=True)
    except StoreError:
        raise  # it may be there when the storage answers again
    except Exception as error:
        # torch.load raises many kinds of error on damaged files.
        raise _Lost from error
