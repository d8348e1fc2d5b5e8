"""The report of a store as a file."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from autodo.storage import Location, located
from reports.load import Results, load_results
from reports.render import to_markdown
from reports.tables import METRICS, OPTIMISTIC, error_table


def write_report(
    store_root: Path | str | Location,
    out: Path | str | Location | None = None,
    expected: Iterable[Mapping[str, Any]] = (),
    results: Results | None = None,
) -> list[Location]:
    """Writes the tables of a store as Markdown; runs nothing again.

    Args:
        store_root: path or URI of the store.
        out: path or URI of the report's folder; STORE/report if None.
        expected: runs that should be there, as for `error_table`.
        results: those of the store, if they are loaded already.
    Returns:
        the files written.
    Raises:
        StoreError: if the store cannot be read or the report not be written.
    """
    results = load_results(store_root) if results is None else results
    folder = located(store_root) / "report" if out is None else located(out)
    file = folder / "report.md"
    file.write_text(report_markdown(results, expected))
    return [file]


def report_markdown(results: Results, expected: Iterable[Mapping[str, Any]] = ()) -> str:
    """Every table of METRICS, and what a reader must know to trust them."""
    expected = list(expected)
    parts = ["# Results\n"]
    for metric, meaning in METRICS.items():
        parts.append(f"## {meaning[0].upper()}{meaning[1:]}\n")
        parts += [f"{OPTIMISTIC}\n"] if metric == "error_best_test" else []
        tables = error_table(results.frame, metric, expected)
        parts += [to_markdown(table) for table in tables] or ["No runs.\n"]
    remarks = notes(results.frame) + [f"Warning: {warning}." for warning in results.warnings]
    if remarks:
        parts += ["## Notes\n", "\n".join(f"- {remark}" for remark in remarks) + "\n"]
    return "\n".join(parts)


def notes(frame: pd.DataFrame) -> list[str]:
    """Reasons for care: results of different code, libraries or devices side by side."""
    remarks = []
    for column, what in (("git_sha", "code versions"), ("device", "devices")):
        counts = frame[column].fillna("unknown").value_counts()
        if len(counts) > 1:
            listed = ", ".join(f"{value} ({n} runs)" for value, n in counts.items())
            remarks.append(f"Results of different {what} stand side by side: {listed}.")
    for package, versions in sorted(_versions(frame).items()):
        if len(versions) > 1:
            remarks.append(f"Results of different versions of {package} stand side by side: {', '.join(versions)}.")
    return remarks


def _versions(frame: pd.DataFrame) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for pairs in frame["versions"].dropna():
        for package, version in pairs:
            found.setdefault(package, set()).add(version)
    return {package: sorted(versions) for package, versions in found.items()}
