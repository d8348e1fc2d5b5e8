"""Comparison tables as values: what stands in them, with no word on how they look."""

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports.stats import mean_std

METRICS = {
    "error_best_val": "test error at the epoch of lowest val error",
    "error_last": "test error after the last epoch",
    "error_best_test": "lowest test error over all epochs (optimistic)",
    "minority_error": "test error of the minority classes at the epoch of lowest val error",
}
OPTIMISTIC = (
    "The lowest test error over all epochs chooses the epoch on the test set itself, as the published code does: "
    "it is lower than what anybody can get without test labels."
)

_COLUMNS = [
    *("run_id", "dataset", "split", "method", "imbalance_ratio", "noise_ratio"),
    *("seed", "recipe_id", "variant_id", "config"),
]

# Parts of a configuration in which runs of one table may differ.
_METHOD = ("method", "policy", "objective", "finetune", "points", "outer")
_AXES = ("split", "distortion", *_METHOD, "seed")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One method on one distortion, over seeds.

    Args:
        mean: in percent; None if there is no result.
        std: sample standard deviation in percent; None under two results.
        n: how many seeds there are; expected: how many there should be, None if nobody knows.
        best: whether no complete cell of the column has a lower mean, and one has a higher.
    """

    mean: float | None
    std: float | None
    n: int
    expected: int | None = None
    best: bool = False

    @property
    def complete(self) -> bool:
        """Whether every seed that should be there is."""
        return self.n > 0 and (self.expected is None or self.n >= self.expected)


@dataclasses.dataclass(frozen=True)
class Table:
    """Methods down, distortions across."""

    title: str
    caption: str
    columns: tuple[str, ...]
    """IR-NR in the paper's notation, from little to much distortion."""
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    """(method, one cell per column)."""
    common_n: int | None
    """The n of every complete cell, if they agree: it is then said once."""


def error_table(
    results: pd.DataFrame, metric: str = "error_best_val", expected: Iterable[Mapping[str, Any]] = ()
) -> list[Table]:
    """Mean ± std over seeds of one error: one table per dataset and recipe, since only those can be compared.

    Args:
        results: the frame of `load_results`.
        metric: a key of METRICS.
        expected: identity columns and `config` of runs that should be there; those without a result are holes.
    """
    runs: list[dict[Any, Any]] = results[[*_COLUMNS, metric]].to_dict("records")
    ids = {run["run_id"] for run in runs}
    wanted = {run["run_id"]: run for run in expected}
    runs += [{**run, metric: None} for run_id, run in wanted.items() if run_id not in ids]
    frame = pd.DataFrame(runs, columns=[*_COLUMNS, metric]).astype({metric: float})
    frame["is_expected"] = frame["run_id"].isin(list(wanted))
    tables = []
    for dataset, of_dataset in frame.groupby("dataset", sort=True):
        recipes = {str(r): _recipe(json.loads(g["config"].iloc[0])) for r, g in of_dataset.groupby("recipe_id")}
        for recipe, group in of_dataset.groupby("recipe_id", sort=True):
            title = f"{dataset} ({_describe(recipes, str(recipe))})"
            tables.append(_table(title, group, metric))
    return tables


def _table(title: str, runs: pd.DataFrame, metric: str) -> Table:
    distortions = sorted({(ir, nr) for ir, nr in zip(runs["imbalance_ratio"], runs["noise_ratio"], strict=True)})
    runs = runs.assign(row=_row_names(runs))
    known = bool(runs["is_expected"].any())
    grid: dict[str, list[Cell]] = {}
    for name, of_method in runs.groupby("row", sort=False):
        cells = []
        for ir, nr in distortions:
            cell = of_method[(of_method["imbalance_ratio"] == ir) & (of_method["noise_ratio"] == nr)]
            mean, std = mean_std((100 * cell[metric]).tolist())
            n = int(cell[metric].notna().sum())
            # Seeds beyond those that a grid asked for are not missing anything.
            cells.append(Cell(mean, std, n, expected=max(n, len(cell)) if known else None))
        grid[str(name)] = cells
    ns = {cell.n for cells in grid.values() for cell in cells if cell.complete}
    rows = sorted(grid, key=lambda name: (not name.startswith("baseline"), name))
    return Table(
        title=title,
        caption=f"{METRICS[metric]}, in percent, mean ± std over seeds",
        columns=tuple(_column_name(ir, nr) for ir, nr in distortions),
        rows=tuple((name, _mark_best(grid, name)) for name in rows),
        common_n=ns.pop() if len(ns) == 1 else None,
    )


