"""The `autodo` command. torch, ray and pandas are imported by the commands that need them, when they do."""

import io
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.exceptions import TyperException

from autodo.errors import TrainingDiverged, UserError

app = typer.Typer(
    name="autodo",
    help="Train image classifiers on imbalanced, mislabelled data, and benchmark the methods for it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Set = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override of the configuration; may be repeated.")
]
DataDir = Annotated[str | None, typer.Option("--data-dir", help="Directory or URI of the datasets' files.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch a dataset's files if they are not there.")]
StoreOption = Annotated[str | None, typer.Option("--store", help="Directory or URI of the results.")]
StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="Directory or URI of the results.")]
GridArgument = Annotated[str, typer.Argument(metavar="GRID", help="Name of a shipped grid, or a YAML file.")]


class Split(StrEnum):
    """RunConfig.split, as a choice of the command line."""

    PAPER = "paper"
    UNION = "union"
    TEST_AS_VAL = "test-as-val"


class LambdaStorage(StrEnum):
    """autodo.config.bilevel.LambdaStorage, as a choice of the command line."""

    DEVICE = "device"
    HOST = "host"
    FILE = "file"


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        console.print(f"autodo {installed('autodo')}", highlight=False)
        raise typer.Exit


_SPLIT = (
    "`union` trains on the val images too. `test-as-val` has the test images as val, so that its errors are optimistic."
)
Only = Annotated[
    str | None,
    typer.Option(
        metavar="KEY=VALUE,…", help="Of the grid only this: method=…, dataset=…, distortion=…, split=…, seed=…"
    ),
]
MaxConcurrent = Annotated[int | None, typer.Option(min=1, help="The most runs at a time.")]
Retries = Annotated[int, typer.Option(min=0, help="Further attempts of a run that fails.")]
TimeBudget = Annotated[str | None, typer.Option(metavar="2h", help="Then stop, each run at the end of its epoch.")]
CpusPerRun = Annotated[int | None, typer.Option(min=1, help="Cores of a run (of each of its workers).")]
GpusPerRun = Annotated[float | None, typer.Option(min=0, help="GPUs of a run; 0.5 lets two share one.")]
MemoryPerRun = Annotated[str | None, typer.Option(metavar="8GiB", help="Host memory set aside for a run.")]
LambdaStorageOption = Annotated[
    LambdaStorage | None, typer.Option(help="Where lambda is kept: with the device, in host memory, in a file.")
]
LoaderWorkers = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that decode streamed images, of each worker; 0: itself."),
]
CheckpointSteps = Annotated[
    int | None, typer.Option(min=1, help="Steps between checkpoints within an epoch; none are made there without it.")
]
WorkersPerRun = Annotated[int | None, typer.Option(min=1, help="Processes that train one run together.")]
Address = Annotated[str | None, typer.Option(envvar="RAY_ADDRESS", help="A running Ray cluster; else Ray starts here.")]
Dashboard = Annotated[bool, typer.Option("--dashboard", help="Ray's web page, on localhost.")]
KeepOption = Annotated[
    list[str],
    typer.Option(
        metavar="models,embeddings",
        help="Keep each run's classifier, and the test images' embeddings; may be repeated.",
    ),
]

TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Event files of each run, in STORE/tensorboard.")]
Mlflow = Annotated[str | None, typer.Option(metavar="URI", help="Tracking URI; needs autodo[mlflow].")]
Wandb = Annotated[str | None, typer.Option(metavar="PROJECT", help="Project of W&B; needs autodo[wandb].")]


@app.command()
def launch(
    grid: GridArgument,
    store: StoreOption = None,
    overrides: Set = [],  # noqa: B006 (Typer copies it)
    only: Only = None,
    data_dir: DataDir = None,
    download: Download = False,
    max_concurrent: MaxConcurrent = None,
    retries: Retries = 2,
    time_budget: TimeBudget = None,
    cpus_per_run: CpusPerRun = None,
    gpus_per_run: GpusPerRun = None,
    memory_per_run: MemoryPerRun = None,
    workers_per_run: WorkersPerRun = None,
    lambda_storage: LambdaStorageOption = None,
    loader_workers: LoaderWorkers = None,
    checkpoint_steps: CheckpointSteps = None,
    address: Address = None,
    dashboard: Dashboard = False,
    keep: KeepOption = [],  # noqa: B006
    tensorboard: TensorBoard = False,
    mlflow: Mlflow = None,
    wandb: Wandb = None,
) -> None:
    """Run what a grid still lacks, on all cores; then show the table."""
    given = locals()
    from orchestration.cli import commands
    from orchestration.cli.options import Settings

    settings = Settings(**_without(given, "grid", "store", "overrides"))
    raise typer.Exit(commands.launch(console, settings, grid=grid, store=store, overrides=overrides))


