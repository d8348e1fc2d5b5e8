"""Algorithm 1: train the task model, and from the outer start on move lambda once after every epoch."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autodo.augment.adversarial.adversarial_policy import AdversarialPolicy
from autodo.augment.policies import Policy, build_policy
from autodo.augment.policy_file import PolicyFile
from autodo.config.policy import AdversarialAutoAugment
from autodo.config.run import RunConfig
from autodo.data import DataSplits
from autodo.data.sharding import inner_points
from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from autodo.evaluation import Evaluation, Scores, per_class_accuracy
from autodo.io.storage import StrPath
from autodo.objectives import Objective, ObjectiveContext, build_objective
from autodo.points.model import PointModel
from autodo.points.table_storage import ON_DEVICE, TableStorage
from autodo.progress import Durations, Progress, ProgressReporter
from autodo.results.outcome import BestEpoch, Outcome
from autodo.results.provenance import peak_memory_bytes
from autodo.training.checkpointer import Checkpointer
from autodo.training.context import Loaders, RunContext
from autodo.training.evaluator import Evaluator
from autodo.training.finetune import HeadFinetune
from autodo.training.frozen_features import with_features
from autodo.training.head_solver import HeadSolver, SolvedHead
from autodo.training.inner_loop import InnerLoop
from autodo.training.outer_loop import OuterLoop
from autodo.training.results_builder import ResultsBuilder
from autodo.training.state import EpochRow, TrainState
from autodo.training.task_model import TaskModel, new_network, set_fp32_precision


class Trainer:
    """Training of one run. Iterating trains it, and yields each epoch's row of `records.SCHEMAS["epochs"]`.

    Every random stream derives from (seed, phase, epoch), so a run that continues from its checkpoint takes the same
    course as one that was never interrupted.

    Several processes may train a run together, each with the same arguments: a process keeps the train points of its
    shard and their lambda for the whole run, and evaluates its shard of the other images. A batch has
    `training.batch_size` images over all processes. The rows are the same on all of them, except for the times.

    Args:
        data: from `autodo.data.prepare` with the same config. Without test images there are no test values.
        group: the processes that train together; each must iterate to the same epoch, or to the end.
        policy: augmentation policy from a file or a search, if the config names one.
        storage: where lambda is kept; the results are the same, and a checkpoint continues with any other storage.
        checkpoint: file to continue from, if it exists, and to write to, on a file system that all processes share;
            None keeps nothing.
        checkpoint_every: epochs between checkpoints.
        checkpoint_steps: steps between checkpoints within the inner loop of an epoch, which then also ends with one;
            None for none. An interrupted outer pass, or epoch of `finetune`, starts again.
        on_checkpoint: called after each checkpoint within an epoch.
        test_every: epochs between evaluations of the test images. The last epoch and those that become the best one
            are evaluated too. The rows of other epochs have no test values, and the results no `error_best_test`.
        on_progress: called every few seconds within an epoch, and while the features of a frozen encoder are computed.
        expected: duration of each part of an epoch, to estimate the remaining time before the first one has ended.
    Raises:
        DataError: if the processes have different images, or the checkpoint is of other images.
        ConfigError: if there are too many processes, the solver cannot take a problem of this size, there is no room
            for lambda, or the network should be compiled and cannot be on this machine.
        checkpoint.UnusableCheckpoint: if the checkpoint is of this run and does not hold the state of a training.
    """

    def __init__(
        self,
        config: RunConfig,
        data: DataSplits,
        *,
        device: str = "cpu",
        group: ProcessGroup = SINGLE_PROCESS,
        policy: PolicyFile | None = None,
        storage: TableStorage = ON_DEVICE,
        checkpoint: StrPath | None = None,
        checkpoint_every: int = 1,
        checkpoint_steps: int | None = None,
        on_checkpoint: Callable[[], object] = lambda: None,
        test_every: int = 1,
        on_progress: Callable[[Progress], object] | None = None,
        expected: Durations | None = None,
    ) -> None:
        self.config = config
        self.test_every = test_every
        context = RunContext(config, data, torch.device(device), group)
        if context.device.type == "cuda":
            torch.cuda.init()  # which a device with a number does not do by itself here
            torch.cuda.reset_peak_memory_stats(context.device)
            set_fp32_precision()
        self.context = context
        self.online_policy = self._build_online_policy()
        self.policy: Policy | None = self.online_policy
        if config.policy is not None and self.online_policy is None:
            self.policy = build_policy(config.policy, policy)
        context.check_same_images()
        sizes = inner_points(config, data), len(data.val) + len(data.test)
        progress = ProgressReporter(config, on_progress, sizes=sizes, expected=expected)
        self.context = context = with_features(context, self.policy, progress)
        self.loaders = Loaders(context)
        self.model = model = TaskModel(context, self.policy)
        self.points = self._build_points(storage)
        objective = self._build_objective()
        self.outer = (
            None if config.outer is None else OuterLoop(context, self.loaders, model, self.points, objective, progress)
        )
        val = self.loaders.val
        self.finetune = None if config.finetune is None else HeadFinetune(context, val, model, progress)
        self.evaluator = evaluator = Evaluator(context, model)
        self.head_solver = (
            None
            if config.head is None
            else HeadSolver(config.head, context, self.loaders, self.points, objective, evaluator)
        )
        self.state = TrainState(
            data.fingerprint, model, self.points, objective, self.finetune, progress, self.online_policy
        )
        self.checkpointer = Checkpointer(
            context,
            self.state,
            self.loaders,
            storage,
            path=None if checkpoint is None else Path(checkpoint),
            every=checkpoint_every,
            steps=checkpoint_steps,
            on_checkpoint=on_checkpoint,
        )
        train, untrusted = self.loaders.train, (self.loaders.train_size, self.loaders.shard.train_total)
        self.inner = InnerLoop(
            context, train, untrusted, model, self.points, objective, self.checkpointer, progress, self.online_policy
        )
        self.checkpointer.restore()

    def __iter__(self) -> Iterator[EpochRow]:
        while self.state.epoch < self.config.training.epochs:
            with self.checkpointer.resume_hint():
                row = self.train_epoch(self.state.epoch)
            self.state.advance(row)
            self.checkpointer.epoch_ended()
            yield row

    def train_epoch(self, epoch: int) -> EpochRow:
        """Inner loop, evaluation and outer pass of an epoch; returns its row of the epochs table."""
        config, group, clock = self.config, self.context.group, self.context.clock
        if self.online_policy is not None:
            self.online_policy.begin_epoch(epoch)
        self.model.pipeline.policy = self.policy and self.policy.at(epoch / config.training.epochs)
        steps = self.finetune if self.finetune is not None and epoch >= config.finetune_start else self.inner
        train = steps.run(epoch)

        inner_done = clock()
        val_outputs = self.evaluator.evaluate(self.loaders.val)
        val = val_outputs.scores(group)
        self.checkpointer.require_finite("train loss", train.loss)
        # Unlike the train loss, the val loss depends on the last step too.
        self.checkpointer.require_finite("val loss", val.loss)
        objective, last = self.state.objective, epoch == config.training.epochs - 1
        chosen = (last or config.training.selection == "best-val") and not objective.prepares(epoch)
        chosen = chosen and self.state.improves(val)
        tested = len(self.context.data.test) > 0 and (last or (epoch + 1) % self.test_every == 0)
        test = self.evaluator.evaluate(self.loaders.test).scores(group) if tested or chosen else None
        if chosen:
            assert test is not None
            self.state.best = BestEpoch.copy_of(epoch, val, test, *self.model.evaluated)
        objective.epoch_ended(epoch, val_outputs, self._train_outputs)

        evaluation_done = clock()
        trained = self.model.encoder, self.model.head
        solves_head, estimates_labels = config.solves_head(epoch), config.estimates_labels(epoch)
        solved: SolvedHead | None = None
        if solves_head or estimates_labels:
            assert self.head_solver is not None
            solved = self.head_solver.run(trained)
            if solves_head:
                self.model.replace_head(solved.head)
            if estimates_labels:
                assert solved.posterior is not None
                self.points.set_posterior(solved.posterior)
        outer_phase = config.has_outer_pass(epoch)
        if outer_phase:
            assert self.outer is not None
            # The implicit gradient is that of the weights that train, so val is evaluated with them too.
            if self.model.average is not None:
                val_outputs = self.evaluator.evaluate(self.loaders.val, trained)
            elif solves_head:
                with torch.no_grad():
                    val_outputs = dataclasses.replace(val_outputs, logits=self.model.head(val_outputs.features))
            self.checkpointer.require_finite("sum of lambda", self.outer.run(epoch, val_outputs, solved))
        outer_done = clock()

        return {
            **config.identity,
            "epoch": epoch,
            "train_loss": train.loss,
            "val_loss": val.loss,
            "val_error": val.error,
            **self._test_columns(test if tested else None),
            "outer_phase": outer_phase,
            "lr": train.lr,
            "inner_seconds": train.seconds,
            "outer_seconds": outer_done - evaluation_done,
            "eval_seconds": evaluation_done - inner_done,
            "images_per_second": train.images / train.seconds,
            "peak_memory_bytes": group.all_reduce_max(peak_memory_bytes(self.context.device)),
        }

    def _test_columns(self, test: Scores | None) -> dict[str, Any]:
        if test is None:
            return {"test_loss": None, "test_error": None, "per_class_accuracy": None}
        accuracy = per_class_accuracy(test.predictions, test.labels, self.points.classes)
        return {"test_loss": test.loss, "test_error": test.error, "per_class_accuracy": accuracy}

    def outcome(self, *, keep_embeddings: bool = False) -> Outcome:
        """The tables of a finished run; all processes must call this, and the first one has all points.

        On the others the points table holds their shards, without thumbnails, and there are no embeddings.

        Args:
            keep_embeddings: adds the embeddings of the test images, at the cost of one evaluation of them.
        """
        state = self.state
        assert state.epoch == self.config.training.epochs, f"the run stands at epoch {state.epoch}"
        assert state.best is not None
        builder = ResultsBuilder(self.context, self.loaders, self.points, self.evaluator)
        with self.checkpointer.resume_hint():
            solved = None if self.head_solver is None else self.head_solver.run()
            best = state.best if solved is None else self._last_epoch(solved.head)
            return builder.outcome(state.history, best, solved, keep_embeddings=keep_embeddings)

    def _last_epoch(self, head: nn.Linear) -> BestEpoch:
        """The state after the last epoch, with this head."""
        model = self.model.evaluated[0], head
        val, test = (
            self.evaluator.evaluate(images, model).scores(self.context.group)
            for images in (self.loaders.val, self.loaders.test)
        )
        return BestEpoch.copy_of(self.state.epoch - 1, val, test, *model)

    def _train_outputs(self) -> Iterator[Evaluation]:
        """Outputs for this process's train points, in chunks."""
        return (outputs for _, outputs in self.evaluator.chunks(self.loaders.train, self.loaders.train_size))

    def _build_online_policy(self) -> AdversarialPolicy | None:
        """The policy that learns within the run; None if its policy stays as it is."""
        settings, context = self.config.policy, self.context
        if not isinstance(settings, AdversarialAutoAugment):
            return None
        return AdversarialPolicy(settings, seed=self.config.seed, group=context.group, device=context.device)

    def _build_points(self, storage: TableStorage) -> PointModel:
        """Lambda of this process's points."""
        config, context = self.config, self.context

        # Refers to the context, not to the trainer: a cycle would keep the trainer's GPU memory until Python looks for
        # cycles.
        def rounding(step: int) -> torch.Generator:
            return context.generator("rounding of lambda", step)

        return PointModel(
            config.points,
            self.loaders.train.labels,
            len(context.data.class_names),
            storage=storage,
            rounding=rounding,
            eps=1e-8 if config.outer is None else config.outer.eps,
            shared_generator=context.shared_generator,
        )

    def _build_objective(self) -> Objective:
        context, loaders = self.context, self.loaders
        return build_objective(
            ObjectiveContext(
                self.config,
                context.data,
                loaders.train.labels,
                loaders.train_size,
                loaders.val.images,
                loaders.val.labels,
                self.model.pipeline,
                context.group,
                context.generator("objective", 0),
                functools.partial(new_network, context, "peer network"),
            )
        )
