"""The estimate before training: its scaling, and that it does not change the run."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data import DataSplits, load, prepare
from autodo.progress import Durations
from autodo.training import step_timing
from autodo.training.step_timing import time_steps
from autodo.training.trainer import Trainer


def run_of(method: str, split: Any = "paper", **overrides: Any) -> tuple[RunConfig, DataSplits]:
    given = {"training.epochs": 3, "training.warmup_epochs": 1, "dataset.subsample": 400, **overrides}
    config = build_run("digits", method, split=split, overrides=given)
    return config, prepare(load(config.dataset), config)


@pytest.mark.parametrize("method", ["autodo-exact-aws", "meta-weight-net"])
def test_the_run_is_the_same_after_its_steps_were_timed(method, monkeypatch):
    monkeypatch.setattr(step_timing, "SHORT_SECONDS", 0.0)  # so that whole batches are timed, too
    config, data = run_of(method)
    fingerprint, images = data.fingerprint, data.train.images.read().copy()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    before = Trainer(config, data)
    rows_before = list(before)
    time_steps(config, data)
    after = Trainer(config, data)
    assert [row["val_loss"] for row in rows_before] == [row["val_loss"] for row in after]
    first, second = before.state.state_dict(), after.state.state_dict()
    for part in ("encoder", "head", "points"):
        assert first[part].keys() == second[part].keys()
        for name, value in first[part].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(second[part][name]))
    assert (data.fingerprint, data.train.images.read().tobytes()) == (fingerprint, images.tobytes())
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize("method", ["baseline", "autodo-aws", "autodo-exact-ws", "finetune-head-on-val", "val-only"])
def test_all_parts_that_a_method_has_are_timed(method):
    config, data = run_of(method)
    durations = time_steps(config, data)
    assert durations.inner > 0
    assert durations.evaluation > 0
    assert (durations.outer > 0) == (config.outer is not None)
    assert (durations.finetune > 0) == (config.finetune is not None)


class Slow:
    """Fake trainer: a point of the inner problem takes two seconds, an evaluated one half a second."""

    batch_sizes: list[int]
    shapes: list[tuple[int, ...]]

    def __init__(self, config: RunConfig, data: DataSplits, **_: Any) -> None:
        assert config.run_id  # still a whole configuration
        self.config, self.data = config, data
        images = len(data.train) + len(data.val) + len(data.test)
        frozen = SimpleNamespace(seconds=4.0 * images) if config.model.freeze == "encoder" else None
        self.context = SimpleNamespace(frozen=frozen)
        self.batch_sizes.append(config.training.batch_size)
        self.shapes.append(data.train.images.shape)

    def __iter__(self) -> Any:
        inner = len(self.data.train) * self.config.trains_on_train + len(self.data.val) * self.config.trains_on_val
        evaluated = len(self.data.val) + len(self.data.test)
        for epoch in range(self.config.training.epochs):
            outer = 3.0 * inner if self.config.has_outer_pass(epoch) else 0.0
            warming_up = 100.0 if epoch == 0 else 0.0
            seconds = 0.25 * len(self.data.val) if epoch >= self.config.finetune_start else 2.0 * inner
            yield {
                "inner_seconds": seconds + warming_up,
                "eval_seconds": 0.5 * evaluated + warming_up,
                "outer_seconds": outer,
            }


@pytest.fixture
def slow(monkeypatch):
    monkeypatch.setattr(step_timing, "Trainer", Slow)
    Slow.batch_sizes, Slow.shapes = [], []
    return Slow


@pytest.mark.parametrize("split", ["paper", "union"])
def test_seconds_are_scaled_by_the_number_of_images(slow, split):
    config, data = run_of("autodo-exact-ws", split)
    inner = len(data.train) + (len(data.val) if split == "union" else 0)
    durations = time_steps(config, data)
    evaluation = (len(data.val) + len(data.test)) / 2
    assert vars(durations) == pytest.approx(
        {"inner": 2 * inner, "evaluation": evaluation, "outer": 3 * inner, "finetune": 0, "features": 0}
    )
    # A point takes longer than the timed steps may: no other step is timed.
    assert slow.batch_sizes == [8]
    passes = sum(config.has_outer_pass(epoch) for epoch in range(3))
    assert durations.left(config) == pytest.approx(3 * (durations.inner + durations.evaluation) + passes * 3 * inner)


def test_finetune_epochs_are_timed_apart(slow):
    config, data = run_of("finetune-head-on-val", **{"training.epochs": 10})
    durations = time_steps(config, data)
    assert durations.finetune == pytest.approx(0.25 * len(data.val))
    heads = 10 - config.finetune_start
    assert durations.left(config) == pytest.approx(
        (10 - heads) * durations.inner + heads * durations.finetune + 10 * durations.evaluation
    )


def test_the_features_of_a_frozen_encoder_are_timed(slow):
    config, data = run_of("baseline", **{"model.freeze": "encoder"})
    durations = time_steps(config, data)
    images = len(data.train) + len(data.val) + len(data.test)
    assert durations.features == pytest.approx(4.0 * images)
    assert durations.total(config) == durations.features + durations.left(config)


def test_the_time_budget_limits_the_timed_images(slow, monkeypatch):
    config, data = run_of("baseline")
    monkeypatch.setattr(step_timing, "BUDGET_SECONDS", 60.0)
    time_steps(config, data)
    assert (slow.batch_sizes, [shape[0] for shape in slow.shapes]) == ([8, 30], [8, 30])
    monkeypatch.setattr(step_timing, "BUDGET_SECONDS", 1e9)
    time_steps(config, data)
    assert slow.batch_sizes[-1] == config.training.batch_size
    assert slow.shapes[-1][0] == min(4 * config.training.batch_size, len(data.train))


def test_a_short_run_is_timed_once(monkeypatch, slow):
    config, data = run_of("baseline")
    monkeypatch.setattr(step_timing, "BUDGET_SECONDS", 1e9)
    monkeypatch.setattr(step_timing, "SHORT_SECONDS", 1e9)
    time_steps(config, data)
    assert slow.batch_sizes == [8]


@pytest.mark.parametrize("size", [4, 13])
def test_images_are_resized_for_timing(slow, tmp_path, size):
    config, data = run_of("baseline")
    folder = config.dataset.model_copy(update={"name": "folder", "path": str(tmp_path), "image_size": size})
    time_steps(config.model_copy(update={"dataset": folder}), data)
    assert slow.shapes == [(8, 1, size, size)]


def test_remaining_seconds_count_from_an_epoch():
    config, _ = run_of("autodo-exact-ws", **{"training.epochs": 8, "outer.start_share": 0.5, "outer.every": 1})
    durations = Durations(inner=10.0, evaluation=1.0, outer=5.0, finetune=0.0)
    assert [durations.left(config, epoch) for epoch in (0, 3, 7, 8)] == [108, 75, 16, 0]
