"""Which points each worker trains on, and keeps the hyperparameters of for the whole run."""

import math
from typing import NamedTuple

import numpy as np

from autodo.config import RunConfig
from autodo.data.feed import joined
from autodo.data.image_set import Images, Integers
from autodo.data.prepare import Prepared
from autodo.errors import ConfigError
from autodo.seeds import numpy_generator
from autodo.workers import Workers


class Shard(NamedTuple):
    """A worker's points of the inner problem: train points, val points (trusted ones), or both.

    Shape:
        train [n], trusted [m] int64, increasing: positions in the train points, and in the val points.
    """

    train: Integers
    trusted: Integers
    train_total: int
    """Train points of all workers that are in the inner problem: all or none."""
    total: int
    """Points of all workers."""

    @property
    def positions(self) -> Integers:
        """Positions [n + m] among the points of all workers, where the trusted ones come after the train points."""
        return np.concatenate([self.train, self.train_total + self.trusted])

    def points(self, data: Prepared) -> tuple[Images, Integers]:
        """Images [n + m, C, H, W] and observed labels [n + m]; without a copy if they are a whole set."""
        if len(self.train) == self.total:
            return data.train.images, data.train.labels
        if len(self.trusted) == self.total:
            return data.val.images, data.val.labels
        train, trusted = self.train, self.trusted
        images = joined([data.train.images[train], data.val.images[trusted]])
        return images, np.concatenate([data.train.labels[train], data.val.labels[trusted]])


def shard_of(data: Prepared, config: RunConfig, workers: Workers) -> Shard:
    """This worker's shard; of a process alone everything.

    Raises:
        ConfigError: if there are so many workers that one would have no point of a batch, or no image to evaluate.
    """
    train = data.train.labels if config.trains_on_train else data.train.labels[:0]
    trusted = data.val.labels if config.trains_on_val else data.val.labels[:0]
    train_total, total = len(train), len(train) + len(trusted)
    for what, count in (("train points", train_total or total), ("points", total)):
        smallest = count // math.ceil(count / config.training.batch_size)
        _check(workers, smallest, f"a batch has {smallest} of the {count} {what}; raise training.batch_size")
    for what, images in (("val", data.val), ("test", data.test)):
        _check(workers, len(images), f"there are {len(images)} {what} images")
    generator = numpy_generator(config.seed, "shards", workers.size)
    return Shard(*deal(train, trusted, workers, generator), train_total, total)


def deal(
    train_labels: Integers, trusted_labels: Integers, workers: Workers, generator: np.random.Generator
) -> tuple[Integers, Integers]:
    """This worker's train and trusted points: every point has one worker, and all workers' points are alike.

    In random order, sorted by label, the points are dealt in turn, the trusted ones after the train points. So the
    workers' numbers of points differ by at most one, and so do those of train points, of trusted points, and of the
    points of each class among either.

    Args:
        generator: in the same state on every worker.
    Shape:
        train_labels [N], trusted_labels [M] int64 -> [n], [m] int64, increasing.
    """
    train, trusted = (_by_class(labels, generator) for labels in (train_labels, trusted_labels))
    dealt = np.sort(workers.deal(np.concatenate([train, len(train) + trusted])))
    return dealt[dealt < len(train)], dealt[dealt >= len(train)] - len(train)


def _by_class(labels: Integers, generator: np.random.Generator) -> Integers:
    order = generator.permutation(len(labels))
    return order[np.argsort(labels[order], kind="stable")]


def _check(workers: Workers, most: int, why: str) -> None:
    if workers.size > most:
        raise ConfigError(f"workers: {workers.size} are too many, at most {most} can train this run: {why}")