@app.command()
def resume(
    store: StoreArgument,
    only: Only = None,
    data_dir: DataDir = None,
    download: Download = False,
    max_concurrent: MaxConcurrent = None,
    retries: Retries = 2,
    time_budget: TimeBudget = None,
    cpus_per_run: CpusPerRun = None,
    gpus_per_run: GpusPerRun = None,
    memory_per_run: MemoryPerRun = None,
    workers_per_run: WorkersPerRun = None,
    lambda_storage: LambdaStorageOption = None,
    loader_workers: LoaderWorkers = None,
    checkpoint_steps: CheckpointSteps = None,
    address: Address = None,
    dashboard: Dashboard = False,
    keep: KeepOption = [],  # noqa: B006
    tensorboard: TensorBoard = False,
    mlflow: Mlflow = None,
    wandb: Wandb = None,
) -> None:
    """Run what the grids that were launched on a store still lack."""
    given = locals()
    from orchestration.cli import commands
    from orchestration.cli.options import Settings

    raise typer.Exit(commands.resume(console, Settings(**_without(given, "store")), root=store))


@app.command()
def retry(
    store: StoreArgument,
    run_ids: Annotated[list[str] | None, typer.Argument(metavar="[RUN_ID]…", help="Runs that failed.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All runs that failed.")] = False,
    only: Only = None,
    data_dir: DataDir = None,
    download: Download = False,
    max_concurrent: MaxConcurrent = None,
    retries: Retries = 2,
    time_budget: TimeBudget = None,
    cpus_per_run: CpusPerRun = None,
    gpus_per_run: GpusPerRun = None,
    memory_per_run: MemoryPerRun = None,
    workers_per_run: WorkersPerRun = None,
    lambda_storage: LambdaStorageOption = None,
    loader_workers: LoaderWorkers = None,
    checkpoint_steps: CheckpointSteps = None,
    address: Address = None,
    dashboard: Dashboard = False,
    keep: KeepOption = [],  # noqa: B006
    tensorboard: TensorBoard = False,
    mlflow: Mlflow = None,
    wandb: Wandb = None,
) -> None:
    """Try failed runs again, also those that were given up."""
    given = locals()
    from orchestration.cli import commands
    from orchestration.cli.options import Settings

    settings = Settings(**_without(given, "store", "run_ids", "failed"))
    raise typer.Exit(commands.retry(console, settings, root=store, run_ids=run_ids or (), failed=failed))


def _without(given: dict[str, Any], *names: str) -> dict[str, Any]:
    """The options that a command shares with others."""
    return {name: value for name, value in given.items() if name not in names}


@app.command()
def plan(
    grid: GridArgument,
    store: StoreOption = None,
    overrides: Set = [],  # noqa: B006
    only: Only = None,
    retries: Retries = 2,
    cpus_per_run: CpusPerRun = None,
    gpus_per_run: GpusPerRun = None,
    memory_per_run: MemoryPerRun = None,
    workers_per_run: WorkersPerRun = None,
    list_runs: Annotated[bool, typer.Option("--list", help="List every run id with its state.")] = False,
) -> None:
    """Show what `launch` would run, and how long it takes; run nothing."""
    given = locals()
    from orchestration.cli import overview
    from orchestration.cli.options import Settings

    settings = Settings(**_without(given, "grid", "store", "overrides", "list_runs"))
    overview.plan(console, settings, grid=grid, store=store, overrides=overrides, list_runs=list_runs)


