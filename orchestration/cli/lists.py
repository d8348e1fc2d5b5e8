"""`autodo methods`, `autodo datasets` and `autodo grids`: the shipped files."""

import textwrap

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autodo.config.shipped import (
    canonical_method,
    dataset_names,
    dataset_presets,
    dataset_recipe,
    dataset_text,
    grid_names,
    method_names,
    method_parts,
    method_preset,
    method_source,
    method_text,
    shipped_file,
)
from orchestration.cli.console import say
from orchestration.grid.grid import expand, grid_text, load_grid

# Key of a preset, or name of the family, -> heading of the methods that have it; the first that fits.
_HEADINGS = {
    "autodo": "AutoDO",
    "policy": "Augmentation",
    "objective": "Train losses",
    "head": "Heads solved after training",
    "": "Baseline and anchors",
}
_WIDTH_OF_FILES = 160
_NOT_STATED = "not stated by the plug-in"


def list_methods(console: Console) -> None:
    """Print name, summary, images, cost and reference of every method."""
    table = _list_table("method", "what it learns", "images", "cost", "reference")
    under = {
        name: next(section for section in _HEADINGS if section in {name.partition("-")[0], *method_preset(name), ""})
        for name in method_names()
    }
    for section, heading in _HEADINGS.items():
        table.add_row(Text(heading, style="italic"))
        for name in (name for name, its_section in under.items() if its_section == section):
            table.add_row(Text(f"  {name}", style="bold"), *(Text(column or "–") for column in method_text(name)))
    _print(console, table)
    say(
        console,
        "images: the images it trains on; the epoch is chosen on val for all. cost: time of a run over that of "
        "baseline, without searches (benchmarks/methods.py). Names join by +, such as randaugment+ldam-drw.",
    )


def show_method(console: Console, name: str) -> None:
    """Print texts, source and settings of a method, or of several joined by `+`.

    Raises:
        ConfigError: if there is no such method.
    """
    name = canonical_method(name)
    table = Table(title=Text(name), title_justify="left", show_header=False)
    for part in method_parts(name):
        texts = method_text(part)
        cost = f"{texts.cost} times the time of baseline, without searches" if texts.cost else _NOT_STATED
        table.add_row("what it learns", Text(texts.summary or _NOT_STATED))
        table.add_row("trains with", Text(f"{texts.reads or _NOT_STATED}; the epoch is chosen on val"))
        table.add_row("cost", Text(cost))
        table.add_row("reference", Text(texts.reference or _NOT_STATED))
        table.add_row("file", Text(method_source(part)))
        table.add_section()
    _print(console, table)
    preset = method_preset(name)
    settings = yaml.safe_dump(preset, sort_keys=False, width=_WIDTH_OF_FILES) if preset else "nothing\n"
    say(console, "What it sets over a dataset's recipe; --set KEY=VALUE overrides both:")
    say(console, textwrap.indent(settings, "  ").removesuffix("\n"))


def list_datasets(console: Console) -> None:
    """Print name, summary, source, network and epochs of every dataset."""
    table = _list_table("dataset", "what it is", "its files", "network", "epochs")
    for name in dataset_names():
        texts, recipe = dataset_text(name), dataset_recipe(name)
        columns = *texts, recipe["model"]["name"], str(recipe["training"]["epochs"])
        table.add_row(Text(name, style="bold"), *map(Text, columns))
        for preset, values in dataset_presets(name).items():
            network = values.get("model.name", recipe["model"]["name"])
            epochs = str(values.get("training.epochs", recipe["training"]["epochs"]))
            table.add_row("", f"  with --preset {preset}", "", network, epochs)
    _print(console, table)
    say(
        console,
        "--data-dir names the folder, or the URI, of the files (AUTODO_DATA, or else ./data, if it is not given). "
        "wrn-28-10 and 200 epochs need a GPU; --set model.name=small-cnn --set training.epochs=20 makes a run smaller.",
    )


def list_grids(console: Console) -> None:
    """Print name, summary, number of runs and cost of every shipped grid."""
    table = _list_table("grid", "what it runs", "runs", "cost of all")
    for name in grid_names():
        texts, runs = grid_text(name), len(expand(load_grid(name)))
        table.add_row(Text(name, style="bold"), Text(texts.summary), Text(str(runs)), Text(texts.cost))
    _print(console, table)
    folder = shipped_file("grids", "any").parent
    say(console, f"`autodo plan GRID` shows the runs of one; copy a file of {folder} for one of yours.")


def _list_table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in ("runs", "epochs") else "left")
    return table


def _print(console: Console, table: Table) -> None:
    """Print within the width of a terminal; in a pipe or a file each row is one line."""
    (console if console.is_terminal else Console(file=console.file, width=_WIDTH_OF_FILES)).print(table)
