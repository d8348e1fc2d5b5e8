"""Algorithm 1: train the task model, and from the outer start on move lambda once after every epoch."""

import contextlib
import dataclasses
import functools
import logging
import math
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from autodo.augment.pipeline import Pipeline, channel_statistics
from autodo.augment.policies import build_policy
from autodo.augment.policy_file import PolicyFile
from autodo.bilevel.outer_pass import OuterPass
from autodo.config.bilevel import OuterConfig
from autodo.config.run import RunConfig
from autodo.data import DataSplits, ImageSet
from autodo.data.batches import shuffled_batches
from autodo.data.device_loader import DeviceLoader
from autodo.data.files.crop import CropParameters
from autodo.data.image_set import Integers
from autodo.data.sharding import training_shard
from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from autodo.errors import DataError, ImageLost, TrainingDiverged
from autodo.evaluation import Evaluation, Scores, per_class_accuracy
from autodo.io.storage import StrPath
from autodo.losses import LOSSES
from autodo.objectives import ObjectiveContext, TrainStep, build_objective
from autodo.points.model import PointModel
from autodo.points.storage import ON_DEVICE, TableStorage
from autodo.progress import Durations, Progress, ProgressReporter
from autodo.results.classifier import Classifier
from autodo.results.outcome import Best, Outcome, build_outcome, embeddings_table, merged, points_table
from autodo.results.provenance import device_name, peak_memory_bytes
from autodo.results.thumbnails import with_thumbnails
from autodo.seeds import derive, torch_generator
from autodo.training import checkpoint as checkpoints
from autodo.training.evaluator import evaluate
from autodo.training.finetune import HeadFinetune
from autodo.training.mid_epoch import MidEpochState
from autodo.training.schedule import learning_rate_factor, restarted_factor
from autodo.training.sgd import SGD
from autodo.training.task_model import best_model, classifier_of, compiled, computes_in_bf16, initial_model

logger = logging.getLogger("autodo")

Row = dict[str, Any]
STRETCH = 2**17
"""Train points whose features and logits are there at a time when all are evaluated."""


