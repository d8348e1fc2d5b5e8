"""Reading many epochs needs no more memory than reading one."""

import numpy as np
import pytest

from autodo.data.stream.pool import WORKERS_VARIABLE
from benchmarks.streaming import memory_of, streamed_epoch, streamed_images, write_shards, write_tree


@pytest.mark.slow
def test_memory_is_flat_over_epochs_and_shards_hold_the_same_pixels(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKERS_VARIABLE, "2")
    write_tree(tmp_path / "tree", 300)
    write_shards(tmp_path / "tree", tmp_path / "shards")
    folders, shards = (streamed_images(tmp_path / name) for name in ("tree", "shards"))
    memory = memory_of(streamed_epoch(folders), 8, None)
    assert max(memory[4:]) < 1.03 * max(memory[:4])

    same_order = folders[np.argsort(folders.index)], shards[np.argsort(shards.index)]
    batches = [np.arange(i, i + 50) for i in range(0, 300, 50)]
    for ours, theirs in zip(*(part.batches(batches) for part in same_order), strict=True):
        np.testing.assert_array_equal(ours, theirs)
