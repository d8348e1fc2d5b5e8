"""Runs on streamed images, against runs on the same images in memory."""

import contextlib
import multiprocessing
import os
import signal
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from autodo.augment.pipeline import channel_statistics
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data import load, prepare
from autodo.data.images.image_set import ArrayImages, ImageSet
from autodo.data.stream import streamed_images
from autodo.data.stream.pool import WORKERS_VARIABLE, close_pools
from autodo.data.stream.streamed_images import StreamedImages
from autodo.errors import DataError, ImageLost
from autodo.search.search_data import search_subset
from autodo.testing.process_groups import WorkerPool
from autodo.training.trainer import Trainer
from tests.autodo.distributed import group_jobs as jobs
from tests.autodo.training.killed_training import train_until_step

SIDE, CLASSES, EACH = 16, 3, 40
TIMINGS = {"seconds", "inner_seconds", "outer_seconds", "eval_seconds", "images_per_second", "peak_memory_bytes"}
OF_A_CONFIG = {"finished_at", "run_id", "recipe_id", "variant_id", "config"}
CROPS = {"augmentation.resized_crop": [0.3, 1.0]}


def write_images(root: Path, width: int, height: int, suffix: str, each: int = EACH) -> Path:
    """Noise, brighter and with more blue the higher the class."""
    generator = np.random.default_rng(0)
    for label in range(CLASSES):
        (root / f"class{label}").mkdir(parents=True)
        for number in range(each):
            pixels = generator.normal([60 + 40 * label, 100, 80 + 30 * label], 40, (height, width, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"class{label}" / f"{number:03}{suffix}")
    return root


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNG files of the size of the network's input."""
    return write_images(tmp_path_factory.mktemp("exact"), SIDE, SIDE, ".png")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("photos"), 44, 36, ".jpg")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No loader workers unless a test asks for them; a separate cache for the index of files."""
    monkeypatch.setenv(WORKERS_VARIABLE, "0")
    monkeypatch.setenv("AUTODO_CACHE", str(tmp_path / "cache"))
    yield
    close_pools()


def run_on(root: Path, method: str, **overrides: Any) -> RunConfig:
    given = {
        "dataset.path": str(root),
        "dataset.image_size": SIDE,
        "dataset.stream": True,
        "model.name": "small-cnn",
        "augmentation.crop_padding": 2,
        "training.epochs": 3,
        "training.warmup_epochs": 1,
        "training.batch_size": 24,
        **({"outer.start_share": 0.3} if method.startswith("autodo") else {}),
        **overrides,
    }
    return build_run("folder", method, overrides=given)


def start(config: RunConfig, **options: Any) -> Trainer:
    return Trainer(config, prepare(load(config.dataset), config), **options)


def tables(training: Trainer) -> dict[str, Any]:
    """Tables of a training at its end, without measured times and columns that name its config."""
    list(training)
    outcome = training.outcome(keep_embeddings=True)
    kept = {kind: getattr(outcome, kind) for kind in ("results", "epochs", "predictions", "points", "embeddings")}
    return {
        kind: table.drop_columns([name for name in table.column_names if name in TIMINGS | OF_A_CONFIG])
        for kind, table in kept.items()
    }


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        ("baseline", {}),
        ("autodo-shared", {}),
        ("autodo-aws", {}),
        ("autodo-exact-ws", {"split": "union"}),
        ("autodo-exact-aws", {"outer.hessian_points": 30}),
        ("meta-weight-net", {}),
        ("class-balanced-finetune-on-val", {}),
        ("train+val", {}),
        ("val-only", {}),
    ],
    ids=str,
)
def test_streamed_images_train_bit_for_bit_as_images_in_memory(exact, method, overrides):
    split = overrides.pop("split", "paper") if "split" in overrides else "paper"
    streamed = run_on(exact, method, **overrides).model_copy(update={"split": split})
    in_arrays = streamed.model_copy(update={"dataset": streamed.dataset.model_copy(update={"stream": False})})
    one, other = start(streamed), start(in_arrays)
    assert isinstance(one.context.data.train.images, StreamedImages)
    assert isinstance(other.context.data.train.images, ArrayImages)
    assert tables(one) == tables(other)
    assert torch.equal(one.points.table.values, other.points.table.values)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["autodo-exact-aws", pytest.param("autodo-exact-ws", marks=pytest.mark.long)])
def test_the_number_of_loader_workers_changes_no_bit_of_the_result(photos, method, monkeypatch):
    config = run_on(photos, method, **CROPS)
    found = []
    for count in ("0", "1", "2"):
        monkeypatch.setenv(WORKERS_VARIABLE, count)
        found.append(tables(start(config)))
    assert found[0] == found[1] == found[2]


def test_each_phase_and_epoch_has_its_own_crops_and_evaluation_none(photos):
    config = run_on(photos, "autodo-exact-aws", **CROPS, **{"outer.hessian_points": 30, "outer.every": 1})
    seen: list[Any] = []
    batches = StreamedImages.batches

    def watched(self: StreamedImages, wanted: Any, crops: Any = None) -> Any:
        seen.append((len(wanted), crops and crops.seed))
        return batches(self, wanted, crops)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StreamedImages, "batches", watched)
        list(start(config))
    drawn = [seed for _, seed in seen if seed is not None]
    # Three inner phases, and two outer ones with a reading for the Hessian each.
    assert len(drawn) == len(set(drawn)) == 3 + 2 * 2
    assert sum(seed is None for _, seed in seen) == 1 + 3 * 2, "the statistics, and val and test after each epoch"


@pytest.mark.slow
def test_crops_do_not_depend_on_the_number_of_training_processes(photos):
    config = run_on(photos, "autodo-exact-ws", **CROPS)
    pool = WorkerPool(2)
    try:
        apart = pool.each(2, pixels_of_inner_phases, config)
    finally:
        pool.close()
    (alone,) = [pixels_of_inner_phases(config)]
    assert len(alone) == 3 * 77
    assert set(apart[0]).isdisjoint(apart[1])
    assert {**apart[0], **apart[1]} == alone


def pixels_of_inner_phases(config: RunConfig) -> dict[tuple[int, int], int]:
    """Checksum of the pixels of each train point of this worker, by epoch and position."""
    training = jobs.start(config)
    found, batches = {}, training.loaders.train.images.batches

    def watched(wanted: list[torch.Tensor], crops: Any) -> Iterator[torch.Tensor]:
        for points, pixels in zip(wanted, batches(wanted, crops), strict=True):
            if not training.outer or training.model.network.training:
                for point, image in zip(points.tolist(), pixels, strict=True):
                    place = int(training.loaders.shard.positions[point])
                    found[training.state.epoch, place] = zlib.crc32(image.numpy().tobytes())
            yield pixels

    training.loaders.train.images.batches = watched  # type: ignore[method-assign]
    list(training)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("method", ["autodo-exact-ws", "elr"])
def test_a_streamed_run_killed_within_an_epoch_resumes_bit_for_bit(photos, method, tmp_path, monkeypatch):
    monkeypatch.setenv(WORKERS_VARIABLE, "1")
    config, path = run_on(photos, method, **CROPS), tmp_path / "run" / "checkpoint.pt"
    arguments = (4 + 4, config, path, 2, tmp_path / "meeting", 0, 1)
    process = multiprocessing.get_context("spawn").Process(target=train_until_step, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    continued = start(config, checkpoint=path, checkpoint_steps=2)
    assert continued.state.epoch == 1
    assert continued.state.mid_epoch is not None
    assert continued.state.mid_epoch.step == 2
    assert tables(continued) == tables(start(config))


@pytest.mark.parametrize("lost", [True, False])
def test_a_checkpoint_of_other_images_is_refused(lost, tmp_path, monkeypatch):
    photos = write_images(tmp_path / "photos", 20, 20, ".jpg")
    config = run_on(photos, "autodo-exact-ws", **{"dataset.damaged_limit": 0.1})
    next(iter(start(config, checkpoint=tmp_path / "checkpoint.pt")))
    if lost:
        (photos / "class0" / "007.jpg").write_text("damaged")
    else:
        (photos / "class0" / "007.jpg").rename(photos / "class1" / "007a.jpg")
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(DataError, match=r"checkpoint\.pt: of other images than there are now.*; put them back"):
        start(config, checkpoint=tmp_path / "checkpoint.pt")
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept


def _truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 20)


def _overwrite(file: Path) -> None:
    file.write_bytes(b"text")


OF_EPOCHS, OF_STEPS = (None, "epoch 1/3"), (2, "step 4 of epoch 2/3")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "steps", "resume_point"),
    [
        (Path.unlink, *OF_EPOCHS),
        (_truncate, *OF_STEPS),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (
                (Path.unlink, *OF_STEPS),
                (_truncate, *OF_EPOCHS),
                (_overwrite, *OF_EPOCHS),
                (_overwrite, *OF_STEPS),
            )
        ),
    ],
)
def test_a_run_that_loses_an_image_names_its_resume_point_and_resumes_there(
    spoil, steps, resume_point, tmp_path, monkeypatch
):
    monkeypatch.setenv(WORKERS_VARIABLE, "1")
    photos = write_images(tmp_path / "photos", 20, 20, ".jpg")
    config, path = run_on(photos, "autodo-exact-ws", **CROPS), tmp_path / "checkpoint.pt"
    undisturbed = tables(start(config))
    training = start(config, checkpoint=path, checkpoint_steps=steps)
    next(iter(training))
    # One of val is read when all steps of the next epoch have been kept.
    lost = photos / (training.context.data.val if steps else training.context.data.train).sources[5]
    content, times = lost.read_bytes(), lost.stat()
    spoil(lost)
    with pytest.raises(ImageLost) as error:
        list(training)
    before, after = str(error.value).split(
        "(tried 3 times in 1.1 s); put it back as it was and start the command again: "
    )
    assert before.startswith(f"{lost}: could be read when the dataset was indexed, and cannot now: ")
    assert after == f"the run continues from its checkpoint after {resume_point}"
    assert error.value.__cause__ is None
    lost.write_bytes(content)
    os.utime(lost, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert tables(start(config, checkpoint=path)) == undisturbed


def test_a_lost_image_without_a_checkpoint_says_so(tmp_path):
    photos = write_images(tmp_path / "photos", 20, 20, ".jpg")
    training = start(run_on(photos, "baseline"))
    (photos / training.context.data.train.sources[5]).unlink()
    with pytest.raises(ImageLost, match=r"again: the run has no checkpoint and starts from the beginning$"):
        list(training)


@pytest.mark.slow
def test_nodes_with_different_images_are_an_error(tmp_path):
    photos = write_images(tmp_path / "photos", 20, 20, ".jpg")
    config = run_on(photos, "baseline", **{"dataset.damaged_limit": 0.1})
    with contextlib.closing(WorkerPool(2)) as pool:
        answers = pool.run(2, jobs.start_with_one_image_less_on_the_second, config)
    for answer in answers:
        assert isinstance(answer, DataError)
        assert "the images are not the same on all nodes" in str(answer)


@pytest.mark.slow
def test_a_lost_image_names_the_node_of_a_worker(tmp_path):
    photos = write_images(tmp_path / "photos", 20, 20, ".jpg")
    with contextlib.closing(WorkerPool(2)) as pool:
        answers = pool.run(2, jobs.start_and_lose_the_images, run_on(photos, "baseline"), photos)
    for answer in answers:
        assert isinstance(answer, ImageLost)
        assert str(answer).startswith(f"node {socket.gethostname()}: {photos}")


def test_channel_statistics_use_the_same_sample_for_every_method(photos, monkeypatch):
    monkeypatch.setattr(streamed_images, "STATISTICS_IMAGES", 20)
    one, other = (start(run_on(photos, method)) for method in ("baseline", "autodo-exact-aws"))
    assert torch.equal(one.model.pipeline.mean, other.model.pipeline.mean)
    whole = one.context.data.train.images.read()
    sample = torch.cat(list(one.context.data.train.images.statistics_sample()))
    assert len(sample) == 20
    places = [np.flatnonzero((whole == image.numpy()).all((1, 2, 3))).tolist() for image in sample]
    assert sorted(places) == places, "each of them is a train image, and none is there twice"
    mean, std = channel_statistics([sample])
    assert torch.equal(one.model.pipeline.mean.flatten(), mean)
    assert torch.equal(one.model.pipeline.std.flatten(), std)


def test_a_search_reads_only_its_images_into_memory(photos):
    config = run_on(photos, "baseline")
    data = prepare(load(config.dataset), config)
    images, labels = search_subset(data, 12, seed=0)
    assert isinstance(images, np.ndarray)
    assert images.shape == (12, 3, SIDE, SIDE)
    whole = data.train.images.read()
    places = [int(np.flatnonzero((whole == image).all((1, 2, 3)))[0]) for image in images]
    assert labels.tolist() == data.train.labels[places].tolist()
    everything, _ = search_subset(data, 1000, seed=0)
    assert np.array_equal(everything, whole)


def test_images_of_a_subset_are_read_by_position(photos):
    config = run_on(photos, "baseline")
    data = prepare(load(config.dataset), config)
    whole = data.train.images.read()
    images = data.train.images.loader("cpu")
    points = torch.tensor([5, 3, 70])
    assert np.array_equal(images[points].numpy(), whole[[5, 3, 70]])
    part = images.rows(10, 40)
    assert len(part) == 30
    assert np.array_equal(torch.cat(list(part.in_order(7))).numpy(), whole[10:40])
    assert np.array_equal(torch.cat(list(part.batches([points[:2], points[1:2]]))).numpy(), whole[[15, 13, 13]])
    assert list(part.batches([])) == []
    both = data.train.images[np.array([1, 2])].concatenate(data.val.images[np.array([0])])
    assert np.array_equal(both.read(), np.concatenate([whole[1:3], data.val.images[:1].read()]))
    taken = ImageSet(data.train.images, data.train.labels).take(np.array([4, 9]))
    assert np.array_equal(taken.images.read(), whole[[4, 9]])


@pytest.mark.slow
def test_memory_does_not_grow_from_epoch_to_epoch(tmp_path, monkeypatch):
    """Memory of this process and of the loader workers; the images of an epoch take 4.5 MB."""
    monkeypatch.setenv(WORKERS_VARIABLE, "1")
    config = run_on(
        write_images(tmp_path / "images", 64, 48, ".jpg", each=300),
        "autodo-exact-ws",
        **CROPS,
        **{"dataset.image_size": 32, "training.epochs": 12, "outer.start_share": 0.1},
    )
    training = start(config)
    used = []
    for _ in training:
        this = psutil.Process()
        used.append(sum(each.memory_info().rss for each in [this, *this.children(recursive=True)]) / 1e6)
    assert min(used[-3:]) - min(used[2:5]) < 10, [round(megabytes) for megabytes in used]
