"""Reading images from their files: the same pixels in any process, and lost files, killed workers and parents."""

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from autodo.data.images.crop import CentreCrop, CropParameters
from autodo.data.stream import pool
from autodo.data.stream.pool import WORKERS_VARIABLE, loader_workers
from autodo.errors import ConfigError, ImageLost

CROPS = CropParameters((0.08, 1.0), seed=11)


def test_subsets_have_the_shape_of_an_array(tree, stream):
    images = stream(tree).train.images
    assert images.shape == (24, 3, 24, 24)
    assert len(images) == 24
    assert images[:5].shape == (5, 3, 24, 24)
    assert images[np.array([3, 1])].index.tolist() == images.index[[3, 1]].tolist()


def test_pixels_are_those_of_the_dataset_in_memory(tree, stream, pixels_of):
    streamed, held = stream(tree), stream(tree, stream=False)
    for part in ("train", "test"):
        ours, theirs = getattr(streamed, part), getattr(held, part)
        assert ours.sources == theirs.sources
        assert ours.labels.tolist() == theirs.labels.tolist()
        np.testing.assert_array_equal(pixels_of(ours.images), theirs.images.read())
        np.testing.assert_array_equal(ours.images.read(np.array([2, 0])), theirs.images.read(np.array([2, 0])))


def test_resize_cuts_the_centre_out_and_leaves_random_crops_alone(tree, stream, pixels_of):
    images = stream(tree).train.images
    centred = dataclasses.replace(images, centre=CentreCrop(0.5))
    whole, half = images.read(), centred.read()
    assert not np.array_equal(whole, half)
    np.testing.assert_array_equal(pixels_of(centred), half)
    np.testing.assert_array_equal(pixels_of(centred, CROPS), pixels_of(images, CROPS))


def test_gray_images_become_rgb(tmp_path, write_image, stream):
    for name in ("a", "b"):
        for i in range(4):
            write_image(tmp_path / name / f"{i}.png", 20 * i)
    images = stream(tmp_path).train.images
    assert images.shape[1] == 3
    assert (images.read(np.arange(3)) == images.read(np.arange(3))[:, :1]).all()


@pytest.mark.parametrize("crops", [None, CROPS])
def test_pixels_are_the_same_with_any_number_of_workers_and_from_shards(
    crops, tree, tmp_path, stream, pixels_of, write_shards, monkeypatch
):
    shards = write_shards(tree, tmp_path / "shards")
    read = {}
    for workers in ("0", "1", "2"):
        monkeypatch.setenv(WORKERS_VARIABLE, workers)
        for path in (tree, shards):
            part = stream(path).train
            names = [source.removesuffix(".jpg")[-10:] for source in part.sources]
            read[workers, path] = names, pixels_of(part.images, crops)
    names, expected = read["0", tree]
    for found, pixels in read.values():
        assert found == names
        np.testing.assert_array_equal(pixels, expected)


def test_an_image_has_its_index_and_its_crop_in_every_subset_and_order(tree, stream, pixels_of):
    whole = stream(tree).train.images
    everything = pixels_of(whole, CROPS)
    chosen = np.array([17, 3, 20])
    assert whole[chosen].index.tolist() == whole.index[chosen].tolist()
    np.testing.assert_array_equal(pixels_of(whole[chosen], CROPS), everything[chosen])
    np.testing.assert_array_equal(pixels_of(whole[10:][np.array([7])], CROPS), everything[[17]])
    (backwards,) = whole.batches([np.arange(24)[::-1]], CROPS)
    np.testing.assert_array_equal(backwards, everything[::-1])
    assert not np.array_equal(pixels_of(whole, CropParameters((0.08, 1.0), seed=12)), everything)


def test_indices_are_those_of_the_listing_whatever_is_damaged(tree, stream):
    before = dict(zip(stream(tree).train.sources, stream(tree).train.images.index.tolist(), strict=True))
    (tree / "class-0" / "00.jpg").write_bytes(b"")
    dataset = stream(tree, damaged_limit=0.1)
    after = dict(zip(dataset.train.sources, dataset.train.images.index.tolist(), strict=True))
    common = before.keys() & after.keys()
    assert len(common) > 15
    assert all(before[name] == after[name] for name in common)


