"""Evaluation of the task model on sets of images, without augmentation."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from autodo.evaluation import Evaluation
from autodo.training.context import LabelledImages, RunContext
from autodo.training.task_model import TaskModel

CHUNK_SIZE = 2**17
"""Points whose features and logits are in memory at a time, where a set may have many."""


class Evaluator:
    """Runs the model in eval mode, in batches as large as those of training."""

    def __init__(self, context: RunContext, model: TaskModel) -> None:
        self.model = model
        self.batch_size = math.ceil(context.config.training.batch_size / context.group.size)

    @torch.no_grad()
    def evaluate(self, given: LabelledImages, model: tuple[nn.Module, nn.Module] | None = None) -> Evaluation:
        """Outputs for this process's images of a set, which may be empty.

        Args:
            model: encoder and head in place of the run's `evaluated` ones.
        """
        encoder, head = model or self.model.evaluated
        encoder.eval()
        views = (self.model.pipeline.test_view(batch) for batch in given.images.in_order(self.batch_size))
        if len(given.labels):
            features = torch.cat([encoder(view) for view in views])
        else:  # not every network takes an empty batch
            features = next(head.parameters()).new_empty(0, self.model.encoder.features)
        return Evaluation(features, head(features), given.labels, given.total)

    def chunks(
        self, given: LabelledImages, count: int, model: tuple[nn.Module, nn.Module] | None = None
    ) -> Iterator[tuple[range, Evaluation]]:
        """Positions and outputs of the first `count` images, in chunks, so that memory does not grow with them."""
        size = max(1, CHUNK_SIZE // self.batch_size) * self.batch_size
        for first in range(0, count, size):
            rows = range(first, min(first + size, count))
            chunk = given.images.rows(rows.start, rows.stop), given.labels[rows.start : rows.stop]
            yield rows, self.evaluate(LabelledImages(*chunk, len(rows)), model)
