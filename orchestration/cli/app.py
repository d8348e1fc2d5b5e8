"""Commands of `autodo`, and the exit codes. Each command imports its module when it runs, so that help is quick."""

import io
import sys
from typing import Annotated

import typer
from rich.console import Console
from typer.exceptions import TyperException

from autodo.errors import TrainingDiverged, UserError
from orchestration.cli.options import (
    DataDir,
    Device,
    GridOptions,
    LaunchOptions,
    ModelArgument,
    Only,
    ResourceOptions,
    Retries,
    StoreArgument,
    TrainOptions,
    expand_options,
    takes_plugins,
)
from orchestration.planning.run_queue import RETRIES

app = typer.Typer(
    name="autodo",
    help="Train image classifiers on imbalanced, mislabelled data, and benchmark the methods for it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        console.print(f"autodo {installed('autodo')}", highlight=False)
        raise typer.Exit


@app.command()
@takes_plugins
@expand_options
def launch(grid: GridOptions, options: LaunchOptions) -> None:
    """Run the missing runs of a grid on all cores, then show the table."""
    from orchestration.cli.launch import launch_grid

    raise typer.Exit(launch_grid(console, grid, options))


@app.command()
@takes_plugins
@expand_options
def resume(store: StoreArgument, options: LaunchOptions) -> None:
    """Run the missing runs of all grids that were launched on a store."""
    from orchestration.cli.launch import resume_store

    raise typer.Exit(resume_store(console, store, options))


@app.command()
@takes_plugins
@expand_options
def retry(
    store: StoreArgument,
    *,
    run_ids: Annotated[list[str] | None, typer.Argument(metavar="[RUN_ID]…", help="Runs that failed.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All runs that failed.")] = False,
    options: LaunchOptions,
) -> None:
    """Try failed runs again, also those that were given up."""
    from orchestration.cli.launch import retry_runs

    raise typer.Exit(retry_runs(console, store, options, run_ids=run_ids or (), failed=failed))


@app.command()
@takes_plugins
@expand_options
def plan(
    grid: GridOptions,
    *,
    only: Only = [],  # noqa: B006  # typer copies it
    retries: Retries = RETRIES,
    resources: ResourceOptions,
    list_runs: Annotated[bool, typer.Option("--list", help="List every run id with its state.")] = False,
) -> None:
    """Show what `launch` would run and how long it would take; run nothing."""
    from orchestration.cli.plan import show_plan

    show_plan(console, grid, resources, only=only, retries=retries, list_runs=list_runs)


@app.command()
@takes_plugins
@expand_options
def train(options: TrainOptions) -> None:
    """Train one run in this process, or continue it, and keep its classifier."""
    from orchestration.cli.train import train_run

    raise typer.Exit(train_run(console, options))


@app.command()
@takes_plugins
def status(
    store: StoreArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until nothing is left to do.")] = False,
) -> None:
    """Show the progress of the grids of a store, and why runs failed."""
    from orchestration.cli.status import show_status

    show_status(console, store, watch=watch)


@app.command()
@takes_plugins
def report(
    store: StoreArgument,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder or URI to write to; default: STORE/report.")
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", metavar="F,…", help="Formats to write: html, md, latex, csv.")
    ] = "html,md,latex,csv",
    selection: Annotated[
        list[str],
        typer.Option(
            "--select",
            metavar="KEY=VALUE,…",
            help="Only these runs: dataset=…, model=…, method=…, distortion=…, split=…, seed=…, variant=…; may be "
            "repeated.",
        ),
    ] = [],  # noqa: B006  # typer copies it
    metric: Annotated[
        str, typer.Option(help="error_best_val, error_last, minority_error, or the optimistic error_best_test.")
    ] = "error_best_val",
    despite: Annotated[
        str | None,
        typer.Option(
            "--paper-despite",
            metavar="KEY,…",
            help="Show the paper's figures also beside runs that differ from its protocol in these settings.",
        ),
    ] = None,
) -> None:
    """Show the tables of a store and write its report: one page, Markdown, LaTeX, CSV; run nothing."""
    from orchestration.cli.report import write_store_report

    write_store_report(
        console, store, out=out, formats=formats, selection=",".join(selection) or None, metric=metric, despite=despite
    )