def test_parts_are_joined(tree, stream, pixels_of):
    dataset = stream(tree)
    both = dataset.train.images.concatenate(dataset.test.images)
    expected = [pixels_of(dataset.train.images, CROPS), pixels_of(dataset.test.images, CROPS)]
    np.testing.assert_array_equal(pixels_of(both, CROPS), np.concatenate(expected))


def test_one_pool_serves_concurrent_passes_and_goes_on_after_an_abandoned_one(tree, stream, pixels_of, monkeypatch):
    images = stream(tree).train.images
    expected = pixels_of(images, CROPS, batch=4)
    monkeypatch.setenv(WORKERS_VARIABLE, "2")
    monkeypatch.setattr(pool, "_MAX_CHUNK_IMAGES", 2)
    batches = np.arange(24).reshape(6, 4)
    forwards, backwards = images.batches(batches, CROPS), images.batches(batches[::-1], CROPS)
    for step in range(4):
        np.testing.assert_array_equal(next(forwards), expected[4 * step : 4 * step + 4])
        np.testing.assert_array_equal(next(backwards), expected[20 - 4 * step : 24 - 4 * step])
    running = workers_of_this_process()
    forwards.close()
    backwards.close()
    for _ in range(3):
        np.testing.assert_array_equal(pixels_of(images, CROPS), expected)
        next(images.batches(batches, None))
    assert workers_of_this_process() == running
    assert len(running) == 2
    pool.close_pools()
    assert workers_of_this_process() == []


def test_slots_are_used_again(tree, stream, pixels_of, monkeypatch):
    images = stream(tree).train.images
    monkeypatch.setenv(WORKERS_VARIABLE, "1")
    monkeypatch.setattr(pool, "_MAX_CHUNK_IMAGES", 2)
    pixels_of(images, CROPS)
    slots = len(pool.pool_for(1)._slots)
    for _ in range(5):
        pixels_of(images, CROPS)
        next(images.batches([np.arange(10), np.arange(10)]))
    assert len(pool.pool_for(1)._slots) <= 2 * slots


def test_nothing_to_read(tree, stream, monkeypatch):
    images = stream(tree).train.images
    for workers in ("0", "1"):
        monkeypatch.setenv(WORKERS_VARIABLE, workers)
        assert list(images.batches([])) == []
        (batch,) = images.batches([np.empty(0, np.int64)])
        assert batch.shape == (0, 3, 24, 24)


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda file: file.write_bytes(b"text")], ids=["removed", "overwritten"])
def test_a_file_that_cannot_be_read_any_more_is_named(workers, spoil, tree, stream, pixels_of, monkeypatch):
    images = stream(tree).train.images
    monkeypatch.setenv(WORKERS_VARIABLE, workers)
    lost = tree / images.files.names[images.index[5]]
    spoil(lost)
    with pytest.raises(ImageLost, match=rf"^{lost}: could be read when the dataset was indexed, and cannot now: \w"):
        pixels_of(images)


def test_a_file_that_comes_back_is_read(tree, stream, clock):
    images = stream(tree).train.images
    expected = images.read(np.array([5]))
    lost = tree / images.files.names[images.index[5]]
    content = lost.read_bytes()
    lost.unlink()
    clock.on_sleep = lambda: lost.write_bytes(content)
    np.testing.assert_array_equal(images.read(np.array([5])), expected)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_file_that_cannot_be_read_for_a_while_is_read_and_logged(
    workers, tree, stream, pixels_of, monkeypatch, caplog
):
    images = stream(tree).train.images
    monkeypatch.setenv(WORKERS_VARIABLE, workers)
    expected = pixels_of(images)
    lost = tree / images.files.names[images.index[5]]
    whole = lost.rename(tree / "kept")
    lost.symlink_to("/proc/self/mem")  # the system's own EIO: nothing is at its beginning
    with pytest.raises(OSError, match="Input/output error"):
        lost.read_bytes()
    mended = threading.Timer(0.4, lambda: whole.replace(lost))
    mended.start()
    np.testing.assert_array_equal(pixels_of(images), expected)
    mended.join()
    (line,) = caplog.messages
    assert line.startswith(f"{lost}: Input/output error; it could be read when it was tried again ")


