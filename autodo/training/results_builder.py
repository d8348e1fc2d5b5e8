"""The tables and the classifier of a finished run, collected from all processes."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from autodo.data.images.image_set import Integers
from autodo.points.model import PointModel
from autodo.results.outcome import BestEpoch, Outcome, build_outcome, embeddings_table, merged, points_table
from autodo.results.provenance import device_name
from autodo.results.thumbnails import with_thumbnails
from autodo.training.context import Loaders, RunContext
from autodo.training.evaluator import Evaluator
from autodo.training.head_solver import SolvedHead
from autodo.training.state import EpochRow
from autodo.training.task_model import best_classifier, best_model


@dataclass(eq=False)
class ResultsBuilder:
    """Evaluates the train points, and if asked the test images, and builds the tables."""

    context: RunContext
    loaders: Loaders
    points: PointModel
    evaluator: Evaluator

    def outcome(
        self, history: list[EpochRow], best: BestEpoch, solved: SolvedHead | None = None, *, keep_embeddings: bool
    ) -> Outcome:
        """See `Trainer.outcome`.

        Args:
            solved: the head of `best`, if it was solved; the points table is then about it.
        """
        config, data, group = self.context.config, self.context.data, self.context.group
        shard = self._points_of_shard(solved)
        points = merged(group.gather(shard) or [shard])
        if group.is_first:
            points = with_thumbnails(points, self.context.train_images)
        embeddings = self._embeddings(best) if keep_embeddings else None
        device = device_name(self.context.device, group.size)
        classifier = best_classifier(best, self.context, self.evaluator.model.pipeline)
        seconds = 0.0 if solved is None else solved.seconds
        return build_outcome(config, data, history, best, points, embeddings, device, classifier, seconds)

    def _points_of_shard(self, solved: SolvedHead | None) -> tuple[Integers, pa.Table]:
        """Positions of this process's train points and their rows of the points table.

        Works in chunks, so that memory does not grow with the number of points.
        """
        config, train = self.context.config, self.context.data.train
        positions, images = self.loaders.shard.train, self.loaders.train
        if not config.trains_on_train:
            positions = np.arange(len(train))[self.context.group.shard]
            images = self.loaders.load(train.images[positions], train.labels[positions], len(train))
        parts = []
        model = None if solved is None else (self.evaluator.model.evaluated[0], solved.head)
        for rows, evaluation in self.evaluator.chunks(images, len(positions), model):
            chunk = positions[rows.start : rows.stop]
            view = self.points.view_on_host(range(self.loaders.train_size)[rows.start : rows.stop])
            posterior = None if solved is None or solved.posterior is None else solved.posterior[rows.start : rows.stop]
            parts.append((chunk, points_table(config, train, chunk, evaluation, self.points, view, posterior)))
        return positions, merged(parts)

    def _embeddings(self, best: BestEpoch) -> pa.Table | None:
        """The embeddings table, on the first process."""
        model = best_model(best, self.context, self.context.device)
        group = self.context.group
        shards = group.gather(self.evaluator.evaluate(self.loaders.test, model).features.cpu().numpy())
        if not group.is_first:
            return None
        return embeddings_table(self.context.config, self.context.data, best, group.unshard(shards))
