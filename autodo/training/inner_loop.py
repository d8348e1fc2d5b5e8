"""Lines 3 to 9 of Algorithm 1: one pass over the train points, in which theta moves."""

from dataclasses import dataclass

import torch
from torch import Tensor

from autodo.augment.adversarial.adversarial_policy import AdversarialPolicy
from autodo.data.batches import shuffled_batches
from autodo.objectives import Objective, TrainStep
from autodo.points.model import PointModel
from autodo.progress import ProgressReporter
from autodo.seeds import global_generators_kept, seed_layers
from autodo.training.checkpointer import Checkpointer
from autodo.training.context import LabelledImages, PhaseResult, RunContext
from autodo.training.schedule import inner_factor
from autodo.training.task_model import TaskModel


@dataclass(eq=False)
class InnerLoop:
    """Trains the task model with the objective of the run; lambda stands still.

    Args:
        train: this process's points of the inner problem.
        untrusted: number of train points among them, which come first, and over all processes.
        checkpointer: saves within an epoch, and has the state of one that was interrupted.
        online_policy: policy that learns from the train loss; batches then have copies of each image.
    """

    context: RunContext
    train: LabelledImages
    untrusted: tuple[int, int]
    model: TaskModel
    points: PointModel
    objective: Objective
    checkpointer: Checkpointer
    progress: ProgressReporter
    online_policy: AdversarialPolicy | None = None

    def run(self, epoch: int) -> PhaseResult:
        """Trains for one epoch, or for the rest of one that was interrupted."""
        with global_generators_kept(self.context.device):
            return self._run(epoch)

    def _run(self, epoch: int) -> PhaseResult:
        context, config, group = self.context, self.context.config, self.context.group
        copies = 1 if self.online_policy is None else self.online_policy.copies
        model, drop_last = self.model, config.training.last_batch == "drop"
        generator = context.generator("inner", epoch)
        whole = len(self.train.images), self.train.total
        own, everywhere = self.untrusted if self.objective.prepares(epoch) else whole
        points = torch.arange(own, device=context.device)
        batches = list(
            shuffled_batches(points, everywhere, config.training.batch_size, generator, group, drop_last=drop_last)
        )
        total, count = sum(batch.size for batch in batches), sum(len(batch.points) for batch in batches)
        loss_sum = torch.zeros((), device=context.device)
        done, started = 0, context.clock()
        interrupted = self.checkpointer.state.pop_mid_epoch()
        if interrupted is not None:
            done, started = interrupted.step, started - interrupted.seconds
            interrupted.restore(generator, loss_sum, group)
        elif self.objective.restarts_network(epoch):
            model.restart(context)
        model.network.train()
        left = batches[done:]
        images_of_batches = self.train.images.batches([batch.points for batch in left], context.crops("inner", epoch))
        steps = self.progress.track(
            zip(self.points.prefetch(left, for_update=False), images_of_batches, strict=True),
            "inner",
            epoch,
            total=len(batches),
            done=done,
            mean_loss=lambda share: float(loss_sum) / (share * count),
        )
        for step, ((batch, size), images) in enumerate(steps, start=done + 1):
            lr = config.training.lr * inner_factor(config, epoch + step / len(batches))
            model.optimizer.lr = lr
            seed_layers(config.seed, "layers", epoch, step, *group.stream, device=context.device)
            rows = repeated(batch, copies)
            view = self.points.view(rows)
            pixels = model.pipeline.train_view(repeated(images, copies), generator, view.augment)
            train_step = TrainStep(rows, size * copies, pixels, self.train.labels[rows], view, epoch, lr, generator)
            # Gradients are averaged over the processes: divided by the mean shard size, that is the whole batch's mean.
            shard_size = size / group.size
            losses = self.objective.losses(model.network, train_step)
            loss = losses.sum() / (shard_size * copies)
            model.optimizer.zero_grad()
            loss.backward()
            model.optimizer.step()
            model.weights_moved()
            loss_sum += loss.detach() * shard_size
            if self.online_policy is not None:
                self.online_policy.record(losses, size)
            self.checkpointer.step_ended(step, len(batches), started, generator, loss_sum)
        if self.online_policy is not None:
            self.online_policy.end_epoch()
        mean_loss = float(group.all_reduce(loss_sum)) / total
        return PhaseResult(mean_loss, model.optimizer.lr, total, context.clock() - started)


def repeated(rows: Tensor, copies: int) -> Tensor:
    """Rows with their copies next to one another. Shape: [b, ...] -> [b copies, ...]."""
    return rows if copies == 1 else rows.repeat_interleave(copies, 0)
