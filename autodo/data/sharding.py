"""Which points each worker trains on, and keeps the hyperparameters of for the whole run."""

import math
from typing import NamedTuple

import numpy as np

from autodo.config.run import RunConfig
from autodo.data.image_set import Images, Integers
from autodo.data.prepare import DataSplits
from autodo.distributed.process_group import ProcessGroup
from autodo.errors import ConfigError
from autodo.seeds import numpy_generator

PART = 2**20
"""Points that are dealt at a time."""


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

    def points(self, data: DataSplits) -> tuple[Images, Integers]:
        """Images [n + m, C, H, W] and observed labels [n + m]; without a copy if they are a whole set."""
        if len(self.train) == self.total:
            return data.train.images, data.train.labels
        if len(self.trusted) == self.total:
            return data.val.images, data.val.labels
        train, trusted = self.train, self.trusted
        images = data.train.images[train].concatenate(data.val.images[trusted])
        return images, np.concatenate([data.train.labels[train], data.val.labels[trusted]])


def training_shard(data: DataSplits, config: RunConfig, group: ProcessGroup) -> Shard:
    """This worker's shard; of a process alone everything.

    Raises:
        ConfigError: if there are so many workers that one would have no point of a batch, or no image to evaluate.
    """
    train = data.train.labels if config.trains_on_train else data.train.labels[:0]
    trusted = data.val.labels if config.trains_on_val else data.val.labels[:0]
    train_total, total = len(train), len(train) + len(trusted)
    for what, count in (("train points", train_total or total), ("points", total)):
        smallest = count // math.ceil(count / config.training.batch_size)
        _check(group, smallest, f"a batch has {smallest} of the {count} {what}; raise training.batch_size")
    for what, images in (("val", data.val), ("test", data.test)):
        _check(group, len(images), f"there are {len(images)} {what} images")
    generator = numpy_generator(config.seed, "shards", group.size)
    return Shard(*shard_by_class(train, trusted, group, generator), train_total, total)


def shard_by_class(
    train_labels: Integers, trusted_labels: Integers, group: ProcessGroup, generator: np.random.Generator
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
    # Trusted point j is dealt after the N train points, as number N + j.
    after = (group.rank - len(train_labels)) % group.size
    return (
        _dealt(train_labels, group.rank, group.size, generator),
        _dealt(trusted_labels, after, group.size, generator),
    )


def _dealt(labels: Integers, first: int, size: int, generator: np.random.Generator) -> Integers:
    """The points first, first + size, ... in a random order sorted by label; their positions, increasing.

    A part of the order is looked at at a time: of 10^9 points each worker may have 10^7, and has no other array of all.
    """
    # The same order as of 64-bit numbers, in half of the room.
    order = np.arange(len(labels), dtype=np.int32 if len(labels) < 2**31 else np.int64)
    generator.shuffle(order)
    counts = np.bincount(labels)
    place = np.cumsum(counts) - counts
    dealt = []
    for begin in range(0, len(order), PART):
        part = order[begin : begin + PART]
        # Stable sorting takes time in proportion to the points if the labels have 16 bits.
        by_class = labels[part].astype(np.uint16 if len(counts) <= 2**16 else np.int64).argsort(kind="stable")
        of_part = np.bincount(labels[part], minlength=len(counts))
        places = np.repeat(place - (np.cumsum(of_part) - of_part), of_part) + np.arange(len(part))
        dealt.append(part[by_class][places % size == first])
        place += of_part
    return np.sort(np.concatenate([np.empty(0, np.int64), *dealt]))


def _check(group: ProcessGroup, most: int, why: str) -> None:
    if group.size > most:
        raise ConfigError(f"workers: {group.size} are too many, at most {most} can train this run: {why}")
