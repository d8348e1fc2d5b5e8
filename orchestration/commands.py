"""What the commands do, apart from how their options are spelled."""

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from autodo.config import DistortionConfig, RunConfig, SplitName
from autodo.errors import ConfigError, TrainingDiverged, UserError
from autodo.recipes import build_run
from autodo.validation import parse_model, parse_overrides
from orchestration import show
from orchestration.grid import expand, load_grid, pin_content
from orchestration.plan import Plan, make_plan
from orchestration.progress import RunBar
from orchestration.run_state import RunBusy, State
from orchestration.store import Store

_NOT_KEPT = (
    "Its classifier was not kept: `autodo train`, or `autodo launch --keep-models`, with another --store keeps one"
)


def launch(
    console: Console,
    *,
    grid: str,
    store: Path | str | None,
    overrides: Sequence[str],
    data_dir: Path | str | None,
    download: bool,
    only: str | None,
    max_concurrent: int | None,
    cpus_per_run: int | None,
    gpus_per_run: float | None,
    address: str | None,
    dashboard: bool,
    keep_models: bool,
) -> int:
    """Runs what is missing, prints the table; returns the exit code."""
    config = pin_content(load_grid(grid).override(parse_overrides(overrides)))
    given = {"cpus": cpus_per_run, "gpus": gpus_per_run}
    resources = config.resources.model_copy(update={key: value for key, value in given.items() if value is not None})
    place = Store(store or config.store_path)
    whole = make_plan(expand(config), place)
    part = whole if only is None else whole.only([State(only)])
    interrupted = False
    if part.left:
        # Before anything is written and before Ray starts: a missing file is one line, not a failure per run.
        _check_data(console, part.left, data_dir, download)
        place.create().save_grid(config)
        _say(
            console,
            f"{config.name}: {len(part.left)} runs to do, {whole.counts()[State.DONE]} done; store {place}",
        )
        try:
            with console.status("starting Ray"):
                from orchestration import launch as on_ray
            on_ray.launch(
                part.left,
                place,
                resources,
                console,
                cluster=on_ray.Cluster(address, dashboard),
                done_before=part.counts()[State.DONE],
                max_concurrent=max_concurrent,
                data_dir=data_dir,
                keep_models=keep_models,
            )
        except KeyboardInterrupt:
            interrupted = True
    return _summary(console, make_plan(whole.runs, place), place, interrupted=interrupted)


def _check_data(console: Console, runs: Sequence[RunConfig], data_dir: Path | str | None, download: bool) -> None:
    from orchestration.execute import load_dataset

    with console.status("checking the data"):
        for dataset in dict.fromkeys(run.dataset for run in runs):
            load_dataset(dataset, data_dir, download)
    # The runs' own processes load it again; here it would only take up memory until the last of them ends.
    load_dataset.cache_clear()


def _summary(console: Console, after: Plan, store: Store, *, interrupted: bool) -> int:
    counts, total = after.counts(), len(after.runs)
    if counts[State.DONE]:
        show.comparison(console, after, store)
    if interrupted:
        _say(console, f"interrupted: {counts[State.DONE]} of {total} runs are done; the same command continues")
        return 130
    if counts[State.FAILED]:
        show.failures(console, store, set(after.states))
        _say(console, f"{counts[State.FAILED]} of {total} runs failed; `autodo status {store}` says more", "red")
        return 1
    left = total - counts[State.DONE]
    _say(console, f"{left} of {total} runs are left" if left else f"all {total} runs are done")
    return 0


def _say(console: Console, text: str, style: str = "") -> None:
    """A line as it is: paths in it are neither coloured nor broken."""
    console.print(Text(text, style=style), soft_wrap=True)


def train(
    console: Console,
    *,
    dataset: str,
    method: str,
    imbalance_ratio: float,
    noise_ratio: float,
    seed: int,
    split: SplitName,
    store: Path | str,
    overrides: Sequence[str],
    data_dir: Path | str | None,
    download: bool,
    device: str,
    checkpoint_every: int,
) -> int:
    """Trains one run here and prints its errors; returns the exit code."""
    distortion = parse_model(
        DistortionConfig, {"imbalance_ratio": imbalance_ratio, "noise_ratio": noise_ratio}, "--ir, --nr"
    )
    run = build_run(
        dataset, method, distortion=distortion, split=split, seed=seed, overrides=parse_overrides(overrides)
    )
    from autodo import data

    run = run.model_copy(update={"dataset": data.pin_content(run.dataset)})
    place = Store(store)
    if place.is_done(run.run_id):
        kept = place.model_file(run.run_id).exists()
        _say(console, "done before; nothing to do" if kept else f"done before; nothing to do. {_NOT_KEPT}")
        show.result(console, run, place)
        return 0
    from orchestration.execute import execute, load_dataset, record_failure

    with console.status("loading"):
        device = _device(device)
        load_dataset(run.dataset, data_dir, download)
    place.create()
    epoch = None
    try:
        with RunBar(run, console) as bar:
            for metrics in execute(
                run,
                place,
                data_dir=data_dir,
                download=download,
                device=device,
                checkpoint_every=checkpoint_every,
                keep_model=True,
            ):
                epoch = metrics["epoch"]
                bar.epoch(epoch, metrics["val_error"])
    except KeyboardInterrupt:
        told = "before the first epoch ended" if epoch is None else f"after epoch {epoch + 1}/{run.training.epochs}"
        _say(console, f"interrupted {told}; the same command continues")
        return 130
    except RunBusy as error:
        raise ConfigError(str(error)) from None
    except Exception as error:
        failure = record_failure(place, run.run_id, error)
        if failure is None or isinstance(error, UserError | TrainingDiverged):
            raise
        _say(console, f"failed: {failure.last_line}; traceback in {place.log_file(run.run_id)}", "red")
        return 1
    show.result(console, run, place)
    return 0


def _device(name: str) -> str:
    import torch

    from autodo.fit import default_device

    known = "auto, cpu, cuda, cuda:<n>"
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name):
        # torch knows more, such as `meta` and `mps`, on which no run is known to work.
        raise ConfigError(f"--device {name!r}: is not one of {known}")
    if name == "auto":
        return default_device()
    try:
        torch.zeros(1, device=torch.device(name))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name!r}: {str(error).splitlines()[0]}; known: {known}") from None
    return name
