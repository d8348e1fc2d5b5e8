"""Runs that are interrupted within an epoch resume bit for bit."""

import multiprocessing
import signal
from pathlib import Path

import pytest
import torch

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data import load, prepare
from autodo.errors import TrainingDiverged
from autodo.points.table_storage import TableStorage
from autodo.testing.process_groups import WorkerPool
from autodo.training import checkpoint as checkpoints
from autodo.training.trainer import Trainer
from tests.autodo.distributed import group_jobs as jobs
from tests.autodo.training.killed_training import train_until_step

# 240 train points: 8 steps an epoch, with a checkpoint after 3, 6 and 8.
STEPS, EVERY = 8, 3
SHORT = {
    "dataset.subsample": 300,
    "training.batch_size": 32,
    "training.epochs": 4,
    "training.warmup_epochs": 1,
    "outer.start_share": 0.3,
}
TIMINGS = {"seconds", "inner_seconds", "outer_seconds", "eval_seconds", "images_per_second", "peak_memory_bytes"}


def short_run(method: str, **overrides) -> RunConfig:
    method, *model = method.split(" of ")
    given = {**SHORT, **overrides, **({"model.name": model[0]} if model else {})}
    if not method.startswith("autodo"):
        del given["outer.start_share"]
    return build_run("digits", method, distortion=DistortionConfig(noise_ratio=0.2), overrides=given)


def start(config: RunConfig, path: Path | None = None, **options) -> Trainer:
    return Trainer(config, prepare(load(config.dataset), config), checkpoint=path, **options)


def untimed(table):
    return table.drop_columns([name for name in table.column_names if name in TIMINGS | {"finished_at"}])


def tables(training: Trainer) -> dict:
    """Tables of a training at its end, without measured times."""
    list(training)
    outcome = training.outcome()
    return {kind: untimed(getattr(outcome, kind)) for kind in ("results", "epochs", "predictions", "points")}


def kill_before(step: int, config: RunConfig, path: Path, workers: int = 1) -> None:
    """Kills every worker at a step, counted over all epochs."""
    context = multiprocessing.get_context("spawn")
    arguments = [(step, config, path, EVERY, path.with_name("meeting"), rank, workers) for rank in range(workers)]
    processes = [context.Process(target=train_until_step, args=given) for given in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == -signal.SIGKILL


CUTS = [
    ("baseline", 5, 0, 3),  # before anything was evaluated
    ("autodo-exact-aws", 2 * STEPS + 8, 2, 6),  # after an outer pass
    ("autodo-exact-ws", 2 * STEPS + 3, 2, 0),  # before the first checkpoint of the epoch
    ("autodo-shared", 2 * STEPS + 7, 2, 6),
    ("elr", STEPS + 5, 1, 3),
    ("sop", STEPS + 5, 1, 3),
    ("pencil", STEPS + 5, 1, 3),
    ("joint-optimization", STEPS + 5, 1, 3),
    ("joint-optimization", 2 * STEPS + 5, 2, 3),  # after it began anew
    ("meta-weight-net", STEPS + 5, 1, 3),
    ("forward-correction", 2 * STEPS + 5, 2, 3),  # in its second training
    ("co-teaching", STEPS + 5, 1, 3),
    ("mixup", STEPS + 5, 1, 3),
    ("adversarial-autoaugment", STEPS + 5, 1, 3),
    ("randaugment", STEPS + 5, 1, 3),
    ("baseline of tests.autodo.models.own_networks:with_dropout", STEPS + 5, 1, 3),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "step", "epoch", "kept"),
    [*CUTS[:2], *(pytest.param(*cut, marks=pytest.mark.long) for cut in CUTS[2:])],
)
def test_a_run_killed_within_an_epoch_resumes_bit_for_bit(method, step, epoch, kept, tmp_path):
    config, path = short_run(method), tmp_path / "run" / "checkpoint.pt"
    kill_before(step, config, path)
    assert_resumes_bit_for_bit(config, path, epoch, kept)


@pytest.mark.parametrize(("method", "step", "epoch", "kept"), CUTS)
def test_a_run_interrupted_within_an_epoch_resumes_bit_for_bit(method, step, epoch, kept, tmp_path):
    config, path = short_run(method), tmp_path / "checkpoint.pt"
    cut_before(step, start(config, path, checkpoint_steps=EVERY))
    assert_resumes_bit_for_bit(config, path, epoch, kept)


def assert_resumes_bit_for_bit(config: RunConfig, path: Path, epoch: int, kept: int) -> None:
    continued = start(config, path, checkpoint_steps=EVERY)
    assert continued.state.epoch == epoch
    assert (continued.state.mid_epoch.step if continued.state.mid_epoch else 0) == kept
    steps = count_steps(continued)
    assert tables(continued) == tables(start(config))
    assert len(steps) == config.training.epochs * STEPS - epoch * STEPS - kept, "no step is taken twice"