def _column_name(ir: float, nr: float) -> str:
    """The paper's notation, as grids spell it: no exponent, nothing rounded away."""
    return f"{np.format_float_positional(ir, trim='-')}-{np.format_float_positional(nr, trim='0')}"


def _mark_best(grid: Mapping[str, Sequence[Cell]], name: str) -> tuple[Cell, ...]:
    marked = []
    for i, cell in enumerate(grid[name]):
        # Over other seeds than the rest, a mean is low by chance. Rounded, because a sum depends on its order.
        means = [round(c.mean, 9) for cells in grid.values() if (c := cells[i]).mean is not None and c.complete]
        best = cell.mean is not None and cell.complete and round(cell.mean, 9) == min(means) < max(means)
        marked.append(dataclasses.replace(cell, best=best))
    return tuple(marked)


def _row_names(runs: pd.DataFrame) -> list[str]:
    differences: dict[Any, str] = {}
    for method, of_method in runs.groupby("method"):
        configs = {variant: json.loads(g["config"].iloc[0]) for variant, g in of_method.groupby("variant_id")}
        for variant, words in _differences({variant: _settings(c) for variant, c in configs.items()}).items():
            differences[method, variant] = "".join(f", {word}" for word in words)
    names = []
    for method, split, variant in zip(runs["method"], runs["split"], runs["variant_id"], strict=True):
        name = method if split == "paper" else f"{method} ({split})"
        names.append(f"{name}{differences[method, variant]}")
    return names


def _differences(settings: Mapping[Any, Mapping[str, Any]]) -> dict[Any, list[str]]:
    """Of each one, `key=value` for every key in which they are not all the same; nothing if there is only one."""
    differing = _differing_keys(settings.values())
    return {
        name: [f"{key}={json.dumps(flat[key])}".replace('"', "") for key in differing if key in flat]
        for name, flat in settings.items()
    }


def _differing_keys(settings: Collection[Mapping[str, Any]]) -> list[str]:
    """Keys whose values are not the same in all, in the order in which they first come."""
    keys = dict.fromkeys(key for flat in settings for key in flat)
    return [key for key in keys if len({json.dumps(flat[key]) if key in flat else None for flat in settings}) > 1]


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A method's own settings by dotted key: what variant_id is the hash of."""
    return _flat({part: config.get(part) for part in _METHOD})


def _describe(recipes: Mapping[str, Mapping[str, Any]], recipe: str) -> str:
    """Model, epochs and subsample, then whatever else tells this recipe from the others of its dataset."""
    config = recipes[recipe]
    words = [str(config["model.name"]), f"{config['training.epochs']} epochs"]
    subsample = config.get("dataset.subsample")
    words += [f"{subsample} images"] if subsample else []
    said = ("model.name", "training.epochs", "dataset.subsample")
    words += [f"{key}={config.get(key)}" for key in _differing_keys(recipes.values()) if key not in said]
    return ", ".join(words)


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a comparison holds fixed, by dotted key: what recipe_id is the hash of."""
    return _flat({part: value for part, value in config.items() if part not in _AXES})


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def minority_table(results: pd.DataFrame, expected: Iterable[Mapping[str, Any]] = ()) -> list[Table]:
    """As `error_table`, of the classes that imbalance makes rare (labels C//2..C-1)."""
    return error_table(results, "minority_error", expected)
