"""Shards: the points that each process trains on, and whose hyperparameters it keeps, for the whole run."""

from typing import NamedTuple

import numpy as np

from autodo.config.run import RunConfig
from autodo.data.batches import batch_sizes
from autodo.data.images.image_set import Images, Integers
from autodo.data.prepare import DataSplits
from autodo.distributed.process_group import ProcessGroup
from autodo.errors import ConfigError
from autodo.seeds import numpy_generator

_CHUNK_SIZE = 2**20
"""Points per step, which bounds memory."""


class Shard(NamedTuple):
    """Points of the inner problem on one process: train points, val points (trusted ones), or both.

    Shape:
        train [n], trusted [m] int64, increasing: positions in the train points, and in the val points.
    """

    train: Integers
    trusted: Integers
    train_total: int
    """Number of train points in the inner problem over all processes: all or none."""
    total: int
    """Number of points over all processes."""

    @property
    def positions(self) -> Integers:
        """Positions [n + m] among the points of all processes, the trusted ones after the train points."""
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


def inner_points(config: RunConfig, data: DataSplits) -> int:
    """Number of points of the inner problem over all processes."""
    return len(data.train) * config.trains_on_train + len(data.val) * config.trains_on_val


def training_shard(data: DataSplits, config: RunConfig, group: ProcessGroup) -> Shard:
    """This process's shard; with a single process, everything.

    Raises:
        ConfigError: if there are more processes than points in the smallest batch, or than val or test images, if
            there are some.
    """
    train = data.train.labels if config.trains_on_train else data.train.labels[:0]
    trusted = data.val.labels if config.trains_on_val else data.val.labels[:0]
    train_total, total = len(train), inner_points(config, data)
    drop_last = config.training.last_batch == "drop"
    for what, count in (("train points", train_total or total), ("points", total)):
        smallest = min(batch_sizes(count, config.training.batch_size, drop_last=drop_last))
        _check(group, smallest, f"a batch has {smallest} of the {count} {what}; raise training.batch_size")
    for what, images in (("val", data.val), ("test", data.test)):
        if len(images):
            _check(group, len(images), f"there are {len(images)} {what} images")
    generator = numpy_generator(config.seed, "shards", group.size)
    return Shard(*shard_by_class(train, trusted, group, generator), train_total, total)


def shard_by_class(
    train_labels: Integers, trusted_labels: Integers, group: ProcessGroup, generator: np.random.Generator
) -> tuple[Integers, Integers]:
    """This process's train and trusted points: a stratified partition of all points.

    The points, in random order and sorted by label, are assigned round-robin, the trusted ones after the train points.
    So the shards' sizes differ by at most one, and so do their numbers of train points, of trusted points, and of the
    points of each class among either.

    Args:
        generator: in the same state on every process.
    Shape:
        train_labels [N], trusted_labels [M] int64 -> [n], [m] int64, increasing.
    """
    # Trusted point j is assigned after the N train points, as number N + j.
    after = (group.rank - len(train_labels)) % group.size
    return (
        _taken(train_labels, group.rank, group.size, generator),
        _taken(trusted_labels, after, group.size, generator),
    )


def _taken(labels: Integers, first: int, size: int, generator: np.random.Generator) -> Integers:
    """Sorted positions of the points first, first + size, ... in a random order sorted by label.

    Works in chunks, so that of 10^9 points only the random order is a whole array.
    """
    # The same order as with 64-bit numbers, in half the memory.
    order = np.arange(len(labels), dtype=np.int32 if len(labels) < 2**31 else np.int64)
    generator.shuffle(order)
    counts = np.bincount(labels)
    place = np.cumsum(counts) - counts
    taken = []
    for begin in range(0, len(order), _CHUNK_SIZE):
        part = order[begin : begin + _CHUNK_SIZE]
        # Stable sorting is linear in the number of points for 16-bit labels.
        by_class = labels[part].astype(np.uint16 if len(counts) <= 2**16 else np.int64).argsort(kind="stable")
        of_part = np.bincount(labels[part], minlength=len(counts))
        places = np.repeat(place - (np.cumsum(of_part) - of_part), of_part) + np.arange(len(part))
        taken.append(part[by_class][places % size == first])
        place += of_part
    return np.sort(np.concatenate([np.empty(0, np.int64), *taken]))


def _check(group: ProcessGroup, most: int, why: str) -> None:
    if group.size > most:
        raise ConfigError(f"workers: {group.size} are too many, at most {most} can train this run: {why}")
