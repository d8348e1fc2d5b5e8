"""`autodo train`: one run in this process."""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from autodo import plugins
from autodo.api.pretrained import frozen_variants, settings_of_weights
from autodo.config.dataset import DistortionConfig
from autodo.config.defaults import PROTOCOL, defaults_before
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.config.shipped import dataset_presets, preset_of_device
from autodo.config.validation import parse_model, parse_overrides
from autodo.errors import ConfigError, TrainingDiverged, UserError
from autodo.models.weight_names import use_weights_dir
from autodo.progress import LONG_SECONDS
from autodo.text import count_of, rough_duration
from orchestration.cli.console import say
from orchestration.cli.options import TrainOptions, given
from orchestration.cli.report import show_result
from orchestration.display.run_display import RunDisplay
from orchestration.execution.device import chosen_device
from orchestration.execution.options import ExecutionOptions
from orchestration.grid.keep import parse_keep
from orchestration.planning.required_policies import pin_policy_file, save_policies
from orchestration.ray_cluster.job_folder import check_outlasts_job
from orchestration.store.networks import save_networks
from orchestration.store.run_state import RunBusy
from orchestration.store.store import Store

if TYPE_CHECKING:
    from autodo.augment.policy_file import PolicyFile
    from autodo.data import DataSplits
    from autodo.progress import Durations

logger = logging.getLogger("autodo")

WORTH_SAYING_SECONDS = 60.0
"""Shorter runs are trained without printing an estimate."""


def train_run(console: Console, options: TrainOptions) -> int:
    """Train one run here and print its errors; return the exit code."""
    keep = parse_keep(["models", *options.keep])
    by_device = options.preset == "auto"
    options = _with_preset(options)
    use_weights_dir(options.data.weights_dir)
    run = _build(options)
    from autodo import data

    with data.shared_listing():
        run = run.model_copy(update={"dataset": data.pin_content(run.dataset)})
        run = run.model_copy(update={"model": run.model.pinned()})
        run, policies = pin_policy_file(run)
        store = Store(options.store).supported()
        check_outlasts_job(store)
        if store.status.is_done(run.run_id):
            lacking = " and ".join(store.status.not_kept([run.run_id], keep))
            hint = f". It has not kept its {lacking}: the same command with another --store does" if lacking else ""
            say(console, f"done before; nothing to do{hint}")
            show_result(console, run, store)
            return 0
        _mention_older_defaults(console, options, run, store)
        if by_device:
            _mention_preset(console, options, run, store)
        _mention_weights(console, options, run)
        from orchestration.execution.process import check_network, load_dataset, using_loader_workers

        with console.status("loading"), using_loader_workers(options.trainer.loader_workers):
            device = chosen_device(options.device)
            dataset = load_dataset(run.dataset, options.data.data_dir, options.data.download)
            check_network(run, dataset)
    save_policies(policies, store.create())
    save_networks([run], store)
    store.save_plugins(plugins.files())
    execution = ExecutionOptions(
        **vars(options.data), **given(options.trainer), checkpoint_every=options.checkpoint_every, keep=keep
    )
    code = _execute(console, run, store, execution, device, _smaller(run, options))
    if not code:
        show_result(console, run, store)
    return code


def _with_preset(options: TrainOptions) -> TrainOptions:
    """The options with the name of a preset in place of `auto`, and None in place of `none`."""
    preset = options.preset
    if preset == "none":
        preset = None
    elif preset == "auto":
        # Torch, which takes seconds to import, is asked for a GPU only if the answer matters.
        matters = not {"cpu", "gpu"}.isdisjoint(dataset_presets(options.dataset))
        preset = preset_of_device(options.dataset, chosen_device(options.device)) if matters else None
    return dataclasses.replace(options, preset=preset)


def _build(options: TrainOptions, protocol: int = PROTOCOL) -> RunConfig:
    """The run of the options; with a preset, pretrained weights bring settings, as in `autodo.fit`."""
    overrides = parse_overrides(options.overrides)

    def build(more: Mapping[str, Any]) -> RunConfig:
        return build_run(
            options.dataset,
            options.method,
            distortion=_distortion(options),
            split=options.split,
            seed=options.seed,
            preset=options.preset,
            overrides={**overrides, **more},
            protocol=protocol,
        )

    run = build({})
    brought = {} if options.preset is None else settings_of_weights(run, overrides)
    return build(brought) if brought else run


def _distortion(options: TrainOptions) -> DistortionConfig:
    ratios = {"imbalance_ratio": options.imbalance_ratio, "noise_ratio": options.noise_ratio}
    if options.distortion is None:
        return parse_model(DistortionConfig, ratios, "--ir, --nr")
    if tuple(ratios.values()) != (1, 0):
        raise ConfigError(f"--distortion {options.distortion!r}: holds both ratios; leave out --ir and --nr")
    return DistortionConfig.parse(options.distortion)


def _mention_older_defaults(console: Console, options: TrainOptions, run: RunConfig, store: Store) -> None:
    """Print a line if the store has the run under older defaults, which make it another run."""
    for protocol in range(1, PROTOCOL):
        older = _build(options, protocol).model_copy(update={"dataset": run.dataset})
        if older.run_id != run.run_id and store.paths.config(older.run_id).exists():
            old = ", ".join(f"{key}: {value}" for key, value in defaults_before(protocol).items())
            say(console, f"{store} has this run as it was with older defaults ({old}); this is another run")


