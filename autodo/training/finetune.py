"""The last epochs of a run whose head is trained on the val images: the encoder stands still."""

from typing import Any

import torch
from torch import Tensor, nn

from autodo.augment.pipeline import Pipeline
from autodo.config.run import RunConfig
from autodo.data.batches import shuffled_batches
from autodo.data.images.crop import CropParameters
from autodo.data.images.device_loader import DeviceLoader
from autodo.distributed.process_group import ProcessGroup
from autodo.objectives.base import cross_entropies
from autodo.progress import TrackSteps, untracked
from autodo.training.schedule import learning_rate_factor
from autodo.training.sgd import SGD


class HeadFinetune:
    """SGD of the cross-entropy of augmented val images, in the head's parameters alone.

    The encoder is in eval mode: neither its weights nor the statistics of its batch norm move. The head goes on from
    where it is, with the run's momentum and weight decay; its learning rate follows half a cosine to 0.

    Args:
        images, labels: this worker's share of val; the labels on the training device.
        total: val images of all workers.
    Shape:
        labels [m] int64.
    Reference: Kang et al. 2020, section 4 (cRT), which trains a new head, on the train images.
    """

    def __init__(
        self,
        config: RunConfig,
        encoder: nn.Module,
        head: nn.Module,
        pipeline: Pipeline,
        images: DeviceLoader,
        labels: Tensor,
        total: int,
        group: ProcessGroup,
    ) -> None:
        assert config.finetune is not None
        training = config.training
        self.config = config
        self.encoder, self.head, self.pipeline = encoder, head, pipeline
        self.images, self.labels, self.total = images, labels, total
        self.group = group
        self.class_balanced = config.finetune.class_balanced
        self.lr = config.finetune.lr or training.lr
        self.optimizer = SGD(
            head.parameters(), lr=self.lr, momentum=training.momentum, weight_decay=training.weight_decay
        )

    def run(
        self,
        epoch: int,
        generator: torch.Generator,
        crops: CropParameters | None = None,
        watch: TrackSteps = untracked,
    ) -> tuple[float, float]:
        """One pass over as many images as val has.

        Args:
            crops: what is cut out of streamed images; the same of an image that is drawn twice.
            watch: given the steps, reports where they are.
        Returns:
            the mean loss and the last learning rate.
        """
        start, epochs = self.config.finetune_start, self.config.training.epochs
        drawn = self._draw(generator)
        batches = list(shuffled_batches(drawn, self.total, self.config.training.batch_size, generator, self.group))
        parameters = list(self.head.parameters())
        loss_sum = torch.zeros((), device=self.labels.device)
        self.encoder.eval()
        coming = self.images.batches([batch.points for batch in batches], crops)
        both = watch(zip(batches, coming, strict=True), total=len(batches))
        for step, ((batch, size), images) in enumerate(both, start=1):
            lr = self.lr * learning_rate_factor(epoch - start + step / len(batches), epochs - start, 0)
            for parameter_group in self.optimizer.param_groups:
                parameter_group["lr"] = lr
            with torch.no_grad():
                features = self.encoder(self.pipeline.train_view(images, generator))
            loss = cross_entropies(self.head(features), self.labels[batch]).sum() / size
            # Not backward(), which would go through what averages the workers' gradients of the whole network.
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.grad = self.group.all_reduce(gradient)
            self.optimizer.step()
            loss_sum += loss.detach() * size
        return float(self.group.all_reduce(loss_sum)) / self.total, lr

    def _draw(self, generator: torch.Generator) -> Tensor:
        """This worker's images of an epoch. Shape: -> [m] int64."""
        count = len(self.labels)
        if not self.class_balanced:
            return torch.arange(count, device=self.labels.device)
        chances = 1 / torch.bincount(self.labels).to(torch.float32)[self.labels]
        return torch.multinomial(chances, count, replacement=True, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """What it knows besides the head: the momentum."""
        state: dict[str, Any] = self.optimizer.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a state of the same run."""
        self.optimizer.load_state_dict(state)
