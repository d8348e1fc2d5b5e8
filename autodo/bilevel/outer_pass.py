"""Outer pass: one step of lam for every train point along the implicit gradient, with theta fixed."""

import dataclasses
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from autodo.augment.pipeline import Pipeline
from autodo.bilevel.frozen import frozen_copy
from autodo.bilevel.hypergradient import validation_gradient
from autodo.bilevel.last_layer import LastLayer
from autodo.config.bilevel import OuterConfig
from autodo.data.batches import Batch, ordered_batches, shuffled_batches
from autodo.data.images.crop import CropParameters
from autodo.data.images.device_loader import DeviceLoader
from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from autodo.evaluation import Evaluation
from autodo.losses import InnerLoss
from autodo.points.model import Leaves, PointModel, PointView
from autodo.progress import TrackSteps, untracked
from autodo.seeds import derive


class OuterPass:
    """Outer passes of a run (Alg. 1, lines 10 to 19).

    Args:
        images: images of the inner problem on this process.
        learnable: number of points, the first ones, whose rows are updated. The others (trusted val points of the union
            split) are part of the inner problem and its Hessian, with fixed rows.
        totals: number of points and of learnable points on all processes; None: as given.
        weight_decay: weight decay of the inner problem, which is part of the Hessian.
        batch_size: size of the batches on all processes together.
        drop_last: leave the points of an incomplete batch out of a pass.
    Raises:
        ConfigError: if the solver does not support a problem of this size.
    """

    def __init__(
        self,
        config: OuterConfig,
        loss: InnerLoss,
        encoder: nn.Module,
        head: nn.Linear,
        pipeline: Pipeline,
        points: PointModel,
        images: DeviceLoader,
        *,
        learnable: int,
        weight_decay: float,
        batch_size: int,
        drop_last: bool = False,
        totals: tuple[int, int] | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.config = config
        self.last_layer = LastLayer(config, loss, head, weight_decay=weight_decay, group=group)
        self.encoder = encoder
        self.pipeline = pipeline
        self.points = points
        self.images = images
        self.learnable = learnable
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.total, self.total_learnable = totals or (len(images), learnable)
        self.group = group
        self._watch: TrackSteps = untracked

    def run(
        self,
        val: Evaluation,
        lr: float,
        generator: torch.Generator,
        crops: CropParameters | None = None,
        watch: TrackSteps = untracked,
        weight_decay: float | None = None,
    ) -> None:
        """Update the row of each learnable point once. All processes run a pass together.

        Args:
            weight_decay: that of the present solved head; None: as before.
            val: features and logits of the clean val set under the current theta, in eval mode; valid for the whole
                pass, because theta does not change.
            crops: crops of streamed images; the Hessian of a sample uses other ones.
            watch: iterates over the steps through the encoder and reports progress.
        """
        self._watch = watch
        if weight_decay is not None:
            self.last_layer.weight_decay = weight_decay
        parameters = [*self.encoder.parameters(), *self.last_layer.head.parameters()]
        moving = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in moving:
            parameter.requires_grad_(False)
        trained, self.encoder = self.encoder, frozen_copy(self.encoder)
        try:
            if self.config.val_gradient == "full":
                self._full_pass(val, lr, generator, crops)
            else:
                self._batch_pass(val, lr, generator, crops)
        finally:
            self.encoder, self._watch = trained, untracked
            for parameter in moving:
                parameter.requires_grad_(True)

    def _batch_pass(self, val: Evaluation, lr: float, generator: torch.Generator, crops: CropParameters | None) -> None:
        """Pass of the paper: each step has a val batch and a solve with the Hessian of the train batch."""
        val_points = torch.arange(len(val.labels), device=self.points.labels.device)
        val_batches: list[Batch] = []
        batches = self._shuffled(self._points(), self.total, generator)
        for batch, images in self._with_images(batches, crops, for_update=True):
            if not val_batches:
                val_batches = list(self._shuffled(val_points, val.total, generator))
            chosen, size = val_batches.pop()
            batch_val = val.logits[chosen], val.features[chosen], val.labels[chosen]
            gradient = validation_gradient(*batch_val, count=size, group=self.group)
            leaves = self.points.leaves(batch.points)
            view = self.points.view(batch.points, *leaves)
            features = self._features(images, view.augment, generator)
            with torch.no_grad():
                targets = view.log_targets if self.last_layer.needs_targets else None
                labels = self.points.labels[batch.points]
                u = self.last_layer.solve(features, labels, view.weights, targets, batch.size, gradient)
            self._update(batch, leaves, view, features, u, lr)

    def _full_pass(self, val: Evaluation, lr: float, generator: torch.Generator, crops: CropParameters | None) -> None:
        """Compute u from all of val with one solve, then take one step per batch."""
        points = self._points()
        sample, sample_total = self._hessian_points(generator)
        other_crops = crops and dataclasses.replace(crops, seed=derive(crops.seed, "hessian"))
        with torch.no_grad():
            inputs = self.last_layer.inputs(val.features)
            gradient = validation_gradient(val.logits, inputs, val.labels, count=val.total, group=self.group)
            if self.points.learns_augmentation:
                sample_features = self._all_features(sample, sample_total, generator, other_crops)
            else:
                features = self._all_features(points, self.total, generator, crops)
                sample_features = features if sample is points else features[sample]
            targets = self.points.view(sample).log_targets if self.last_layer.needs_targets else None
            labels, weights = self.points.labels[sample], self.points.weights(sample)
            u = self.last_layer.solve(sample_features, labels, weights, targets, sample_total, gradient)
        # Shared rows learn from all points.
        learnable, total = (
            (points[: self.learnable], self.total_learnable)
            if self.points.shared_table is None
            else (points, self.total)
        )
        if self.points.learns_augmentation:
            batches = self._shuffled(learnable, total, generator)
            for batch, images in self._with_images(batches, crops, for_update=True):
                leaves = self.points.leaves(batch.points)
                view = self.points.view(batch.points, *leaves)
                self._update(batch, leaves, view, self._features(images, view.augment, generator), u, lr)
        else:
            # Without lam^A, the features do not depend on lam, so those of the solve are reused.
            batches = ordered_batches(learnable, total, self.batch_size, self.group)
            for batch in self.points.prefetch(batches, for_update=True):
                leaves = self.points.leaves(batch.points)
                view = self.points.view(batch.points, *leaves)
                self._update(batch, leaves, view, features[batch.points], u, lr)

    def _hessian_points(self, generator: torch.Generator) -> tuple[Tensor, int]:
        """Points in the Hessian of a solve, in order: those of this process, and their number on all processes."""
        points, count = self._points(), self.config.hessian_points
        if count is None or count >= self.total:
            return points, self.total
        order = torch.randperm(len(points), generator=generator, device=points.device)
        return points[order[: self.group.shard_size(count)].sort().values], count

    def _all_features(
        self, points: Tensor, total: int, generator: torch.Generator, crops: CropParameters | None
    ) -> Tensor:
        batches = list(ordered_batches(points, total, self.batch_size, self.group))
        if not self.points.learns_augmentation:
            reading = self._watch(self.images.batches([batch.points for batch in batches], crops), total=len(batches))
            return torch.cat([self._features(images, None, generator) for images in reading])
        return torch.cat(
            [
                self._features(images, self.points.view(batch.points).augment, generator)
                for batch, images in self._with_images(batches, crops, for_update=False)
            ]
        )

    def _with_images(
        self, batches: Iterable[Batch], crops: CropParameters | None, *, for_update: bool
    ) -> Iterator[tuple[Batch, Tensor]]:
        """Yield the batches with their images, while images and rows of the next batch are sent to the device.

        Args:
            for_update: whether the rows of each batch take a step.
        """
        batches = list(batches)
        reading = self.images.batches([batch.points for batch in batches], crops)
        return self._watch(
            zip(self.points.prefetch(batches, for_update=for_update), reading, strict=True), total=len(batches)
        )

    def _shuffled(self, points: Tensor, total: int, generator: torch.Generator) -> Iterator[Batch]:
        return shuffled_batches(points, total, self.batch_size, generator, self.group, drop_last=self.drop_last)

    def _points(self) -> Tensor:
        return torch.arange(len(self.images), device=self.points.labels.device)

    def _features(self, images: Tensor, augment: Tensor | None, generator: torch.Generator) -> Tensor:
        features: Tensor = self.encoder(self.pipeline.train_view(images, generator, augment))
        return features

    def _update(self, batch: Batch, leaves: Leaves, view: PointView, features: Tensor, u: Tensor, lr: float) -> None:
        labels = self.points.labels[batch.points]
        gradient = self.last_layer.hypergradient(leaves, labels, view, features, u, batch.size)
        if gradient.shared is not None:
            # Every process has a copy of the shared rows, and all copies take the same step. No other lam is exchanged.
            gradient = gradient._replace(shared=self.group.all_reduce(gradient.shared))
        mask = batch.points < self.learnable if self.learnable < len(self.images) else None
        self.points.rmsprop_step(batch.points, gradient, lr, mask)
