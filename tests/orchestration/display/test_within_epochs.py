"""Slow runs say where they are within an epoch: in the log, to `train`, and to the display of a launch."""

import io
import itertools
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autodo import progress
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.config.shipped import dataset_preset
from autodo.errors import ConfigError
from autodo.progress import Durations, Progress
from autodo.text import rough_duration
from orchestration.cli import train
from orchestration.cli.options import TrainOptions
from orchestration.display import run_display
from orchestration.display.grid_display import GridDisplay
from orchestration.display.grid_progress import GridProgress
from orchestration.display.run_display import RunDisplay
from orchestration.display.text import log_line, parse_log_line
from orchestration.execution.execute import execute
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.run_queue import Job
from orchestration.store.store import Store

TEN_EPOCHS = {"training.epochs": 10}
SetDurations = Callable[[Mapping[str, float | Exception]], None]


def within(
    step: int = 4, epoch: int = 2, seconds_left: float | None = 7500.0, loss: float | None = 1.25, **changes: Any
) -> Progress:
    given = {"epoch": epoch, "epochs": 10, "phase": "inner", "step": step, "steps": 11, **changes}
    return Progress(train_loss=loss, seconds_left=seconds_left, **given)


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (within(), "in epoch 2 of 10: step 4 of 11, train loss 1.2500, about 2 h 05 min left"),
        (within(0, loss=None, seconds_left=None), "in epoch 2 of 10: step 0 of 11"),
        (
            within(phase="features", epoch=0, loss=None, seconds_left=None),
            "in epoch 0 of 10: features of the frozen encoder, step 4 of 11",
        ),
        (
            within(phase="outer", loss=None, seconds_left=200.0),
            "in epoch 2 of 10: outer pass, step 4 of 11, about 3 min 20 s left",
        ),
        (
            within(phase="finetune", seconds_left=3.0, loss=float("inf")),
            "in epoch 2 of 10: head alone, step 4 of 11, train loss inf, about 3 s left",
        ),
    ],
)
def test_a_line_of_the_log_is_read_as_it_was_written(progress: Progress, line: str) -> None:
    assert log_line(progress) == line
    assert parse_log_line(f"2026-11-30 10:27:47,821 {line}") == progress


@pytest.mark.parametrize("line", ["", "epoch 3: train loss 1.2, val error 0.1, test error 0.2", "in epoch 2 of 10"])
def test_other_lines_of_the_log_are_no_progress(line: str) -> None:
    assert parse_log_line(line) is None


def test_an_estimate_is_rough() -> None:
    seconds = (0.2, 44, 80, 100, 3599, 5000, 5500, 86000, 129700)
    texts = ["1 s", "44 s", "80 s", "2 min", "60 min", "83 min", "2 h", "24 h", "2 days"]
    assert [rough_duration(one) for one in seconds] == texts


class Shown:
    """A RunDisplay at a time of its own, and what it has printed."""

    def __init__(self, **options: Any) -> None:
        self.now, self.out = 0.0, io.StringIO()
        run = build_run("digits", "baseline", overrides=TEN_EPOCHS)
        self.display = RunDisplay(run, Console(file=self.out, **options), clock=lambda: self.now)

    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()