def test_a_file_that_was_being_written_is_read_when_it_is_whole(tree, stream, caplog):
    images = stream(tree).train.images
    expected = images.read(np.array([5]))
    pipe = tree / images.files.names[images.index[5]]
    content = pipe.read_bytes()
    pipe.unlink()
    os.mkfifo(pipe)

    def write_twice():
        for part in (content[: len(content) // 2], content):
            pipe.write_bytes(part)
            time.sleep(0.05)  # the reader has seen its end

    writer = threading.Thread(target=write_twice)
    writer.start()
    np.testing.assert_array_equal(images.read(np.array([5])), expected)
    writer.join()
    (line,) = caplog.messages
    assert "truncated" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its user")
def test_a_file_that_must_not_be_read_any_more_is_named(tree, stream, clock):
    images = stream(tree).train.images
    lost = tree / images.files.names[images.index[5]]
    os.seteuid(65534)  # to whom the test's folder is closed
    try:
        with pytest.raises(
            ImageLost, match=rf"^{lost}: .*, and cannot now: Permission denied \(tried 3 times in 1.1 s"
        ):
            images.read(np.array([5]))
    finally:
        os.seteuid(0)


def test_patience_with_errors_that_may_pass_ends_too(tree, stream, clock):
    images = stream(tree).train.images
    lost = tree / images.files.names[images.index[5]]
    lost.unlink()
    lost.symlink_to("/proc/self/mem")
    with pytest.raises(ImageLost, match=r"Input/output error \(tried 5 times in 20.1 s\); put it back as it was"):
        images.read(np.array([5]))
    assert clock.now == pytest.approx(20.1, abs=1e-3)


def test_an_image_of_a_shard_that_was_cut_off_is_named_with_the_shard(tree, tmp_path, stream, write_shards, clock):
    shards = write_shards(tree, tmp_path / "shards")
    images = stream(shards).train.images
    place = int(np.argmax(images.index))
    file = images.files[int(images.index[place])]
    os.truncate(file.path, file.offset + 10)
    with pytest.raises(ImageLost, match=rf"^{file.path}: {file.name}: .* cannot now: the file is shorter than it was"):
        images.read(np.array([place]))


def test_a_killed_worker_is_one_clear_error_and_the_next_reading_starts_new_ones(tree, stream, pixels_of, monkeypatch):
    images = stream(tree).train.images
    expected = pixels_of(images)
    monkeypatch.setenv(WORKERS_VARIABLE, "2")
    pixels_of(images)
    os.kill(workers_of_this_process()[0], signal.SIGKILL)
    with pytest.raises(
        RuntimeError, match=rf"killed from outside, .*; --loader-workers, or {WORKERS_VARIABLE}, .*\(now 2\)"
    ):
        list(itertools.chain.from_iterable(images.batches([np.arange(24)] * 100) for _ in range(10)))
    np.testing.assert_array_equal(pixels_of(images), expected)


READ_FOR_EVER = """
import os, signal, sys
import numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
from autodo.config.dataset import DatasetConfig
from autodo.data import load
images = load(DatasetConfig(name="folder", path=sys.argv[1], image_size=24, stream=True)).train.images
while True:  # as a script without `if __name__ == "__main__"` does
    for batch in images.batches([np.arange(len(images))] * 3):
        print("read", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_started_them(ended_by, tree, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(READ_FOR_EVER)
    environment = {**os.environ, WORKERS_VARIABLE: "2"}
    command = [sys.executable, str(script), str(tree)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "read\n"
        workers = psutil.Process(process.pid).children()
        assert len(workers) >= 2
        if ended_by == signal.SIGINT:
            os.killpg(process.pid, ended_by)  # as a terminal does it: to all of them
        else:
            process.send_signal(ended_by)
        _, errors = process.communicate(timeout=60)
    if ended_by == signal.SIGINT:
        assert errors.count("Traceback") == errors.count("KeyboardInterrupt") == 1
    _, left = psutil.wait_procs(workers, timeout=30)
    assert left == []


def test_number_of_workers(monkeypatch):
    import torch

    monkeypatch.delenv(WORKERS_VARIABLE)
    assert loader_workers() == torch.get_num_threads()
    monkeypatch.setenv(WORKERS_VARIABLE, "3")
    assert loader_workers() == 3
    monkeypatch.setenv(WORKERS_VARIABLE, "many")
    with pytest.raises(ConfigError, match=f"^{WORKERS_VARIABLE}: 'many' is not a number of processes"):
        loader_workers()


def workers_of_this_process() -> list[int]:
    children = psutil.process_iter(["ppid", "cmdline"])
    return sorted(
        child.pid
        for child in children
        if child.info["ppid"] == os.getpid() and any("popen_loky" in word for word in child.info["cmdline"] or [])
    )