@app.command()
@takes_plugins
def inspect(
    store: StoreArgument,
    run_id: Annotated[
        str | None,
        typer.Argument(metavar="[RUN_ID]", help="A run, or the hash at its end; without it, the runs are listed."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the files; default: STORE/report/inspect/RUN_ID.")] = None,
    ranking: Annotated[
        str | None, typer.Option(metavar="NAME", help="Score to sort by; see docs/how-to/find-label-errors.md.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of images in the gallery.")] = 100,
    data_dir: DataDir = None,
) -> None:
    """Find the train labels of a run that are probably wrong: a list, a CSV and a gallery."""
    from orchestration.cli.inspect import inspect_labels

    inspect_labels(console, store, run_id, ranking=ranking, top=top, out=out, data_dir=data_dir)


@app.command()
@takes_plugins
def predict(
    model: ModelArgument,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN] PATH…",
            help="For a store, a run; then images: files, folders, CSV files, globs in quotes.",
        ),
    ],
    csv_file: Annotated[
        str | None, typer.Option("--csv", metavar="FILE", help="CSV to write; without it, a line per image is printed.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of classes of each image, the most probable first.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
    device: Device = "auto",
) -> None:
    """Predict the classes of images with a saved classifier."""
    from orchestration.cli.predict import predict_images

    predict_images(console, model, words, csv_file=csv_file, top=top, batch_size=batch_size, device=device)


@app.command()
@takes_plugins
def export(
    model: ModelArgument,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]", help="For a store, a run that has kept its classifier.")
    ] = None,
    *,
    format: Annotated[str, typer.Option("--format", help="torch-export, onnx or torchscript.")],
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="File to write; default: named after the run, in this folder.")
    ] = None,
) -> None:
    """Export a saved classifier to a file that runs without AutoDO, with its model card beside it."""
    from orchestration.cli.export import export_classifier

    export_classifier(console, model, words or (), format=format, out=out)


@app.command()
@takes_plugins
def methods(
    name: Annotated[str | None, typer.Argument(metavar="[METHOD]", help="Show this method and its settings.")] = None,
) -> None:
    """List the methods, or show one."""
    from orchestration.cli.lists import list_methods, show_method

    if name is None:
        list_methods(console)
    else:
        show_method(console, name)


@app.command()
@takes_plugins
def datasets() -> None:
    """List the datasets."""
    from orchestration.cli.lists import list_datasets

    list_datasets(console)


@app.command()
def grids() -> None:
    """List the shipped grids."""
    from orchestration.cli.lists import list_grids

    list_grids(console)


policy_app = typer.Typer(help="Import and show augmentation policies.", no_args_is_help=True)
app.add_typer(policy_app, name="policy")


@policy_app.command("import")
@takes_plugins
def policy_import(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="JSON, or a Python file with literal lists.")],
    target: Annotated[str, typer.Argument(metavar="OUT.json")],
    name: Annotated[str | None, typer.Option(help="Name of the list, if a Python file has several.")] = None,
) -> None:
    """Convert a published policy to JSON; nothing of a Python file is executed."""
    from orchestration.cli.policy import import_to_json

    import_to_json(console, source, target, name)


@policy_app.command("show")
@takes_plugins
def policy_show(
    source: Annotated[str, typer.Argument(metavar="STORE_OR_FILE")],
    name: Annotated[str | None, typer.Argument(metavar="[ID]", help="Name of a policy of a store.")] = None,
) -> None:
    """Show a policy and its source; for a store without an ID, list its policies."""
    from orchestration.cli.policy import show_policy

    show_policy(console, source, name)


def main() -> None:
    """Entry point: an error of the user is one line per problem, without a traceback.

    Exit codes: 0 done, 1 a run failed, 2 a user's error, 124 the time budget is over, 130 stopped by Ctrl-C.
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
