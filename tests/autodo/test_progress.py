"""Progress within an epoch: when it is reported, its estimates, and that it changes nothing."""

from typing import Any

import pytest
import torch

from autodo import progress
from autodo.api.run import fit_run
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data import load, prepare
from autodo.progress import Durations, Progress, ProgressReporter
from autodo.training.trainer import Trainer


def run_of(method: str = "baseline", epochs: int = 4, **more: Any) -> RunConfig:
    overrides = {
        "training.epochs": epochs,
        "training.warmup_epochs": 0,
        "outer.start_share": 0.5,
        "outer.every": 1,
        "dataset.subsample": 300,
        **more,
    }
    return build_run("digits", method, overrides=overrides)


class Watched:
    """A clock that is advanced by hand, with the reports and the readings of the loss."""

    def __init__(self, config: RunConfig, expected: Durations | None = None) -> None:
        self.now = 0.0
        self.reports: list[Progress] = []
        self.losses_read: list[float] = []
        self.progress = ProgressReporter(
            config, self.reports.append, sizes=(300, 60), expected=expected, clock=lambda: self.now
        )

    def loss(self, share: float) -> float:
        self.losses_read.append(share)
        return 1.5

    def run(self, phase: progress.Phase, epoch: int, steps: int, seconds: float, done: int = 0) -> None:
        for _ in self.progress.track(
            range(done, steps), phase, epoch, total=steps, done=done, mean_loss=self.loss if phase == "inner" else None
        ):
            self.now += seconds


def test_the_loss_is_read_every_two_seconds_at_most():
    watched = Watched(run_of())
    watched.run("inner", 0, steps=100, seconds=0.5)
    assert [report.step for report in watched.reports] == list(range(0, 100, 4))
    assert watched.losses_read == [step / 100 for step in range(4, 100, 4)]
    assert {report.train_loss for report in watched.reports[1:]} == {1.5}


def test_without_a_listener_no_loss_is_read():
    clock = ProgressReporter(run_of(), None, sizes=(300, 60), clock=lambda: pytest.fail("asks for the time"))
    watched = clock.track(range(3), "inner", 0, total=3, mean_loss=lambda share: pytest.fail("reads the loss"))
    assert list(watched) == [0, 1, 2]


def test_the_seconds_left_are_those_of_the_rest_of_the_run():
    config = run_of("autodo-exact-ws")  # outer passes in the last two of four epochs
    watched = Watched(config, expected=Durations(inner=99.0, evaluation=3.0, outer=5.0, finetune=0.0))
    watched.run("inner", 1, steps=10, seconds=2.0)
    # As long as no step is measured the expectation counts, then the steps: 20 seconds an epoch.
    assert watched.reports[0].seconds_left == 3 * (99 + 3) + 2 * 5
    assert [report.seconds_left for report in watched.reports[1:]] == [
        pytest.approx(20 - 2 * step + 3 + 2 * (20 + 3 + 5)) for step in range(1, 10)
    ]
    watched.progress.epoch_ended(
        {"epoch": 2, "inner_seconds": 30.0, "eval_seconds": 4.0, "outer_seconds": 8.0, "outer_phase": True}
    )
    watched.run("outer", 3, steps=4, seconds=2.0)
    assert [report.seconds_left for report in watched.reports[-4:]] == [8.0, 6.0, 4.0, 2.0]


def test_an_epoch_that_is_resumed_is_measured_by_its_own_steps():
    watched = Watched(run_of(epochs=1))
    watched.run("inner", 0, steps=10, seconds=3.0, done=6)
    assert [report.step for report in watched.reports] == [6, 7, 8, 9]
    evaluation = 30 / 3 * 60 / 300
    assert [report.seconds_left for report in watched.reports] == [
        None,
        *(pytest.approx(3 * left + evaluation) for left in (3, 2, 1)),
    ]


@pytest.mark.parametrize(
    ("method", "more", "phases"),
    [
        ("baseline", {}, {"inner"}),
        ("autodo-aws", {}, {"inner", "outer"}),
        ("autodo-exact-aws", {}, {"inner", "outer"}),
        ("autodo-exact-ws", {}, {"inner", "outer"}),
        ("finetune-head-on-val", {}, {"inner", "finetune"}),
        ("baseline", {"model.freeze": "encoder", "model.cached_views": 2}, {"features", "inner"}),
    ],
)
def test_every_step_can_be_reported_and_changes_nothing(method, more, phases, monkeypatch):
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)
    config = run_of(method, **more)
    data = prepare(load(config.dataset), config)
    reports: list[Progress] = []
    watched, alone = Trainer(config, data, on_progress=reports.append), Trainer(config, data)
    rows = list(watched)
    assert {report.phase for report in reports} == phases
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in alone]
    for name, weights in watched.model.encoder.state_dict().items():
        assert torch.equal(weights, alone.model.encoder.state_dict()[name])
    places = [(report.epochs_done, report.phase) for report in reports]
    assert [epochs for epochs, _ in places] == sorted(epochs for epochs, _ in places)
    inner = [report for report in reports if report.phase == "inner"]
    assert [report.step for report in inner if report.epoch == 0] == list(range(inner[0].steps))
    first = next(place for place, report in enumerate(reports) if report.phase == "inner")
    assert all(report.seconds_left is not None for report in reports[first + 1 :])


def test_before_the_first_epoch_the_seconds_left_are_those_of_features_and_epochs():
    config = run_of()
    watched = Watched(config, expected=Durations(inner=20.0, evaluation=3.0, outer=0.0, finetune=0.0, features=40.0))
    watched.run("features", 0, steps=4, seconds=5.0)
    assert [report.seconds_left for report in watched.reports] == [40 + 92, 15 + 92, 10 + 92, 5 + 92]
    assert {report.epochs_done for report in watched.reports} == {0}
    watched.run("inner", 0, steps=4, seconds=5.0)
    assert watched.reports[4].seconds_left == 92
    unknown = Watched(config)
    unknown.run("features", 0, steps=4, seconds=5.0)
    assert {report.seconds_left for report in unknown.reports} == {None}


def test_the_loss_within_an_epoch_is_the_mean_so_far(monkeypatch):
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)
    config = run_of(epochs=1).model_copy(deep=True)
    training = config.training.model_copy(update={"batch_size": 10, "lr": 1e-9})
    reports: list[Progress] = []
    outcome = fit_run(config.model_copy(update={"training": training}), on_progress=reports.append)
    assert reports[-1].step == reports[-1].steps - 1
    # With weights that stand still the mean of all but one of the batches is near that of all.
    assert reports[-1].train_loss == pytest.approx(outcome.epochs["train_loss"][0].as_py(), rel=0.05)
