"""What `train` does: one run in this process."""

import contextlib
import functools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from autodo.config.bilevel import LambdaStorage
from autodo.config.dataset import DistortionConfig
from autodo.config.defaults import PROTOCOL, defaults_before
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig, SplitName
from autodo.config.shipped import dataset_presets
from autodo.config.validation import parse_model, parse_overrides
from autodo.errors import ConfigError, TrainingDiverged, UserError
from autodo.io.storage import StrPath
from autodo.text import count_of
from orchestration.cli import show
from orchestration.cli.job_folder import check_outlasts_job
from orchestration.cli.overview import say
from orchestration.display.run_display import RunDisplay
from orchestration.display.text import rough_duration
from orchestration.grid.keep import parse_keep
from orchestration.planning import required_policies
from orchestration.planning.estimate import LONG_SECONDS
from orchestration.store.run_state import RunBusy
from orchestration.store.store import Store

if TYPE_CHECKING:
    from autodo.augment.policy_file import PolicyFile
    from autodo.data import DataSplits
    from autodo.progress import Durations

logger = logging.getLogger("autodo")

WORTH_SAYING_SECONDS = 60.0
"""A shorter run is not announced."""


def train(
    console: Console,
    *,
    dataset: str,
    method: str,
    imbalance_ratio: float,
    noise_ratio: float,
    seed: int,
    split: SplitName,
    store: StrPath,
    preset: str | None = None,
    overrides: Sequence[str],
    data_dir: str | None,
    download: bool,
    device: str,
    checkpoint_every: int,
    keep: Sequence[str],
    lambda_storage: LambdaStorage,
    loader_workers: int | None,
    checkpoint_steps: int | None,
) -> int:
    """Trains one run here and prints its errors; returns the exit code.

    Args:
        keep: what is kept besides the tables and the classifier.
    """
    kept = parse_keep(["models", *keep])
    distortion = parse_model(
        DistortionConfig, {"imbalance_ratio": imbalance_ratio, "noise_ratio": noise_ratio}, "--ir, --nr"
    )
    given = parse_overrides(overrides)

    def build(preset: str | None, more: Mapping[str, Any] = {}, protocol: int = PROTOCOL) -> RunConfig:
        return build_run(
            dataset,
            method,
            distortion=distortion,
            split=split,
            seed=seed,
            preset=preset,
            overrides={**given, **more},
            protocol=protocol,
        )

    run = build(preset)
    from autodo import data

    with data.shared_listing():
        run, found = required_policies.pin_policy_file(
            run.model_copy(update={"dataset": data.pin_content(run.dataset)})
        )
        place = Store(store).supported()
        check_outlasts_job(place)
        if place.status.is_done(run.run_id):
            lacking = " and ".join(place.status.not_kept([run.run_id], kept))
            told = f". It has not kept its {lacking}: the same command with another --store does" if lacking else ""
            say(console, f"done before; nothing to do{told}")
            show.result(console, run, place)
            return 0
        for protocol in range(1, PROTOCOL):
            older = build(preset, protocol=protocol).model_copy(update={"dataset": run.dataset})
            if older.run_id != run.run_id and place.paths.config(older.run_id).exists():
                old = ", ".join(f"{key}: {value}" for key, value in defaults_before(protocol).items())
                say(console, f"{place} has this run as it was with older defaults ({old}); this is another run")
        from orchestration.execution.execute import execute
        from orchestration.execution.options import ExecutionOptions
        from orchestration.execution.process import load_dataset, using_loader_workers
        from orchestration.store.failures import record_failure

        with console.status("loading"), using_loader_workers(loader_workers):
            device = _device(device)
            load_dataset(run.dataset, data_dir, download)
    options = ExecutionOptions(
        data_dir=data_dir,
        download=download,
        checkpoint_every=checkpoint_every,
        keep=kept,
        lambda_storage=lambda_storage,
        loader_workers=loader_workers,
        checkpoint_steps=checkpoint_steps,
    )
    required_policies.save_policies(found, place.create())
    epoch = None
    try:
        if run.search_id is not None and run.search_id not in place.policies.names():
            _search(console, run, place, data_dir, device)
        with RunDisplay(run, console) as shown:
            for metrics in execute(
                run,
                place,
                options,
                device=device,
                estimate=functools.partial(_estimate, shown, run, _smaller(build, dataset, preset), device),
                on_progress=shown.within,
            ):
                epoch = metrics["epoch"]
                shown.epoch(epoch, metrics["train_loss"], metrics["val_error"])
    except KeyboardInterrupt:
        told = "before the first epoch ended" if epoch is None else f"after epoch {epoch + 1}/{run.training.epochs}"
        if run.search_id is not None and run.search_id not in place.policies.names():
            told = "while its policy was searched"
        say(console, f"interrupted {told}; the same command continues")
        return 130
    except RunBusy as error:
        raise ConfigError(str(error)) from None
    except Exception as error:
        failure = record_failure(place, run.run_id, error)
        if isinstance(error, UserError | TrainingDiverged):
            raise
        say(console, f"failed: {failure.last_line}; traceback in {place.paths.log(run.run_id)}", "red")
        return 1
    show.result(console, run, place)
    return 0