class Trainer:
    """One run. Iterating trains it, and yields each epoch's row of `records.SCHEMAS["epochs"]`.

    Every random stream derives from (seed, phase, epoch), so a run that continues from its checkpoint takes the same
    course as one that was never interrupted.

    Several workers train a run together, each with all that is given here: a worker keeps the train points of its shard
    and their lambda for the whole run, and evaluates its share of the other images. A batch is still of
    `training.batch_size` images, over all workers. The rows are the same on all of them, but for the times.

    Args:
        data: from `autodo.data.prepare` with the same config.
        checkpoint: file to continue from, if it exists, and to write to; None keeps nothing. All workers must see it.
        checkpoint_every: epochs between checkpoints.
        checkpoint_steps: steps between checkpoints within the inner phase of an epoch, which then also ends with one;
            None makes none there. An outer pass and an epoch of `finetune` begin anew if they are cut.
        on_checkpoint: called after each checkpoint within an epoch.
        group: the processes that train together; each must iterate to the same epoch, or to the end.
        policy: what a file or a search gave, if the config's policy is one of these.
        storage: where lambda is kept; any gives the same result, and a checkpoint of one can be continued with another.
        on_progress: called every few seconds within an epoch, with where it stands.
        expected: what the parts of an epoch take, for the remaining time before the first one has ended.
    Raises:
        DataError: if the workers have different images, or the checkpoint is of others than there are now.
        ConfigError: if there are too many workers, the solver cannot take a problem of this size, there is no room
            for lambda, or the network shall be compiled and cannot be on this machine.
        checkpoint.UnusableCheckpoint: if the checkpoint is of this run but holds something else than the trainer saves.
    """

    def __init__(
        self,
        config: RunConfig,
        data: DataSplits,
        *,
        device: str = "cpu",
        checkpoint: StrPath | None = None,
        checkpoint_every: int = 1,
        checkpoint_steps: int | None = None,
        on_checkpoint: Callable[[], object] = lambda: None,
        group: ProcessGroup = SINGLE_PROCESS,
        policy: PolicyFile | None = None,
        storage: TableStorage = ON_DEVICE,
        on_progress: Callable[[Progress], object] | None = None,
        expected: Durations | None = None,
    ) -> None:
        self.config = config
        self.data = data
        self.device = torch.device(device)
        self.group = group
        self.classes = len(data.class_names)
        self._checkpoint = None if checkpoint is None else Path(checkpoint)
        self._checkpoint_every = checkpoint_every
        self._checkpoint_steps = checkpoint_steps
        self._on_checkpoint = on_checkpoint
        self._checkpoint_epoch = self._checkpoint_step = 0
        self._checkpoint_due = False

        if self.device.type == "cuda":
            torch.cuda.init()  # which a device with a number does not do by itself here
            torch.cuda.reset_peak_memory_stats(self.device)
        # Each has looked at the files by itself, and positions mean the same images on all or nothing at all.
        if not group.all_true(data.fingerprint == group.broadcast_object(data.fingerprint)):
            raise DataError(
                f"{config.dataset.path or config.dataset.name}: the images are not the same on all nodes that train "
                "this run: files are missing, other or damaged on some; make the copies equal"
            )
        self.shard = training_shard(data, config, group)
        self.train_size = len(self.shard.train)
        self._progress = ProgressReporter(
            config, on_progress, sizes=(self.shard.total, len(data.val) + len(data.test)), expected=expected
        )
        images, observed = self.shard.points(data)
        self.images, labels = images.loader(self.device), self._to_device(observed)
        self.val_images, self.val_labels = self._share(data.val)
        self.test_images, self.test_labels = self._share(data.test)
        mean, std = channel_statistics(data.train.images.statistics_sample())
        self.policy = None if config.policy is None else build_policy(config.policy, policy)
        warp = "fused" if config.points is None else config.points.warp
        self.pipeline = Pipeline(config.augmentation, mean.to(self.device), std.to(self.device), self.policy, warp)

        self.loss = LOSSES[config.method.loss]
        self.encoder, self.head = initial_model(config, data, self.device)
        self.encoder.bf16 = config.training.precision == "bf16"
        if self.encoder.bf16 and not computes_in_bf16(self.device):
            logger.warning(
                "training.precision: bf16 takes many times as long as fp32 here: %s lacks it", device_name(self.device)
            )
        network = group.wrap_ddp(self.encoder, self.head)
        self.network = compiled(network, self.device) if config.training.compile else network
        self.optimizer = SGD(
            [*self.encoder.parameters(), *self.head.parameters()],
            lr=config.training.lr,
            momentum=config.training.momentum,
            weight_decay=config.training.weight_decay,
        )
        self.storage = storage

        self.points = self._build_points(labels)
        self.outer = self._build_outer()
        val = self.val_images, self.val_labels
        drawn = self._generator("objective", 0)
        self.objective = build_objective(ObjectiveContext(config, data, labels, *val, self.pipeline, group, drawn))
        model = self.encoder, self.head, self.pipeline
        finetunes = config.finetune is not None
        self.finetune = HeadFinetune(config, *model, *val, len(data.val), group) if finetunes else None

        self.epoch = 0
        self.midway: MidEpochState | None = None
        self.history: list[Row] = []
        self.best: Best | None = None
        if self._checkpoint is not None:
            self._restore(self._checkpoint)

    def __iter__(self) -> Iterator[Row]:
        while self.epoch < self.config.training.epochs:
            with self._telling_where_it_goes_on():
                row = self._run_epoch(self.epoch)
            self.history.append(row)
            self._progress.epoch_ended(row)
            self.epoch += 1
            last = self.epoch == self.config.training.epochs
            self._checkpoint_due |= self.epoch % self._checkpoint_every == 0 or last
            if self._checkpoint is not None and self._checkpoint_due:
                self._checkpoint_due = not self._save(self._checkpoint)
                if not self._checkpoint_due:
                    self._checkpoint_epoch, self._checkpoint_step = self.epoch, 0
            yield row

    def _run_epoch(self, epoch: int) -> Row:
        self._started = started = self._clock() - (self.midway.seconds if self.midway is not None else 0.0)
        self.pipeline.policy = self.policy and self.policy.at(epoch / self.config.training.epochs)
        if self.finetune is not None and epoch >= self.config.finetune_start:
            drawn = self._generator("finetune", epoch), self._crops("finetune", epoch)
            watch = functools.partial(self._progress.track, phase="finetune", epoch=epoch)
            train_loss, lr = self.finetune.run(epoch, *drawn, watch)
            images = self.finetune.total
        else:
            train_loss, lr = self._inner_phase(epoch)
            images = self.shard.total
        inner_done = self._clock()
        on_val = self._evaluate(self.val_images, self.val_labels, len(self.data.val))
        on_test = self._evaluate(self.test_images, self.test_labels, len(self.data.test))
        val, test = on_val.scores(self.group), on_test.scores(self.group)
        # The val loss sees the last step too, which the train loss was summed up before.
        self._stop_unless_finite("train loss", train_loss, epoch)
        self._stop_unless_finite("val loss", val.loss, epoch)
        self._keep_best(epoch, val, test)
        eval_done = self._clock()

        outer_phase = self.config.has_outer_pass(epoch)
        if outer_phase:
            self._outer_phase(epoch, on_val)
            total = self.group.all_reduce(self.points.table.pop_update_sum())
            self._stop_unless_finite("sum of lambda", float(total), epoch)
        outer_done = self._clock()

        inner_seconds = inner_done - started
        return {
            **self.config.identity,
            "epoch": epoch,
            "train_loss": train_loss,
            "val_loss": val.loss,
            "val_error": val.error,
            "test_loss": test.loss,
            "test_error": test.error,
            "per_class_accuracy": per_class_accuracy(test.predictions, test.labels, self.classes),
            "outer_phase": outer_phase,
            "lr": lr,
            "inner_seconds": inner_seconds,
            "outer_seconds": outer_done - eval_done,
            "eval_seconds": eval_done - inner_done,
            "images_per_second": images / inner_seconds,
            "peak_memory_bytes": self.group.all_reduce_max(peak_memory_bytes(self.device)),
        }

    def _inner_phase(self, epoch: int) -> tuple[float, float]:
        """Alg. 1, lines 3 to 9: one pass over the train points, or what the checkpoint says is left of it.

        Returns:
            the mean loss and the last learning rate.
        """
        training = self.config.training
        generator = self._generator("inner", epoch)
        everything = torch.arange(len(self.images), device=self.device)
        total = self.shard.total
        batches = list(shuffled_batches(everything, total, training.batch_size, generator, self.group))
        self.network.train()
        loss_sum = torch.zeros((), device=self.device)
        begin, midway, self.midway = 0, self.midway, None
        if midway is not None:
            begin = midway.step
            midway.restore(generator, loss_sum, self.group)
        left = batches[begin:]
        reading = self.images.batches([batch.points for batch in left], self._crops("inner", epoch))
        both = zip(self.points.prefetch(left, for_update=False), reading, strict=True)

        def mean_loss(share: float) -> float:
            return float(loss_sum) / (share * len(self.images))

        watched = self._progress.track(both, "inner", epoch, total=len(batches), done=begin, mean_loss=mean_loss)
        for step, ((batch, size), images) in enumerate(watched, start=begin + 1):
            lr = training.lr * self._lr_factor(epoch + step / len(batches))
            for parameters in self.optimizer.param_groups:
                parameters["lr"] = lr
            view = self.points.view(batch)
            pixels = self.pipeline.train_view(images, generator, view.augment)
            now = TrainStep(batch, size, pixels, self.points.labels[batch], view, epoch, lr, generator)
            # The workers' gradients are averaged: over the mean size of their parts that is the whole batch's mean.
            part = size / self.group.size
            loss = self.objective.losses(self.network, now).sum() / part
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss_sum += loss.detach() * part
            if self._checkpoint_steps and (step % self._checkpoint_steps == 0 or step == len(batches)):
                self._save_midway(step, generator, loss_sum)
        return float(self.group.all_reduce(loss_sum)) / total, self.optimizer.param_groups[0]["lr"]

    def _outer_phase(self, epoch: int, val: Evaluation) -> None:
        """Alg. 1, lines 10 to 19: lam of the distorted train points moves; trusted val points keep theirs."""
        assert self.outer is not None
        assert self.config.outer is not None
        lr = self.config.outer.every * self.config.outer.lr * self._outer_lr_factor(epoch, self.config.outer)
        watch = functools.partial(self._progress.track, phase="outer", epoch=epoch)
        self.outer.run(val, lr, self._generator("outer", epoch), self._crops("outer", epoch), watch)

    def outcome(self, *, keep_embeddings: bool = False) -> Outcome:
        """The tables of a finished run; of several workers all must call this, and the first has all points.

        On the others the points table holds those of their shards, without thumbnails, and there are no embeddings.

        Args:
            keep_embeddings: of the test images too; costs one evaluation of them.
        """
        assert self.epoch == self.config.training.epochs, f"the run stands at epoch {self.epoch}"
        assert self.best is not None
        with self._telling_where_it_goes_on():
            own = self._train_points()
            points = merged(self.group.gather(own) or [own])
            if self.group.is_first:
                points = with_thumbnails(points, self.data.train.images)
            embeddings = self._embeddings() if keep_embeddings else None
        device = device_name(self.device, self.group.size)
        return build_outcome(
            self.config, self.data, self.history, self.best, points, embeddings, device, self.classifier()
        )

    def _train_points(self) -> tuple[Integers, pa.Table]:
        """This worker's train points, their positions among all and their rows of the points table.

        A stretch of them at a time, so that there never are logits and targets of all.
        """
        train, given = self.shard.train, self.data.train
        images, observed = self.images, self.points.labels
        if not self.config.trains_on_train:
            train = self.group.shard(np.arange(len(given)))
            images, observed = given.images[train].loader(self.device), self._to_device(given.labels[train])
        size = max(1, STRETCH // self._evaluation_batch) * self._evaluation_batch
        parts = []
        for first in range(0, len(train), size):
            positions = train[first : first + size]
            last = first + len(positions)
            evaluation = self._evaluate(images.rows(first, last), observed[first:last])
            view = self.points.view_on_host(range(self.train_size)[first:last])
            parts.append((positions, points_table(self.config, given, positions, evaluation, self.points, view)))
        return train, merged(parts)

    def classifier(self) -> Classifier:
        """The task model of the epoch with the lowest val error, on the CPU."""
        assert self.best is not None
        return classifier_of(self.best, self.config, self.data, self.pipeline)

    def _embeddings(self) -> pa.Table | None:
        """The embeddings table, on the first worker."""
        assert self.best is not None
        model = best_model(self.best, self.config, self.data, self.device)
        features = self._evaluate(self.test_images, self.test_labels, len(self.data.test), model).features
        hands = self.group.gather(features.cpu().numpy())
        if not self.group.is_first:
            return None
        return embeddings_table(self.config, self.data, self.best, self.group.unshard(hands))

    # --- setting up, keeping and continuing ---

    def _build_points(self, labels: Tensor) -> PointModel:
        """The per-point model of this worker's train points, with the given labels."""
        config, stream, device = self.config, self.group.stream, self.device

        # It holds nothing of this training: a table that did would keep it, and all that it has on a GPU, until Python
        # looks for cycles.
        def rounding(step: int) -> torch.Generator:
            return torch_generator(config.seed, "rounding of lambda", step, *stream, device=device)

        eps = 1e-8 if config.outer is None else config.outer.eps
        return PointModel(config.points, labels, self.classes, storage=self.storage, rounding=rounding, eps=eps)

    def _build_outer(self) -> OuterPass | None:
        if self.config.outer is None:
            return None
        model = self.encoder, self.head, self.pipeline
        return OuterPass(
            self.config.outer,
            self.loss,
            *model,
            self.points,
            self.images,
            learnable=self.train_size,
            totals=(self.shard.total, len(self.data.train)),
            weight_decay=self.config.training.weight_decay,
            batch_size=self.config.training.batch_size,
            group=self.group,
        )

    def _keep_best(self, epoch: int, val: Scores, test: Scores) -> None:
        """Keeps the epoch with the lowest val error, its weights and predictions; ties go to the lower val loss."""
        if self.best is None or (val.error, val.loss) < (self.best.val_error, self.best.val_loss):
            self.best = Best.of(epoch, val, test, self.encoder, self.head)

    @contextlib.contextmanager
    def _telling_where_it_goes_on(self) -> Iterator[None]:
        """Completes what is said of an image that cannot be read any more."""
        try:
            yield
        except ImageLost as error:
            epoch, step, epochs = self._checkpoint_epoch, self._checkpoint_step, self.config.training.epochs
            place = f"step {step} of epoch {epoch + 1}/{epochs}" if step else f"epoch {epoch}/{epochs}"
            kept = (
                f"goes on from its checkpoint after {place}" if epoch or step else "has no checkpoint and begins anew"
            )
            node = f"node {socket.gethostname()}: " if self.group.size > 1 else ""  # each has files of its own
            raise ImageLost(f"{node}{error}: the run {kept}") from None

    def _stop_unless_finite(self, what: str, value: float, epoch: int) -> None:
        if not math.isfinite(value):
            raise TrainingDiverged(what, epoch, self._checkpoint_epoch)

    def _evaluate(
        self,
        images: DeviceLoader,
        labels: Tensor,
        total: int | None = None,
        model: tuple[nn.Module, nn.Module] | None = None,
    ) -> Evaluation:
        """Of this worker's images of a set of `total`; of a set that it has alone if None.

        Args:
            model: encoder and head; as they are now if None.
        """
        encoder, head = model or (self.encoder, self.head)
        total = len(labels) if total is None else total
        return evaluate(encoder, head, self.pipeline, images, labels, total=total, batch_size=self._evaluation_batch)

    @property
    def _evaluation_batch(self) -> int:
        """Images of a worker's batch where nothing is trained."""
        return math.ceil(self.config.training.batch_size / self.group.size)

    def state_dict(self) -> dict[str, Any]:
        """All that another training of this run needs to continue from here, as tensors and plain values."""
        return {
            "epoch": self.epoch,
            "step": 0 if self.midway is None else self.midway.step,
            "data": self.data.fingerprint,
            "midway": None if self.midway is None else dataclasses.asdict(self.midway),
            "encoder": self.encoder.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": None if self.best is None else self.best._asdict(),
            "objective": self.objective.state_dict(),
            "finetune": {} if self.finetune is None else self.finetune.state_dict(),
            "points": {**self.points.table.state_dict(), **self.objective.rows()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over such a state."""
        self.encoder.load_state_dict(state["encoder"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.points.table.load_state_dict(state["points"])
        self.objective.load(state["points"], state["objective"])
        if self.finetune is not None:
            self.finetune.load_state_dict(state["finetune"])
        self.history = list(state["history"])
        for row in self.history:
            self._progress.epoch_ended(row)
        self.best = None if state["best"] is None else Best(**state["best"])
        midway = state.get("midway")
        self.midway = None if midway is None else MidEpochState(**midway)
        self.epoch = self._checkpoint_epoch = state["epoch"]
        self._checkpoint_step = 0 if self.midway is None else self.midway.step

    def _save(self, path: Path) -> bool:
        """Writes a checkpoint of what there is now; returns whether it could be."""
        state = self.state_dict()
        rows = state.pop("points")
        run_id, apart = self.config.run_id, self.storage.off_device
        return checkpoints.save(path, run_id, state, rows, self._positions, self.group, apart=apart)

    def _save_midway(self, step: int, generator: torch.Generator, loss_sum: Tensor) -> None:
        """Writes a checkpoint within an inner phase."""
        if self._checkpoint is None:
            return
        # The weights see the last step too, which the train loss was summed up before.
        weights = torch.stack([parameter.detach().sum() for parameter in self.network.parameters()]).sum()
        self._stop_unless_finite("train loss", float(self.group.all_reduce(loss_sum) + weights), self.epoch)
        self.midway = MidEpochState.of(step, self._clock() - self._started, generator, loss_sum, self.group)
        if self._save(self._checkpoint):
            self._checkpoint_epoch, self._checkpoint_step = self.epoch, step
            self._on_checkpoint()
        self.midway = None

    def _restore(self, path: Path) -> None:
        run_id, data = self.config.run_id, self.data.fingerprint
        state = checkpoints.load(path, run_id, self._positions, self.group, self.storage.allocate_on_host, data=data)
        if state is None:
            return
        try:
            self.load_state_dict(state)
            told = ""
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            told = f"{type(error).__name__}: {error}"
        if not self.group.all_true(not told):
            raise checkpoints.UnusableCheckpoint(told or "another worker cannot use it")

    def _lr_factor(self, progress: float) -> float:
        training = self.config.training
        return learning_rate_factor(progress, self.config.finetune_start, training.warmup_epochs)

    def _outer_lr_factor(self, epoch: int, outer: OuterConfig) -> float:
        if outer.schedule == "shared":
            return self._lr_factor(epoch)
        return restarted_factor(
            epoch,
            start=self.config.outer_start,
            epochs=self.config.finetune_start,
            warmup_epochs=self.config.training.warmup_epochs,
            every=outer.every,
        )

    def _generator(self, phase: str, epoch: int) -> torch.Generator:
        """Of a phase of an epoch, or of whatever else is counted."""
        return torch_generator(self.config.seed, phase, epoch, *self.group.stream, device=self.device)

    def _crops(self, phase: str, epoch: int) -> CropParameters | None:
        """What is cut out of streamed images in a phase of an epoch, by no matter which worker."""
        scale = self.config.augmentation.resized_crop
        return None if scale is None else CropParameters(scale, seed=derive(self.config.seed, "crops", phase, epoch))

    @property
    def _positions(self) -> Tensor | None:
        """Which points the rows of this worker's table are of; None if all workers have the same row."""
        return None if self.points.shared else torch.from_numpy(self.shard.positions)

    def _share(self, images: ImageSet) -> tuple[DeviceLoader, Tensor]:
        """Images and labels of this worker's share of a set."""
        mine = slice(self.group.rank, None, self.group.size)
        return images.images[mine].loader(self.device), self._to_device(images.labels[mine])

    def _to_device(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