def _mention_preset(console: Console, options: TrainOptions, run: RunConfig, store: Store) -> None:
    """Print a line about a preset that the device chose, and one if the store has the run without it."""
    recipe = _build(dataclasses.replace(options, preset=None))
    dataset = recipe.dataset.model_copy(update={"content": run.dataset.content})
    recipe = recipe.model_copy(update={"dataset": dataset, "model": recipe.model.pinned()})
    if recipe.run_id == run.run_id:
        return
    size, epochs = run.dataset.image_size, count_of(run.training.epochs, "epoch")
    say(
        console,
        f"preset {options.preset}, by the device: {run.model.name}, {size} x {size} pixels, {epochs}; --preset none is "
        "the recipe itself",
    )
    if store.paths.config(recipe.run_id).exists():
        say(console, f"{store} has the run of the recipe itself, which --preset none continues; this is another run")


def _mention_weights(console: Console, options: TrainOptions, run: RunConfig) -> None:
    """Print a line about the settings that pretrained weights bring along."""
    brought = {} if options.preset is None else settings_of_weights(run, parse_overrides(options.overrides))
    if brought:
        settings = ", ".join(f"{key}={value}" for key, value in brought.items())
        say(
            console,
            f"pretrained weights bring {settings}; --set overrides each, and --preset none is the recipe itself",
        )


def _execute(
    console: Console,
    run: RunConfig,
    store: Store,
    options: ExecutionOptions,
    device: str,
    smaller: Mapping[str, RunConfig],
) -> int:
    """Search the run's policy if the store lacks it, and train; return the exit code."""
    from orchestration.execution.execute import execute
    from orchestration.store.failures import record_failure

    epoch = None
    try:
        if run.search_id is not None and run.search_id not in store.policies.names():
            _search(console, run, store, options.data_dir, device)
        with RunDisplay(run, console) as display:
            estimate = functools.partial(_estimate, display, run, smaller, device)
            for metrics in execute(run, store, options, device=device, estimate=estimate, on_progress=display.within):
                epoch = metrics["epoch"]
                display.epoch(epoch, metrics["train_loss"], metrics["val_error"])
    except KeyboardInterrupt:
        when = "before the first epoch ended" if epoch is None else f"after epoch {epoch + 1}/{run.training.epochs}"
        if run.search_id is not None and run.search_id not in store.policies.names():
            when = "while its policy was searched"
        say(console, f"interrupted {when}; the same command continues")
        return 130
    except RunBusy as error:
        raise ConfigError(str(error)) from None
    except Exception as error:
        failure = record_failure(store, run.run_id, error)
        if isinstance(error, UserError | TrainingDiverged):
            raise
        say(console, f"failed: {failure.last_line}; traceback in {store.paths.log(run.run_id)}", "red")
        return 1
    return 0


def _smaller(run: RunConfig, options: TrainOptions) -> dict[str, RunConfig]:
    """Variants of the run that take less time, by the option that selects each."""
    presets = [name for name in dataset_presets(options.dataset) if options.preset in (None, "gpu") and name != "gpu"]
    wanted = {f"`--preset {name}`": dataclasses.replace(options, preset=name) for name in presets}
    network = "model.name=small-cnn"
    wanted[f"`--set {network}`"] = dataclasses.replace(options, overrides=[*options.overrides, network])
    smaller = {}
    for settings, frozen in frozen_variants(run):
        smaller[f"`{' '.join(f'--set {key}={value}' for key, value in settings.items())}`"] = frozen
    for option, variant in wanted.items():
        # An override may not go with the preset, or weights with the network.
        with contextlib.suppress(UserError):
            smaller[option] = _build(variant)
    return smaller


def _estimate(
    display: RunDisplay,
    run: RunConfig,
    smaller: Mapping[str, RunConfig],
    device: str,
    data: "DataSplits",
    policy: "PolicyFile | None",
) -> "Durations | None":
    """Print how long the run will take; for a long run on a CPU also a faster variant and its time.

    Args:
        smaller: runs by the options that make them; the first that takes less than half as long is offered.
    Returns:
        Durations of the parts of an epoch; None if a few steps cannot be timed, which does not end the run.
    """
    import torch

    from autodo.training.step_timing import faster_variant, time_steps

    display.doing("timing a few steps")
    try:
        durations = time_steps(run, data, device=device, policy=policy)
    except (UserError, RuntimeError) as error:
        logger.warning("the duration of the run is not estimated: %s", error)
        return None
    seconds = durations.total(run)
    threads = torch.get_num_threads()
    on = f" on {count_of(threads, 'CPU thread')}" if device == "cpu" else ""
    parts = {"features of the frozen encoder": durations.features > 0, "outer passes": run.outer is not None}
    included = "".join(f", {part} included" for part, has in parts.items() if has)
    text = f"training takes about {rough_duration(seconds)}{on}{included}"
    if device == "cpu" and seconds > LONG_SECONDS:
        faster = faster_variant(smaller, seconds, data, device=device, policy=policy)
        text += f"; {faster}" if faster else ""
    if seconds >= WORTH_SAYING_SECONDS:
        display.say(text)
    return durations


def _search(console: Console, run: RunConfig, store: Store, data_dir: str | None, device: str) -> None:
    from orchestration.display.search_display import SearchDisplay
    from orchestration.search.task_runner import search_in_store

    store.begin(run)  # a search that fails is recorded as a failure of this run
    search_id = str(run.search_id)
    with SearchDisplay({search_id: run}, console) as display:

        def report(line: str) -> None:
            display.update(search_id, "at work", line)
            display.refresh()

        search_in_store(run, store, data_dir=data_dir, device=device, report=report)
        display.update(search_id, "found", str(store.paths.policy(search_id)))