def _smaller(build: Callable[..., RunConfig], dataset: str, preset: str | None) -> dict[str, RunConfig]:
    """Smaller variants of the run, by the option that selects each.

    Args:
        build: the run with a preset and further overrides.
    """
    wanted: dict[str, tuple[str | None, dict[str, Any]]] = {
        f"--preset {name}": (name, {}) for name in dataset_presets(dataset) if preset is None
    }
    smaller = {}
    for option, how in {**wanted, "--set model.name=small-cnn": (preset, {"model.name": "small-cnn"})}.items():
        with contextlib.suppress(ConfigError):  # an override that does not go with the preset
            smaller[option] = build(*how)
    return smaller


def _estimate(
    shown: RunDisplay,
    run: RunConfig,
    smaller: Mapping[str, RunConfig],
    device: str,
    data: "DataSplits",
    policy: "PolicyFile | None",
) -> "Durations | None":
    """Says how long the run will take and, if that is long and there is no GPU, which smaller one takes how long.

    Args:
        smaller: runs by the options that make them; the first that takes less than half as long is offered.
    Returns:
        what the parts of an epoch take; None if a few steps cannot be timed, which ends no run.
    """
    import torch

    from autodo.training.step_timing import time_steps

    shown.doing("timing a few steps")
    try:
        durations = time_steps(run, data, device=device, policy=policy)
    except (UserError, RuntimeError) as error:
        logger.warning("how long the run takes is not estimated: %s", error)
        return None
    seconds = durations.left(run)
    threads = torch.get_num_threads()
    on = f" on {count_of(threads, 'CPU thread')}" if device == "cpu" else ""
    included = ", outer passes included" if run.outer is not None else ""
    text = f"training takes about {rough_duration(seconds)}{on}{included}"
    if device == "cpu" and seconds > LONG_SECONDS:
        for option, other in smaller.items():
            try:
                other_seconds = time_steps(other, data, device=device, policy=policy).left(other)
            except (UserError, RuntimeError):  # of a variant that cannot be trained so, or not here
                continue
            if other_seconds < seconds / 2:
                text += f"; with `{option}` about {rough_duration(other_seconds)}"
                break
    if seconds >= WORTH_SAYING_SECONDS:
        shown.say(text)
    return durations


def _search(console: Console, run: RunConfig, store: Store, data_dir: str | None, device: str) -> None:
    from orchestration.display.search_display import SearchDisplay
    from orchestration.search.task_runner import search_in_store

    store.begin(run)  # so that a search that fails is a failure of a run that is known
    search_id = str(run.search_id)
    with SearchDisplay({search_id: run}, console) as board:

        def tell(line: str) -> None:
            board.update(search_id, "at work", line)
            board.refresh()

        search_in_store(run, store, data_dir=data_dir, device=device, tell=tell)
        board.update(search_id, "found", str(store.paths.policy(search_id)))


def _device(name: str) -> str:

    from autodo.fit import default_device

    known = "auto, cpu, cuda, cuda:<n>"
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name):
        # torch knows more, such as `meta` and `mps`, on which no run is known to work.
        raise ConfigError(f"--device {name!r}: is not one of {known}")
    if name == "auto":
        return default_device()
    if name != "cpu":
        _check_gpu(name)
    return name


def _check_gpu(name: str) -> None:
    """Raises ConfigError unless torch can use this GPU."""
    import torch

    remedy = "give --device cpu, or leave it out"
    if not torch.cuda.is_available():
        why = (
            "torch finds no GPU here (does nvidia-smi?)"
            if torch.version.cuda or torch.version.hip
            else f"torch {torch.__version__} is built without CUDA"
        )
        raise ConfigError(f"--device {name!r}: {why}; {remedy}")
    count = torch.cuda.device_count()
    if int(name.partition(":")[2] or 0) >= count:
        there = "there is 1 GPU, cuda:0" if count == 1 else f"there are {count} GPUs, cuda:0 to cuda:{count - 1}"
        raise ConfigError(f"--device {name!r}: {there}")
    try:
        torch.zeros(1, device=name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name!r}: cannot be used: {str(error).splitlines()[0]}; {remedy}") from None
