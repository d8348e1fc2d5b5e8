"""Options of the commands, declared once: fields of a dataclass become options of each command that takes it.

An option of `launch`, `resume` and `retry` is a field of `LaunchOptions` or of a group in it. One that is also a key of
a grid's `resources` has the name of that key, or the name with `_per_run`.
"""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from autodo import plugins
from autodo.config.bilevel import LambdaStorage
from autodo.config.run import SplitName
from autodo.config.validation import parse_model
from autodo.errors import ConfigError
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.run_queue import RETRIES

T = TypeVar("T")

Set = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override of the configuration; may be repeated.")
]
DataDir = Annotated[str | None, typer.Option(help="Directory or URI of the datasets' files.")]
StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="Directory or URI of the results.")]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="File of a saved classifier, or a store, whose RUN follows.")
]
Device = Annotated[str, typer.Option(help="`cpu`, `cuda`, `cuda:1`; `auto` takes a GPU if there is one.")]
Only = Annotated[
    list[str],
    typer.Option(
        metavar="KEY=VALUE,…",
        help="Part of the grid: method=…, dataset=…, distortion=…, split=…, seed=…, variant=…; may be repeated.",
    ),
]
PluginFiles = Annotated[
    list[str],
    typer.Option("--plugin", metavar="FILE.py", help="Python file with plug-ins, which is executed; may be repeated."),
]
Retries = Annotated[int, typer.Option(min=0, help="Further attempts of a run that fails.")]


@dataclasses.dataclass(frozen=True)
class GridOptions:
    """A grid, its overrides and its store."""

    grid: Annotated[str, typer.Argument(metavar="GRID", help="Name of a shipped grid, or a YAML file.")]
    store: Annotated[str | None, typer.Option(help="Directory or URI of the results.")] = None
    overrides: Set = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Files of the datasets."""

    data_dir: DataDir = None
    download: Annotated[
        bool, typer.Option("--download", help="Download the files of a dataset if they are missing.")
    ] = False
    weights_dir: Annotated[
        str | None, typer.Option(help="Directory where files of pretrained weights are looked for first.")
    ] = None

    def __post_init__(self) -> None:
        if self.weights_dir is not None and not Path(self.weights_dir).expanduser().is_dir():
            raise ConfigError(f"--weights-dir {self.weights_dir}: there is no such folder")


@dataclasses.dataclass(frozen=True)
class ResourceOptions:
    """Resources of a run."""

    cpus_per_run: Annotated[int | None, typer.Option(min=1, help="Cores of a run (of each of its workers).")] = None
    gpus_per_run: Annotated[float | None, typer.Option(min=0, help="GPUs of a run; 0.5 lets two share one.")] = None
    memory_per_run: Annotated[str | None, typer.Option(metavar="8GiB", help="Host memory set aside for a run.")] = None
    workers_per_run: Annotated[int | None, typer.Option(min=1, help="Processes that train one run together.")] = None


@dataclasses.dataclass(frozen=True)
class TrainerOptions:
    """Options of the training itself that change no result."""

    lambda_storage: Annotated[
        LambdaStorage | None, typer.Option(help="Storage of lambda: on the device, in host memory or in a file.")
    ] = None
    loader_workers: Annotated[
        int | None, typer.Option(min=0, help="Processes per worker that decode streamed images; 0: itself.")
    ] = None
    checkpoint_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps between checkpoints within an epoch; default: only after epochs."),
    ] = None
    test_every: Annotated[
        int | None, typer.Option(min=1, help="Epochs between evaluations of the test images; default: 1.")
    ] = None


@dataclasses.dataclass(frozen=True)
class LaunchOptions:
    """Options of `launch`, `resume` and `retry`."""

    only: Only = dataclasses.field(default_factory=list)
    data: DataOptions = DataOptions()
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="Maximum number of runs at a time.")] = None
    retries: Retries = RETRIES
    time_budget: Annotated[
        str | None, typer.Option(metavar="2h", help="Stop after this time, each run at the end of its epoch.")
    ] = None
    resources: ResourceOptions = ResourceOptions()
    trainer: TrainerOptions = TrainerOptions()
    address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="A running Ray cluster; default: Ray starts here.")
    ] = None
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Start Ray's dashboard on localhost.")] = False
    keep: Annotated[
        list[str],
        typer.Option(
            metavar="models,embeddings",
            help="Keep each run's classifier, and the test images' embeddings; may be repeated.",
        ),
    ] = dataclasses.field(default_factory=list)
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files of each run to STORE/tensorboard.")
    ] = False
    mlflow: Annotated[str | None, typer.Option(metavar="URI", help="Tracking URI; needs the extra `mlflow`.")] = None
    wandb: Annotated[str | None, typer.Option(metavar="PROJECT", help="Project of W&B; needs the extra `wandb`.")] = (
        None
    )


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Options of `train`: a run, and how it is trained."""

    dataset: Annotated[str, typer.Option(help="Name of a dataset.")]
    method: Annotated[str, typer.Option(help="Name of a method; see `autodo methods`.")]
    imbalance_ratio: Annotated[float, typer.Option("--ir", help="Imbalance ratio, 1 or more.")] = 1.0
    noise_ratio: Annotated[float, typer.Option("--nr", help="Noise ratio, 0 or more and below 1.")] = 0.0
    distortion: Annotated[
        str | None,
        typer.Option(
            metavar="IR-NR",
            help="Both ratios with their kinds, as in grids, such as `exp100-pair0.2`; in place of --ir and --nr.",
        ),
    ] = None
    seed: Annotated[int, typer.Option(min=0)] = 0
    split: Annotated[
        SplitName,
        typer.Option(
            help="`union` also trains on the val images. `oversplit` takes train and val from all train images. "
            "`test-as-val` uses the test images as val, so its errors are optimistic."
        ),
    ] = "paper"
    store: Annotated[str, typer.Option(help="Directory or URI of the results.")] = "outputs/single"
    preset: Annotated[
        str | None,
        typer.Option(
            help="Settings of the dataset's recipe for a kind of machine, such as `cpu` of `folder`; `auto` takes "
            "`cpu` or `gpu` by the device, if there are such, and `none` the recipe itself."
        ),
    ] = "auto"
    overrides: Set = dataclasses.field(default_factory=list)
    data: DataOptions = DataOptions()
    device: Device = "auto"
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Epochs between checkpoints.")] = 1
    keep: Annotated[list[str], typer.Option(metavar="embeddings", help="Keep the test images' embeddings too.")] = (
        dataclasses.field(default_factory=list)
    )
    trainer: TrainerOptions = TrainerOptions()


