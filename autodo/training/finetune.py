"""Last epochs of a run in which only the head is trained, on the val images."""

import torch
from torch import Tensor

from autodo.data.batches import shuffled_batches
from autodo.objectives.base import cross_entropies
from autodo.progress import ProgressReporter
from autodo.training.context import LabelledImages, PhaseResult, RunContext
from autodo.training.optimizers import build_optimizer
from autodo.training.schedule import learning_rate_factor
from autodo.training.task_model import TaskModel


class HeadFinetune:
    """Descent on the cross-entropy of augmented val images, in the parameters of the head alone.

    The encoder is in eval mode: neither its weights nor the statistics of its batch norm move. The head starts from its
    present weights, with the run's optimizer, momentum and weight decay; its learning rate follows half a cosine to 0.
    With `training.ema` the phase starts from the averaged weights of encoder and head, and from there on averages the
    head.

    Args:
        val: this process's shard of val.
    Reference: Kang et al. 2020, section 4 (cRT), which trains a new head, on the train images.
    """

    def __init__(self, context: RunContext, val: LabelledImages, model: TaskModel, progress: ProgressReporter) -> None:
        config, training = context.config.finetune, context.config.training
        assert config is not None
        self.context = context
        self.val = val
        self.model = model
        self.progress = progress
        self.class_balanced = config.class_balanced
        self.lr = config.lr or training.lr
        self.optimizer = build_optimizer(training, model.head.parameters(), lr=self.lr)

    def run(self, epoch: int) -> PhaseResult:
        """Trains the head for one epoch, on as many images as val has."""
        context, config, group = self.context, self.context.config, self.context.group
        started = context.clock()
        generator = context.generator("finetune", epoch)
        start, epochs = config.finetune_start, config.training.epochs
        if epoch == start and self.model.average is not None:
            self.model.average.adopt()
        drawn = self._draw(generator)
        batches = list(shuffled_batches(drawn, self.val.total, config.training.batch_size, generator, group))
        parameters = list(self.model.head.parameters())
        loss_sum = torch.zeros((), device=context.device)
        self.model.encoder.eval()
        images_of_batches = self.val.images.batches(
            [batch.points for batch in batches], context.crops("finetune", epoch)
        )
        steps = self.progress.track(zip(batches, images_of_batches, strict=True), "finetune", epoch, total=len(batches))
        for step, ((batch, size), images) in enumerate(steps, start=1):
            self.optimizer.lr = self.lr * learning_rate_factor(epoch - start + step / len(batches), epochs - start, 0)
            with torch.no_grad():
                features = self.model.encoder(self.model.pipeline.train_view(images, generator))
            loss = cross_entropies(self.model.head(features), self.val.labels[batch]).sum() / size
            # Not backward(), which would average the gradients of the whole network over the processes.
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.grad = group.all_reduce(gradient)
            self.optimizer.step()
            self.model.weights_moved()
            loss_sum += loss.detach() * size
        mean_loss = float(group.all_reduce(loss_sum)) / self.val.total
        return PhaseResult(mean_loss, self.optimizer.lr, self.val.total, context.clock() - started)

    def _draw(self, generator: torch.Generator) -> Tensor:
        """This process's images of an epoch. Shape: -> [m] int64."""
        labels = self.val.labels
        if not self.class_balanced:
            return torch.arange(len(labels), device=labels.device)
        chances = 1 / torch.bincount(labels).to(torch.float32)[labels]
        return torch.multinomial(chances, len(labels), replacement=True, generator=generator)