def test_redirected_output_has_a_line_per_epoch_and_some_within_long_ones() -> None:
    shown = Shown(width=40)
    with shown.display as display:
        for second in range(0, 100, 2):
            shown.now = float(second)
            display.within(within(step=second // 10, epoch=0, seconds_left=1000.0 - second))
        display.epoch(0, 1.5, 0.25)
        shown.now = 120.0
        display.within(within(step=1, epoch=1, seconds_left=880.0))
        display.epoch(1, 1.25, 0.125)
    assert shown.lines() == [
        "epoch 1/10, step 3/11, train loss 1.2500, about 16 min 10 s left",
        "epoch 1/10, step 6/11, train loss 1.2500, about 15 min 40 s left",
        "epoch 1/10, step 9/11, train loss 1.2500, about 15 min 10 s left",
        "epoch 1/10, train loss 1.5000, val error 25.0%, about 15 min 02 s left",
        "epoch 2/10, train loss 1.2500, val error 12.5%, about 14 min 40 s left",
    ]


@pytest.mark.parametrize("width", [20, 40, 120])
def test_a_terminal_of_any_width_has_two_lines(width: int) -> None:
    shown = Shown(force_terminal=True, width=width, color_system=None)
    console = Console(file=(out := io.StringIO()), width=width, color_system=None)
    for act in (lambda: None, lambda: shown.display.within(within()), lambda: shown.display.epoch(2, 1.5, 0.25)):
        act()
        console.print(shown.display.render())
    lines = out.getvalue().splitlines()
    assert len(lines) == 6
    assert all(len(line) <= width for line in lines)
    assert "epoch" in lines[3]
    if width == 120:
        assert "epoch 3/10, step 4/11, train loss 1.2500, about 2 h 05 min left" in lines[3]


def test_a_terminal_without_utf_8_shows_a_bar_of_its_letters() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")  # an error for each letter that it lacks
    shown = Shown(width=100)
    shown.display.within(within())
    Console(file=file, width=100, force_terminal=True).print(shown.display.render())
    file.flush()
    assert b"step 4/11" in raw.getvalue()


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(run_display, "LINE_SECONDS", 0.0)


def test_the_log_of_a_run_has_its_progress_within_an_epoch(store: Store, run: RunConfig, every_step: None) -> None:
    reports: list[Progress] = []
    estimates: list[int] = []

    def estimate(data: Any, policy: Any) -> Durations:
        estimates.append(len(data.train))
        return Durations(inner=100.0, evaluation=0.0, outer=0.0, finetune=0.0)

    epochs = execute(run, store, estimate=estimate, on_progress=reports.append)
    next(epochs)
    epochs.close()
    assert reports[0].seconds_left == 300.0
    logged = [parse_log_line(line) for line in store.paths.log(run.run_id).read_text().splitlines()]
    steps = [(one.epoch, one.step, one.steps) for one in logged if one is not None]
    assert steps == [(one.epoch, one.step, one.steps) for one in reports]
    assert len(steps) == reports[0].steps > 1
    # What goes on from a checkpoint is not estimated again.
    list(execute(run, store, estimate=estimate))
    assert len(estimates) == 1


def jobs(n: int) -> list[Job]:
    runs = [build_run("digits", "baseline", seed=seed, overrides=TEN_EPOCHS) for seed in range(n)]
    return [Job(run.run_id, run, ResourcesConfig(), expected_seconds=1e6) for run in runs]


def test_a_launch_knows_the_time_that_is_left_before_the_first_epoch_has_ended() -> None:
    first, second = jobs(2)
    progress = GridProgress([first, second])
    progress.started(first.run_id)
    progress.within(first.run_id, within(step=11, epoch=0, steps=22, seconds_left=95.0))
    # 9.5 epochs are left of the first run: 10 seconds each, also for the other run.
    assert progress.remaining_seconds() == pytest.approx(95 + 100)
    console = Console(file=(out := io.StringIO()), width=120)
    console.print(GridDisplay(progress, console).render())
    assert "epoch 1/10, step 11/22, train loss 1.2500" in out.getvalue()
    progress.epoch(first.run_id, 0, 0.5, seconds=20.0)
    assert progress.remaining_seconds() == pytest.approx(19 * 20)
    progress.within(first.run_id, within(step=11, epoch=1, steps=22, seconds_left=1.0))
    assert progress.remaining_seconds() == pytest.approx(18.5 * 20)


def test_a_launch_reads_the_logs_of_the_runs_at_work(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from orchestration.execution.supervisor import Supervisor

    def log(time: str, progress: Progress) -> None:
        with store.attempt(job.run_id) as attempt:
            attempt.log.write(f"2026-11-30 {time} {log_line(progress)}\n")

    (job,) = jobs(1)
    progress = GridProgress([job])
    supervisor = Supervisor(None, progress, store, None)  # type: ignore[arg-type]
    log("09:00:00,000", within(epoch=7))  # the last line of an attempt that was killed
    supervisor.started(job.run_id)
    supervisor.look_within_epochs()
    assert progress.running[job.run_id].within is None
    log("10:27:47,821", within())
    supervisor.look_within_epochs()
    assert progress.running[job.run_id].within == within()
    monkeypatch.setattr(
        store.status, "last_log_line", lambda run_id: (_ for _ in ()).throw(OSError("stale file handle"))
    )
    supervisor.look_within_epochs()


@pytest.mark.parametrize(
    ("seconds_left", "resources", "overrides", "printed"),
    [
        (4000.0, ResourcesConfig(), {}, True),
        (1000.0, ResourcesConfig(), {}, False),
        (4000.0, ResourcesConfig(gpus=1), {}, False),
        (4000.0, ResourcesConfig(), dataset_preset("folder", "cpu"), False),
        (4000.0, ResourcesConfig(), {"model.name": "small-cnn"}, False),  # the preset's network is larger
    ],
)
def test_a_long_launch_on_cpus_is_pointed_to_the_preset_once(
    any_store: Store,
    monkeypatch: pytest.MonkeyPatch,
    seconds_left: float,
    resources: ResourcesConfig,
    overrides: dict[str, Any],
    printed: bool,
) -> None:
    from orchestration import launch
    from orchestration.execution import supervisor

    run = build_run("folder", "baseline", overrides={"dataset.path": "photos", **overrides, **TEN_EPOCHS})
    job = Job(run.run_id, run, resources)
    progress = GridProgress([job])
    progress.started(job.run_id)
    now = itertools.count(step=10.0)
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: next(now))
    shown = GridDisplay(progress, Console(file=(out := io.StringIO()), width=200))
    queue: Any = types.SimpleNamespace(out_of_time=False)
    watch = supervisor.Supervisor(queue, progress, any_store, shown, (), launch._smaller_preset([job]))
    progress.within(job.run_id, within(seconds_left=seconds_left))
    for _ in range(2):
        watch.look(lambda: None)
    line = "about 67 min left on CPUs: `preset: cpu` in the grid makes the runs smaller, "
    line += "see docs/tutorial/own-images.md\n"
    assert out.getvalue() == (line if printed else "")


@pytest.fixture
def durations(monkeypatch: pytest.MonkeyPatch) -> SetDurations:
    """Sets how long an epoch of each model takes, or with which error its timing ends."""

    def set_to(seconds: Mapping[str, float | Exception]) -> None:
        def time_steps(config: RunConfig, data: Any, **_: Any) -> Durations:
            of_epoch = seconds["frozen" if config.model.freeze == "encoder" else config.model.name]
            if isinstance(of_epoch, Exception):
                raise of_epoch
            return Durations(inner=of_epoch, evaluation=0.0, outer=0.0, finetune=0.0)

        monkeypatch.setattr("autodo.training.step_timing.time_steps", time_steps)
        monkeypatch.setattr("torch.get_num_threads", lambda: 2)

    return set_to


def estimated(device: str = "cpu", preset: str | None = None, *overrides: str) -> str:
    options = TrainOptions("folder", "autodo-exact-ws", preset=preset, overrides=["dataset.path=photos", *overrides])
    run = train._build(options)
    shown = RunDisplay(run, Console(file=(out := io.StringIO()), width=40))
    train._estimate(shown, run, train._smaller(run, options), device, None, None)  # type: ignore[arg-type]
    return out.getvalue()


def test_a_long_run_on_a_cpu_is_offered_a_smaller_one(durations: SetDurations) -> None:
    durations({"resnet-18": 108.0, "wrn-16-2": 6.0, "small-cnn": 0.5})
    assert estimated() == (
        "training takes about 3 h on 2 CPU threads, outer passes included; with `--preset cpu` about 3 min\n"
    )
    assert estimated(device="cuda") == "training takes about 3 h, outer passes included\n"
    assert estimated(preset="cpu") == "training takes about 3 min on 2 CPU threads, outer passes included\n"
    durations({"resnet-18": 108.0, "wrn-16-2": 300.0, "small-cnn": 2.0})
    assert estimated() == (
        "training takes about 3 h on 2 CPU threads, outer passes included; "
        "with `--set model.name=small-cnn` about 3 min\n"
    )
    durations({"resnet-18": 0.1, "wrn-16-2": 0.1, "small-cnn": 0.1})
    assert estimated() == ""


def test_a_long_run_with_pretrained_weights_may_freeze_the_encoder(durations: SetDurations) -> None:
    durations({"torchvision:resnet18": 108.0, "small-cnn": 2.0, "frozen": 0.5})
    network = "model.name=torchvision:resnet18"
    assert estimated("cpu", None, network, "model.weights=weights.pth").endswith(
        "; with `--set model.freeze=encoder --set model.cached_views=5` about 50 s\n"
    )
    assert estimated("cpu", None, network).endswith("; with `--preset cpu` about 54 min\n")


def test_a_variant_that_cannot_be_timed_is_not_offered(durations: SetDurations) -> None:
    durations({"resnet-18": 108.0, "wrn-16-2": ConfigError("too many parameters"), "small-cnn": 2.0})
    assert estimated().endswith("; with `--set model.name=small-cnn` about 3 min\n")
    durations({"resnet-18": 108.0, "wrn-16-2": RuntimeError("out of memory"), "small-cnn": RuntimeError("the same")})
    assert estimated() == "training takes about 3 h on 2 CPU threads, outer passes included\n"


def test_a_run_that_cannot_be_timed_goes_on_without_an_estimate(
    durations: SetDurations, store: Store, run: RunConfig
) -> None:
    durations({run.model.name: RuntimeError("out of memory")})
    shown = RunDisplay(run, Console(file=(out := io.StringIO())))

    def estimate(data: Any, policy: Any) -> Durations | None:
        return train._estimate(shown, run, {}, "cpu", data, policy)

    epochs = execute(run, store, estimate=estimate)
    assert next(epochs)["epoch"] == 0
    epochs.close()
    assert "the duration of the run is not estimated: out of memory" in store.paths.log(run.run_id).read_text()
    assert out.getvalue() == ""