@app.command()
def train(
    dataset: Annotated[str, typer.Option(help="Name of a dataset.")],
    method: Annotated[str, typer.Option(help="Name of a method; see `autodo methods`.")],
    ir: Annotated[float, typer.Option("--ir", help="Imbalance ratio, 1 or more.")] = 1.0,
    nr: Annotated[float, typer.Option("--nr", help="Noise ratio, 0 or more and below 1.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    split: Annotated[Split, typer.Option(help=_SPLIT)] = Split.PAPER,
    store: Annotated[str, typer.Option(help="Directory or URI of the results.")] = "outputs/single",
    preset: Annotated[
        str | None, typer.Option(help="Smaller settings of the dataset's recipe: `cpu` of `folder`.")
    ] = None,
    overrides: Set = [],  # noqa: B006
    data_dir: DataDir = None,
    download: Download = False,
    device: Annotated[str, typer.Option(help="`cpu`, `cuda`, `cuda:1`; `auto` takes a GPU if there is one.")] = "auto",
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Epochs between checkpoints.")] = 1,
    keep: Annotated[list[str], typer.Option(metavar="embeddings", help="Keep the test images' embeddings too.")] = [],  # noqa: B006
    lambda_storage: LambdaStorageOption = None,
    loader_workers: LoaderWorkers = None,
    checkpoint_steps: CheckpointSteps = None,
) -> None:
    """Train one run in this process, or continue it, and keep its classifier."""
    from orchestration.cli import train_one

    raise typer.Exit(
        train_one.train(
            console,
            dataset=dataset,
            method=method,
            imbalance_ratio=ir,
            noise_ratio=nr,
            seed=seed,
            split=split.value,
            store=store,
            preset=preset,
            overrides=overrides,
            data_dir=data_dir,
            download=download,
            device=device,
            checkpoint_every=checkpoint_every,
            keep=keep,
            lambda_storage="device" if lambda_storage is None else lambda_storage.value,
            loader_workers=loader_workers,
            checkpoint_steps=checkpoint_steps,
        )
    )


@app.command()
def status(
    store: StoreArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until nothing is left to do.")] = False,
) -> None:
    """Show how far the grids of a store are, and why runs failed."""
    from orchestration.cli import overview

    overview.status(console, store, watch=watch)


@app.command()
def report(
    store: StoreArgument,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Folder or URI to write to; STORE/report if none.")] = (
        None
    ),
    formats: Annotated[str, typer.Option("--format", metavar="F,…", help="Of html, md, latex, csv.")] = (
        "html,md,latex,csv"
    ),
    selection: Annotated[
        str | None,
        typer.Option(
            "--select",
            metavar="KEY=VALUE,…",
            help="Only these runs: dataset=…, model=…, method=…, distortion=…, split=…, seed=…",
        ),
    ] = None,
    metric: Annotated[
        str, typer.Option(help="error_best_val, error_last, minority_error, or the optimistic error_best_test.")
    ] = "error_best_val",
) -> None:
    """Show the tables of a store and write its report: one page, Markdown, LaTeX, CSV; run nothing."""
    from orchestration.cli import show

    show.report(console, store, out=out, formats=formats, selection=selection, metric=metric)


@app.command()
def inspect(
    store: StoreArgument,
    run_id: Annotated[
        str | None,
        typer.Argument(metavar="[RUN_ID]", help="A run, or the hash at its end; without it, the runs are listed."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Where the files go; STORE/report/inspect/RUN_ID.")] = None,
    ranking: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to sort by; see docs/how-to/find-label-errors.md.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many images the gallery shows.")] = 100,
    data_dir: DataDir = None,
) -> None:
    """Find the train labels of a run that are probably wrong: a list, a CSV and a gallery."""
    from orchestration.cli import inspect_run

    inspect_run.inspect(console, store, run_id, ranking=ranking, top=top, out=out, data_dir=data_dir)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(metavar="[METHOD]", help="One of them, and all that it sets.")] = None,
) -> None:
    """List the methods, or show one."""
    from orchestration.cli import show

    if name is None:
        show.methods(console)
    else:
        show.method(console, name)


@app.command()
def datasets() -> None:
    """List the datasets."""
    from orchestration.cli import show

    show.datasets(console)


@app.command()
def grids() -> None:
    """List the shipped grids."""
    from orchestration.cli import show

    show.grids(console)


policy_app = typer.Typer(
    help="Augmentation policies from elsewhere, and those that a store holds.", no_args_is_help=True
)
app.add_typer(policy_app, name="policy")


@policy_app.command("import")
def policy_import(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="JSON, or a Python file with literal lists.")],
    target: Annotated[str, typer.Argument(metavar="OUT.json")],
    name: Annotated[str | None, typer.Option(help="Which list, if a Python file holds several.")] = None,
) -> None:
    """Convert a published policy to JSON; nothing of a Python file is executed."""
    from orchestration.cli import show_policy

    show_policy.import_file(console, source, target, name)


@policy_app.command("show")
def policy_show(
    place: Annotated[str, typer.Argument(metavar="STORE_OR_FILE")],
    name: Annotated[str | None, typer.Argument(metavar="[ID]", help="Which policy of a store.")] = None,
) -> None:
    """Show a policy and where it comes from; of a store without an ID, which there are."""
    from orchestration.cli import show_policy

    show_policy.show(console, place, name)


def main() -> None:
    """Entry point: an error of the user is one line per problem, and no traceback.

    Exit codes: 0 all is done, 1 a run failed, 2 a user's error, 124 the time budget is over, 130 stopped by Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows a ? in place of, say, a dash
    try:
        code = app(standalone_mode=False)
    except (UserError, TyperException) as error:
        text = error.format_message() if isinstance(error, TyperException) else str(error)
        code = _fail(text, 2)
    except TrainingDiverged as error:
        code = _fail(str(error), 1)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _fail(text: str, code: int) -> int:
    for line in text.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
