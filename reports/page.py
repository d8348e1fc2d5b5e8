"""The report of a store as a file."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autodo.storage import Location, located
from reports.document import Report, Section
from reports.load import Results, load_results
from reports.markdown import report_markdown
from reports.tables import METRICS, error_tables


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
        expected: runs that should be there, as for `error_tables`.
        results: those of the store, if they are loaded already.
    Returns:
        the files written.
    Raises:
        StoreError: if the store cannot be read or the report not be written.
    """
    results = load_results(store_root) if results is None else results
    folder = located(store_root) / "report" if out is None else located(out)
    file = folder / "report.md"
    file.write_text(report_markdown(report_of(results, expected)))
    return [file]


def report_of(results: Results, expected: Iterable[Mapping[str, Any]] = ()) -> Report:
    """Every table of METRICS, and what a reader must know to trust them."""
    expected = list(expected)
    sections = []
    for metric, meaning in METRICS.items():
        tables = tuple(error_tables(results.frame, metric, expected))
        title = f"{meaning[0].upper()}{meaning[1:]}"
        sections.append(Section(metric.replace("_", "-"), title, () if tables else ("No runs.",), tables))
    return Report("Results", (), tuple(sections), results.warnings)