def count_steps(training: Trainer) -> list[None]:
    """A list that gets an entry with each step of theta."""
    take_step, steps = training.model.optimizer.step, []

    def counted() -> None:
        steps.append(None)
        take_step()

    training.model.optimizer.step = counted
    return steps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "storage"),
    [
        ("autodo-exact-ws", "file"),
        pytest.param("elr", "device", marks=pytest.mark.long),
        pytest.param("mixup", "device", marks=pytest.mark.long),
        pytest.param("adversarial-autoaugment", "device", marks=pytest.mark.long),
    ],
)
def test_workers_killed_within_an_epoch_resume_bit_for_bit(method, storage, tmp_path):
    config, path = short_run(method), tmp_path / "run" / "checkpoint.pt"
    path.parent.mkdir()
    kill_before(2 * STEPS + 5, config, path, workers=2)
    names = [file.name for file in checkpoints.files(path)]
    assert names == [*(f"checkpoint.part-2.3-{rank}-of-2.pt" for rank in range(2)), "checkpoint.pt"]
    pool = WorkerPool(2)
    try:
        place = TableStorage(storage, tmp_path) if storage == "file" else TableStorage()
        continued = pool.each(2, jobs.run, config, path, None, place)
        undisturbed = pool.each(2, jobs.run, config)
    finally:
        pool.close()
    for ours, theirs in zip(continued, undisturbed, strict=True):
        assert ours["began"] == 2
        assert all(torch.equal(ours[name], theirs[name]) for name in jobs.TABLE)
        assert all(torch.equal(ours["network"][name], value) for name, value in theirs["network"].items())
        assert [row["train_loss"] for row in ours["history"]] == [row["train_loss"] for row in theirs["history"]]
        assert all(untimed(ours["tables"][name]) == untimed(theirs["tables"][name]) for name in theirs["tables"])


class Cut(Exception):
    """Stands in for a kill, without the cost of another process."""


def cut_before(step: int, training: Trainer) -> None:
    """Trains until just before a step, counted from here."""
    take_step, steps = training.model.optimizer.step, iter(range(1, step))

    def dies() -> None:
        if next(steps, None) is None:
            raise Cut
        take_step()

    training.model.optimizer.step = dies
    with pytest.raises(Cut):
        list(training)


def test_an_interrupted_outer_pass_starts_again_and_keeps_the_steps_before_it(tmp_path):
    config, path = short_run("autodo-exact-aws"), tmp_path / "checkpoint.pt"
    training = start(config, path, checkpoint_steps=EVERY)
    take_step, moved = training.points.table.rmsprop_step, []

    def dies(*arguments) -> None:
        if len(moved) == 3:
            raise Cut
        moved.append(take_step(*arguments))

    training.points.table.rmsprop_step = dies
    with pytest.raises(Cut):
        list(training)
    continued = start(config, path, checkpoint_steps=EVERY)
    assert continued.state.epoch == config.outer_start
    assert continued.state.mid_epoch is not None
    assert continued.state.mid_epoch.step == STEPS
    assert continued.points.table.steps == 0
    steps = count_steps(continued)
    assert tables(continued) == tables(start(config))
    assert len(steps) == (config.training.epochs - config.outer_start - 1) * STEPS


def test_checkpoints_within_epochs_are_reported_and_change_nothing(tmp_path):
    config, told = short_run("autodo-exact-ws"), []
    path = tmp_path / "checkpoint.pt"

    def tell() -> None:
        state = torch.load(path, weights_only=True)["state"]
        told.append((state["epoch"], state["step"]))

    assert tables(start(config, path, checkpoint_steps=EVERY, on_checkpoint=tell)) == tables(start(config))
    assert told == [(epoch, step) for epoch in range(4) for step in (3, 6, 8)]
    state = torch.load(path, weights_only=True)["state"]
    assert (state["epoch"], state["step"], state["midway"]) == (4, 0, None)


def test_the_seconds_of_an_epoch_add_up_over_attempts(tmp_path):
    config, path = short_run("baseline"), tmp_path / "checkpoint.pt"
    cut_before(6, start(config, path, checkpoint_steps=EVERY))
    content = torch.load(path, weights_only=True)
    content["state"]["midway"]["seconds"] += 1000
    torch.save(content, path)
    row = next(iter(start(config, path)))
    assert 1000 < row["inner_seconds"] < 1100
    assert row["images_per_second"] * row["inner_seconds"] == pytest.approx(240)


@pytest.mark.slow
def test_another_number_of_workers_continues_within_the_epoch(tmp_path):
    config, path = short_run("autodo-exact-ws"), tmp_path / "checkpoint.pt"
    cut_before(2 * STEPS + 5, start(config, path, checkpoint_steps=EVERY))
    pool = WorkerPool(2)
    try:
        for state in pool.each(2, jobs.run, config, path, 3):
            assert state["began"] == 2
            assert [row["epoch"] for row in state["history"]] == [0, 1, 2]
            assert 0 < state["history"][2]["train_loss"] < 2 * state["history"][1]["train_loss"]
    finally:
        pool.close()


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    config, path = short_run("baseline"), tmp_path / "checkpoint.pt"
    training = start(config, path, checkpoint_steps=EVERY)
    next(iter(training))
    before = path.read_bytes()
    take_step, steps = training.model.optimizer.step, iter(range(2))

    def spoils() -> None:
        take_step()
        if next(steps, None) is None:
            with torch.no_grad():
                training.model.head.weight.fill_(torch.nan)

    training.model.optimizer.step = spoils
    with pytest.raises(TrainingDiverged, match=r"train loss is not finite in epoch 1.*has 1 good epochs"):
        list(training)
    assert path.read_bytes() == before