def expand_options(command: Callable[..., T]) -> Callable[..., T]:
    """Decorate a command so that each parameter that is a dataclass becomes one option per field, groups included."""
    takes = inspect.signature(command, eval_str=True).parameters
    parameters = [part for one in takes.values() for part in _flat(one.name, one.annotation, one.default)]

    @functools.wraps(command)
    def call(**values: Any) -> T:
        return command(**{name: _build(name, one.annotation, values) for name, one in takes.items()})

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    return call


def takes_plugins(command: Callable[..., T]) -> Callable[..., T]:
    """Decorate a command so that it has the option `--plugin`, whose files are loaded before it runs."""
    signature = inspect.signature(command, eval_str=True)
    parameter = inspect.Parameter("plugin", inspect.Parameter.KEYWORD_ONLY, default=(), annotation=PluginFiles)

    @functools.wraps(command)
    def call(*, plugin: Iterable[str], **values: Any) -> T:
        for file in plugin:
            plugins.load_file(file)
        if plugin:
            from autodo.config.recipes import check_plugin_names  # here, so that help is quick

            check_plugin_names()
        return command(**values)

    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in signature.parameters.values()]
    call.__signature__ = signature.replace(parameters=[*parameters, parameter])  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in (*parameters, parameter)}
    return call


def _flat(name: str, annotation: Any, default: Any) -> Iterator[inspect.Parameter]:
    if dataclasses.is_dataclass(annotation):
        for field in dataclasses.fields(annotation):
            value = field.default
            if field.default_factory is not dataclasses.MISSING:
                value = field.default_factory()
            yield from _flat(field.name, field.type, inspect.Parameter.empty if value is dataclasses.MISSING else value)
    else:
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _build(name: str, annotation: Any, values: Mapping[str, Any]) -> Any:
    if not dataclasses.is_dataclass(annotation):
        return values[name]
    parts = {field.name: _build(field.name, field.type, values) for field in dataclasses.fields(annotation)}
    return annotation(**parts)  # type: ignore[operator]


def given(*groups: ResourceOptions | TrainerOptions) -> dict[str, Any]:
    """Options that were given, by the names of `ResourcesConfig`."""
    pairs = ((name.removesuffix("_per_run"), value) for group in groups for name, value in vars(group).items())
    return {name: value for name, value in pairs if value is not None}


def with_options(base: ResourcesConfig, *groups: ResourceOptions | TrainerOptions) -> ResourcesConfig:
    """Resources of a grid, overridden by the command line."""
    return parse_model(ResourcesConfig, base.model_dump() | given(*groups), "resources")


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `45m`, `2h`, `1h30m` or `1d`.

    Raises:
        ConfigError: if it is none of these, or zero.
    """
    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    parts = [int(part or 0) for part in match.groups()] if match else []
    seconds = sum(part * unit for part, unit in zip(parts, (86400, 3600, 60, 1), strict=False))
    if not seconds:
        raise ConfigError(f"--time-budget {text!r}: is not a time such as 2h, 45m, 1h30m or 1d")
    return float(seconds)
