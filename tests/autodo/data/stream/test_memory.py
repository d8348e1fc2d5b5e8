"""Reading many epochs needs no more memory than reading one."""

from pathlib import Path

import numpy as np
import pytest

from autodo.config.dataset import DatasetConfig
from autodo.data import load
from autodo.data.images.crop import CropParameters
from autodo.data.stream.pool import WORKERS_VARIABLE
from autodo.data.stream.streamed_images import StreamedImages
from autodo.testing.image_files import write_shards, write_tree
from autodo.testing.memory import resident_mb


def _images(path: Path) -> StreamedImages:
    dataset = load(DatasetConfig(name="folder", path=str(path), image_size=224, stream=True))
    return dataset.train.images.concatenate(dataset.test.images)


@pytest.mark.slow
def test_memory_is_flat_over_epochs_and_shards_hold_the_same_pixels(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKERS_VARIABLE, "2")
    write_tree(tmp_path / "tree", 300)
    write_shards(tmp_path / "tree", tmp_path / "shards")
    folders, shards = (_images(tmp_path / name) for name in ("tree", "shards"))
    memory = []
    for epoch in range(8):
        order = np.random.default_rng(epoch).permutation(len(folders))
        shuffled = [order[i : i + 50] for i in range(0, 300, 50)]
        for _ in folders.batches(shuffled, CropParameters((0.08, 1.0), seed=epoch)):
            pass
        memory.append(resident_mb())
    assert max(memory[4:]) < 1.03 * max(memory[:4])

    same_order = folders[np.argsort(folders.index)], shards[np.argsort(shards.index)]
    batches = [np.arange(i, i + 50) for i in range(0, 300, 50)]
    for ours, theirs in zip(*(part.batches(batches) for part in same_order), strict=True):
        np.testing.assert_array_equal(ours, theirs)
