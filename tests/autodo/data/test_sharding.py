"""Every point has one worker, and all workers' points are alike."""

import dataclasses

import numpy as np
import pytest

from autodo.config.recipes import build_run
from autodo.data.images.image_set import ImageSet
from autodo.data.sharding import shard_by_class, training_shard
from autodo.distributed.process_group import SINGLE_PROCESS
from autodo.errors import ConfigError
from autodo.seeds import numpy_generator
from autodo.testing.process_groups import FakeGroup


def shards(train, trusted, size, seed=0):
    return [
        shard_by_class(train, trusted, FakeGroup(rank, size), numpy_generator(seed, "shards")) for rank in range(size)
    ]


def spread(counts) -> int:
    return int(np.ptp(counts, axis=0).max())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("seed", range(5))
def test_shards_are_disjoint_complete_and_alike(size, seed):
    generator = np.random.default_rng(seed)
    # A long tail, with a class of one point and one of none.
    train = np.repeat(np.arange(6), [200, 61, 33, 5, 1, 0])
    generator.shuffle(train)
    trusted = generator.integers(6, size=41)
    sharded = shards(train, trusted, size)
    for labels, parts in ((train, [part[0] for part in sharded]), (trusted, [part[1] for part in sharded])):
        assert sorted(np.concatenate(parts)) == list(range(len(labels)))
        assert all((np.diff(part) > 0).all() for part in parts)
        assert spread([len(part) for part in parts]) <= 1
        assert spread([np.bincount(labels[part], minlength=6) for part in parts]) <= 1
    assert spread([len(train) + len(trusted) for train, trusted in sharded]) <= 1
    for rank, (train_part, trusted_part) in enumerate(sharded):
        assert len(train_part) == FakeGroup(rank, size).shard_size(len(train))
        assert len(train_part) + len(trusted_part) == FakeGroup(rank, size).shard_size(len(train) + len(trusted))


def sort_and_shard(train, trusted, group, generator):
    """Oracle: all points sorted by label in random order and assigned round-robin."""

    def by_class(labels):
        order = generator.permutation(len(labels))
        return order[np.argsort(labels[order], kind="stable")]

    order = np.concatenate([by_class(train), len(train) + by_class(trusted)])
    sharded = np.sort(order[group.shard])
    return sharded[sharded < len(train)], sharded[sharded >= len(train)] - len(train)


@pytest.mark.parametrize("part", [1, 7, 1000])
@pytest.mark.parametrize(("count", "trusted_count"), [(0, 23), (23, 0), (100, 23), (333, 100)])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_sharding_in_chunks_is_sorting_everything(part, count, trusted_count, size, monkeypatch):
    monkeypatch.setattr("autodo.data.sharding._CHUNK_SIZE", part)
    generator = np.random.default_rng(count)
    train, trusted = generator.integers(7, size=count), generator.integers(9, size=trusted_count)
    for rank in range(size):
        group = FakeGroup(rank, size)
        expected = sort_and_shard(train, trusted, group, numpy_generator(1, "shards"))
        for mine, theirs in zip(
            shard_by_class(train, trusted, group, numpy_generator(1, "shards")), expected, strict=True
        ):
            assert mine.dtype == np.int64
            assert mine.tolist() == theirs.tolist()


def test_shards_depend_on_the_seed_and_are_the_same_each_time():
    labels = np.arange(100) % 10
    one, again, other = (shards(labels, labels[:0], 2, seed)[0][0] for seed in (0, 0, 1))
    assert one.tolist() == again.tolist() != other.tolist()


def test_a_process_alone_has_everything_without_a_copy():
    from autodo.data import load, prepare

    config = build_run("digits", "baseline", overrides={"dataset.subsample": 60})
    data = prepare(load(config.dataset), config)
    shard = training_shard(data, config, SINGLE_PROCESS)
    assert shard.positions.tolist() == list(range(len(data.train)))
    assert shard.points(data)[0] is data.train.images


def test_val_points_alone_can_be_all_there_is():
    from autodo.data import load, prepare

    config = build_run("digits", "val-only", overrides={"dataset.subsample": 60})
    data = prepare(load(config.dataset), config)
    shard = training_shard(data, config, SINGLE_PROCESS)
    assert shard.positions.tolist() == list(range(len(data.val)))
    assert shard.points(data)[0] is data.val.images
    halves = [training_shard(data, config, FakeGroup(rank, 2)) for rank in range(2)]
    assert sorted(np.concatenate([half.positions for half in halves])) == shard.positions.tolist()
    assert all(half.total == len(data.val) and len(half.train) == 0 for half in halves)


@pytest.mark.parametrize(
    ("overrides", "size", "why"),
    [
        ({}, 13, "at most 12 can train this run: there are 12 val images"),
        ({"training.batch_size": 4}, 5, "at most 4 can train this run: a batch has 4 of the 48 train points"),
        (
            {"training.batch_size": 9, "training.last_batch": "drop"},
            10,
            "at most 9 can train this run: a batch has 9 of the 48 train points",
        ),
        # 48 points in batches of 9 or less: 8 each.
        ({"training.batch_size": 9}, 9, "at most 8 can train this run: a batch has 8 of the 48 train points"),
    ],
)
def test_more_workers_than_can_have_work_are_refused(overrides, size, why):
    from autodo.data import load, prepare

    config = build_run("digits", "baseline", overrides={"dataset.subsample": 60, **overrides})
    data = prepare(load(config.dataset), config)
    with pytest.raises(ConfigError, match=f"workers: {size} are too many, {why}"):
        training_shard(data, config, FakeGroup(0, size))
    most = int(why.split("at most ")[1].split()[0])
    assert training_shard(data, config, FakeGroup(0, most)).total == 48


def test_a_worker_has_the_images_and_labels_of_its_positions():
    from autodo.data import load, prepare

    config = build_run("digits", "baseline", split="union", overrides={"dataset.subsample": 60})
    data = prepare(load(config.dataset), config)
    everything = data.train.images.concatenate(data.val.images).read()
    labels = np.concatenate([data.train.labels, data.val.labels])
    for size in (1, 3):
        positions = []
        for rank in range(size):
            shard = training_shard(data, config, FakeGroup(rank, size))
            assert (shard.train_total, shard.total) == (48, 60)
            assert len(shard.trusted) > 0
            images, observed = shard.points(data)
            assert np.array_equal(images.read(), everything[shard.positions])
            assert np.array_equal(observed, labels[shard.positions])
            positions += shard.positions.tolist()
        assert sorted(positions) == list(range(60))


def test_workers_need_images_of_val_and_of_test_to_evaluate():
    from autodo.data import load, prepare

    config = build_run("digits", "baseline", overrides={"dataset.subsample": 60})
    data = prepare(load(config.dataset), config)
    few = dataclasses.replace(data, test=ImageSet(data.test.images[:2], data.test.labels[:2]))
    with pytest.raises(ConfigError, match=r"workers: 3 are too many, at most 2 .* there are 2 test images"):
        training_shard(few, config, FakeGroup(0, 3))
    assert training_shard(few, config, FakeGroup(0, 2)).total == 48
