"""Build a store's report: load the runs, and put its sections together."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from autodo.errors import StoreError
from autodo.io.storage import Location, StrPath, as_location
from reports.analysis import findings, provenance
from reports.analysis.comparison import named, without_test_as_val
from reports.analysis.curves import COLUMNS as CURVE_COLUMNS
from reports.analysis.curves import learning_curves
from reports.analysis.label_repair import REPAIR_COLUMNS, label_repair
from reports.analysis.metrics import METRICS, metric_name
from reports.analysis.paper_results import check_departures
from reports.analysis.selection import select as selected
from reports.document import Report, Section
from reports.figures.accuracy import accuracy_figures
from reports.figures.choices import Choice, choose
from reports.figures.clusters import cluster_figures
from reports.figures.confusion import confusion_figures
from reports.figures.cost import cost_figures
from reports.figures.hyperparameters import hyperparameter_figures
from reports.figures.learning_curves import curve_figures
from reports.figures.palette import Style, styles
from reports.figures.ranks import rank_figure
from reports.keys import key
from reports.label_errors.inspection import inspect_run
from reports.readers.load import Results, load_epochs, load_results, reduce_runs
from reports.tables.claims import claim_tables
from reports.tables.classes import class_tables
from reports.tables.cost import EPOCH_COLUMNS, cost_tables
from reports.tables.differences import difference_tables
from reports.tables.errors import error_tables
from reports.tables.label_repair import label_repair_tables
from reports.tables.outer_cost import outer_cost_tables
from reports.tables.ranks import rank_sentences, rank_tables, ranks
from reports.tables.splits import split_tables

HEADLINE = "error_best_val"
_SUSPECTS = 24  # images in a gallery; `autodo inspect` shows more
_GALLERIES = 6
_TITLE = 2  # most grids in a title; with more it is the store's name
_TRAIN_LOSSES = "Each method minimises its own train loss, so that those of different methods need not be comparable."
_SUSPECTS_OF = (
    "For each dataset, the run with the lowest val error among those drawn above. "
    "The command autodo inspect STORE RUN_ID lists all train points of a run and writes them to a CSV."
)
_CLAIMS = (
    "What the paper states as AutoDO's advantage, computed from these runs: the lead over the best prior method, the "
    "gain of minority classes, and the cost. The paper's own figures stand below ours where data and protocol are the "
    "paper's."
)
Expected = Sequence[Mapping[str, Any]]


def build_report(
    root: StrPath | Location,
    expected: Iterable[Mapping[str, Any]] = (),
    *,
    metric: str = HEADLINE,
    select: str | None = None,
    results: Results | None = None,
    warnings: Sequence[str] = (),
    despite: Collection[str] = (),
) -> Report:
    """Build the report from a store's Parquet files.

    Args:
        root: path or URI of the store.
        expected: `comparison.IDENTITY` columns of runs that should be there; those without a result are holes.
        metric: a key of METRICS, by which methods are compared.
        select: report only a part of the runs, as in `selection.select`.
        results: of the store, if they are loaded already.
        warnings: shown before the report's own, such as of grids whose expected runs are unknown.
        despite: settings by dotted key in which runs may differ from the paper's protocol and still have its figures
            beside them; notes name the values.
    Raises:
        StoreError: if there is no store. ConfigError: if `select` fits no run, or `despite` names an unknown setting.
    """
    check_departures(despite)
    store = as_location(root)
    results = load_results(store) if results is None else results
    frame, asked = results.frame, list(expected)
    if select is not None:
        ids = set(selected(named(frame, asked), select)["run_id"])
        frame = frame[frame["run_id"].isin(ids)].reset_index(drop=True)
        asked = [row for row in asked if row["run_id"] in ids]
    return _Builder(store, frame, asked, metric, despite).report((*warnings, *results.warnings), select)


class _Builder:
    """Data that several sections need, loaded once, and a method for each section."""

    def __init__(
        self, store: Location, frame: pd.DataFrame, expected: Expected, metric: str, despite: Collection[str]
    ) -> None:
        self.store = store
        self.despite = despite
        self.frame = frame
        self.metric = metric
        self.runs = named(frame, expected)
        self.warnings: list[str] = []
        wanted = tuple(dict.fromkeys([*CURVE_COLUMNS, *EPOCH_COLUMNS, "val_error"]))
        self.epochs = self._with_warnings(load_epochs(store, frame["run_id"], wanted))
        self.choices: Sequence[Choice] = choose(without_test_as_val(self.runs))
        # First the methods that are drawn together, because the first differ by colour.
        drawn = [name for choice in self.choices for name in choice.methods]
        self.methods = tuple(dict.fromkeys([*drawn, *self.runs["name"]]))
        self.styles: Mapping[str, Style] = styles(self.methods)

    def report(self, warnings: Sequence[str], select: str | None) -> Report:
        """The report with all sections that are not empty."""
        runs, metric = self.runs, self.metric
        found = ranks(runs, metric)
        comparison = (*rank_tables(runs, metric), *difference_tables(runs, metric))
        other_metrics = [name for name in METRICS if name not in (metric, "minority_error")]
        other_errors = tuple(table for name in other_metrics for table in error_tables(runs, name, self.despite))
        sections = [
            Section("errors", "Test error", tables=tuple(error_tables(runs, metric, self.despite))),
            Section(
                "comparison",
                "Differences and ranks",
                paragraphs=() if found else rank_sentences(None),
                tables=comparison,
                figures=() if found is None else (rank_figure(found),),
            ),
            Section(
                "claims",
                "The paper's claims",
                (_CLAIMS,),
                tables=(*claim_tables(runs, metric, self.despite), *outer_cost_tables(runs, self.epochs)),
            ),
            self._curves(),
            self._classes(),
            Section(
                "embeddings",
                "Embeddings of test images",
                figures=tuple(self._with_warnings(cluster_figures(self.store, self.choices))),
            ),
            Section("splits", "Splits", tables=tuple(split_tables(runs, metric, self.despite))),
            Section(
                "cost",
                "Cost",
                tables=tuple(cost_tables(runs, self.epochs, self.despite)),
                figures=tuple(cost_figures(self.choices, self.styles)),
            ),
            self._learned(),
            self._suspects(),
            Section("other-errors", "Test error at other epochs", tables=other_errors),
        ]
        grids, unreadable = provenance.launched_grids(self.store)
        title = ", ".join(name for name, _ in grids) if 0 < len(grids) <= _TITLE else self.store.name
        return Report(
            title=title if select is None else f"{title}: {select}",
            summary=tuple(self._summary()),
            sections=tuple(s for s in sections if any((s.tables, s.panels, s.figures, s.galleries))),
            warnings=tuple(dict.fromkeys([*warnings, *unreadable, *self.warnings, *provenance.run_notes(runs)])),
            provenance=(("store", str(self.store)), *provenance.provenance(self.frame)),
            grids=(*grids, *provenance.recipes(runs)),
            methods=self.methods,
        )

    def _summary(self) -> Iterable[str]:
        yield findings.what_was_run(self.runs)
        missing = findings.what_is_missing(self.runs)
        if missing:
            yield missing
        words = "test error" if self.metric == HEADLINE else metric_name(self.metric, self.runs)
        yield from findings.what_was_found(without_test_as_val(self.runs), self.metric, words)

    def _curves(self) -> Section:
        drawn = {choice.title for choice in self.choices}
        # First the cells of the other figures.
        panels = sorted(learning_curves(self.runs, self.epochs), key=lambda panel: panel.group not in drawn)
        figures = curve_figures(panels, self.styles, self.choices)
        return Section("curves", "Learning curves", (_TRAIN_LOSSES,), panels=tuple(panels), figures=tuple(figures))

    def _classes(self) -> Section:
        figures = [*accuracy_figures(self.choices, self.styles)]
        figures += self._with_warnings(confusion_figures(self.store, self.choices))
        tables = class_tables(self.runs, self.despite)
        return Section("classes", "Classes", tables=tuple(tables), figures=tuple(figures))

    def _learned(self) -> Section:
        noisy = self.frame.loc[self.frame["wrong_labels"] > 0, "run_id"]
        repairs = self._with_warnings(reduce_runs(self.store, "points", noisy, REPAIR_COLUMNS, label_repair))
        figures = self._with_warnings(hyperparameter_figures(self.store, self.choices))
        tables = label_repair_tables(self.runs, repairs)
        return Section(
            "learned", "Learned hyperparameters of train points", tables=tuple(tables), figures=tuple(figures)
        )

    def _suspects(self) -> Section:
        galleries = []
        for choice in self.choices[:_GALLERIES]:
            # Preferably of the paper's split: union trains on the val images.
            paper = choice.runs[choice.runs["split"] == "paper"]
            run_id = self._lowest_val_error(choice.runs if paper.empty else paper)
            try:
                found = inspect_run(self.store, run_id, top=_SUSPECTS, compare=False).gallery
                galleries.append(dataclasses.replace(found, key=key("to-look-at", run_id), title=self._title(run_id)))
            except StoreError as error:
                self.warnings.append(f"{run_id}: no labels to look at: {error}")
        return Section(
            "to-look-at",
            "Labels that are probably wrong",
            (_SUSPECTS_OF,),
            galleries=tuple(galleries),
        )

    def _title(self, run_id: str) -> str:
        run = self.runs[self.runs["run_id"] == run_id].iloc[0]
        return f"{run['group']}, {run['distortion']}: {run['name']}, seed {run['seed']}"

    def _lowest_val_error(self, runs: pd.DataFrame) -> str:
        """The run whose best epoch has the lowest val error."""
        of_runs = self.epochs[self.epochs["run_id"].isin(runs["run_id"])]
        lowest = of_runs.groupby("run_id", observed=True)["val_error"].min().dropna()
        return str(lowest.idxmin()) if len(lowest) else str(runs["run_id"].iloc[0])

    def _with_warnings(self, found: tuple[Any, Sequence[str]]) -> Any:
        """The value of a (value, warnings) pair; the warnings join those of the report."""
        value, warnings = found
        self.warnings += warnings
        return value
