"""Provenance of results: code, libraries, devices, time, and launched configurations."""

import json
from collections.abc import Iterable

import pandas as pd
import yaml

from autodo.errors import StoreError
from autodo.io.storage import Location
from autodo.text import count_of

_LIMIT = 100_000  # characters shown of a grid's file, which normally has one page


def provenance(runs: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """(name, value) pairs of the finished runs, such as ("torch", "2.11.0 (12 runs), 2.12.0 (4 runs)").

    Args:
        runs: the frame of `load_results`, or a part of it.
    """
    if runs.empty:
        return ()
    first, last = runs["finished_at"].min(), runs["finished_at"].max()
    entries = [("runs", str(len(runs)))]
    if not pd.isna(first):
        entries.append(("finished", f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"))
    hours = runs["seconds"].sum() / 3600
    entries.append(("training time of all runs", f"{hours:.1f} h"))
    entries.append(("code version", counted(runs["git_sha"])))
    entries.append(("device", counted(runs["device"])))
    nothing_known = runs["versions"].isna().to_numpy()
    for package, versions in library_versions(runs).items():
        # Runs that do not use a plug-in do not name it.
        entries.append((package, counted(versions[versions.notna() | nothing_known])))
    return tuple(entries)


def run_notes(runs: pd.DataFrame) -> list[str]:
    """Warnings about comparing results of different code, libraries or devices, or of uncommitted code.

    Args:
        runs: from `comparison.named`; runs without a result are ignored.
    """
    done = runs[runs["error_best_val"].notna()]
    groups = [of_group for _, of_group in done.groupby("group", sort=True)]
    columns = {"code versions": "git_sha", "devices": "device"}
    seen = {what: [of_group[column] for of_group in groups] for what, column in columns.items()}
    of_groups = [library_versions(of_group) for of_group in groups]
    for package in sorted({package for versions in of_groups for package in versions}):
        seen[f"versions of {package}"] = [versions[package].dropna() for versions in of_groups if package in versions]
    notes = [note for what, values in seen.items() for note in _mixture(what, values, len(groups))]
    changed = int(done["git_sha"].fillna("").astype(str).str.endswith("-dirty").sum())
    if changed:
        notes.append(
            f"{count_of(changed, 'run')} of {len(done)} ran from a work tree with changes (-dirty): "
            "their code version does not identify what they ran."
        )
    return notes


def _mixture(what: str, of_groups: Iterable[pd.Series], groups: int) -> Iterable[str]:
    """One sentence if a column differs within a group of runs that are compared."""
    mixed = [values for values in of_groups if values.nunique(dropna=False) > 1]
    if mixed:
        where = f" in {len(mixed)} of {groups} groups of runs" if groups > 1 else ""
        yield f"Results of different {what} are compared{where}: {counted(pd.concat(mixed))}."


def counted(column: pd.Series) -> str:
    """The values of a column, with the number of runs of each if they differ."""
    counts = column.astype(object).where(column.notna(), "unknown").value_counts()
    counts = counts.sort_index().sort_values(ascending=False, kind="stable")
    if len(counts) == 1:
        return str(counts.index[0])
    return ", ".join(f"{value} ({count_of(n, 'run')})" for value, n in counts.items())


def library_versions(runs: pd.DataFrame) -> dict[str, pd.Series]:
    """The version of each library in each run, by name; null if unknown."""
    known = [{} if pairs is None or pairs is pd.NA else dict(pairs) for pairs in runs["versions"]]
    return {
        package: pd.Series([versions.get(package) for versions in known], dtype=object)
        for package in sorted({package for versions in known for package in versions})
    }


def launched_grids(root: Location) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """(name, YAML as launched) of the grids of a store, and warnings about unreadable ones."""
    grids, warnings = [], []
    for name in sorted((root / "grids").names()):
        if not name.endswith(".yaml"):
            continue
        file = root / "grids" / name
        try:
            grids.append((name.removesuffix(".yaml"), file.read_text()[:_LIMIT]))
        except (StoreError, FileNotFoundError) as error:
            warnings.append(f"{file}: not shown: {error}")
    return tuple(grids), tuple(warnings)


def recipes(named: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """(name, YAML) of the settings that a group shares: dataset, model, training, standard augmentation.

    Args:
        named: from `comparison.named`.
    """
    shown = []
    for group, runs in named.groupby("group", sort=True):
        config = json.loads(runs["config"].iloc[0])
        shared = {part: config[part] for part in ("dataset", "model", "training", "augmentation") if part in config}
        shown.append((f"recipe of {group}", yaml.safe_dump(shared, sort_keys=False, allow_unicode=True)))
    return tuple(shown)
