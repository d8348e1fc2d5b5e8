"""The paper's claims, from these runs: the lead over the best prior method, and the gain of minority classes."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from reports.analysis.classes import minority_notes, spread_over_classes
from reports.analysis.comparison import BASELINE, baseline_among, without_test_as_val
from reports.analysis.metrics import epoch_of_classifier, metric_name
from reports.analysis.paper_results import (
    PRIOR,
    departure_notes,
    paper_accuracies,
    paper_error,
    paper_lead,
    paper_name,
)
from reports.analysis.roles import roles
from reports.analysis.stats import FEWEST, Floats, bootstrap_intervals, differences, mean_std
from reports.document import Cell, Column, Reference, Row, Table
from reports.keys import key
from reports.tables import cells
from reports.tables.differences import INTERVAL, care_notes
from reports.tables.errors import OPTIMISTIC, paper_notes

Samples = Mapping[tuple[str, str], Floats]
"""Differences by seed of each (row, column)."""

_PAPERS = "Prior methods are those of the paper: {names}."
_OTHERS = "Compared with all methods but AutoDO's; those that train their network on val are left out."
_CHOSEN = "The best of each column, by its mean over seeds, which favours it: {names}."
_OF_TABLES = (
    "The paper's figures are differences within its tables; the largest of each column is the gain in its section 5.2."
)
_NOT_RUN = "The paper chooses the best of {all}; some columns here lack complete runs of {lacking}."
_ONE_MODEL = "The paper's figures of section 5.3 are of one model each, at the best epoch on the test set."
_GAIN = "Gain is the accuracy of the minority classes minus that of {baseline}, seed by seed."
_SPREAD = "Spread is the standard deviation of the accuracy over all classes (ddof = 0)."


def claim_tables(runs: pd.DataFrame, metric: str = "error_best_val", despite: Collection[str] = ()) -> list[Table]:
    """Tables beside the paper's claims, for each group and split; those without a figure are left out.

    Methods that learn hyperparameters of points are compared with the best of the others: of those in the paper and, if
    there are more, of all.

    Args:
        runs, metric, despite: as for `error_tables`.
    """
    tables: list[Table] = []
    for group, of_group in cells.by_group(without_test_as_val(runs)):
        for split, of_split in of_group.groupby("split", sort=False):
            tables += _lead_tables(group, str(split), cells.in_percent(of_split, metric), metric, despite)
            tables += _class_tables(group, str(split), of_split, despite)
    return [table for table in tables if any(cell.mean is not None for row in table.rows for cell in row.cells)]


# ----- lead over the best prior method


def _lead_tables(group: str, split: str, runs: pd.DataFrame, metric: str, despite: Collection[str]) -> Iterator[Table]:
    """Leads over the best of the paper's prior methods and, if there are others, over the best of all."""
    names, role_of = cells.names(runs), roles(runs)
    ours = [name for name in names if role_of[name] == "autodo"]
    prior = [name for name in names if role_of[name] == "prior"]
    method_of = dict(zip(runs["name"], runs["method"], strict=True))
    of_paper = [name for name in prior if paper_name(method_of[name]) in PRIOR]
    if not ours:
        return
    if any(method_of[name] != BASELINE for name in of_paper):  # else it is the table of differences from the baseline
        yield _lead_table(group, split, runs, metric, ours, of_paper, in_paper=True, despite=despite)
    if len(prior) > len(of_paper):
        yield _lead_table(group, split, runs, metric, ours, prior, in_paper=False)


def _lead_table(
    group: str,
    split: str,
    runs: pd.DataFrame,
    metric: str,
    ours: Sequence[str],
    prior: Sequence[str],
    *,
    in_paper: bool,
    despite: Collection[str] = (),
) -> Table:
    grid, known = cells.grid(runs, "distortion", "percent"), cells.has_expected(runs)
    best = {column: _best(grid, prior, column, known) for column in cells.distortions(runs)}
    leads = {
        (name, column): differences(grid.get((best[column] or "", column), {}), grid.get((name, column), {}))
        for name, column in itertools.product(ours, best)
    }
    papers = _paper_leads(runs, ours, best, despite) if in_paper and metric != "minority_error" else {}
    against = "the best prior method" if in_paper else "the best of all other methods"
    chosen = "; ".join(f"{column}: {name}" for column, name in best.items() if name)
    return Table(
        key=key("claims", "lead", "paper" if in_paper else "all", *_other(split), group),
        title=_title(group, split, f"lead over {against}"),
        caption=f"lead of AutoDO over {against} (above 0 if it is better), {metric_name(metric, runs)}, "
        "mean over seeds",
        heading="method / IR-NR",
        columns=tuple(Column(column, "%", better="higher") for column in best),
        rows=_rows(ours, tuple(best), leads, grid, papers, known=known),
        notes=(
            _PAPERS.format(names=", ".join(PRIOR)) if in_paper else _OTHERS,
            *([_CHOSEN.format(names=chosen)] if chosen else []),
            *_reasons(ours, leads, grid, best),
            *([OPTIMISTIC] if metric == "error_best_test" else []),
            *(_paper_lead_notes(runs, grid, prior, papers, known=known) if papers else []),
            *paper_notes(papers, metric, runs, "distortion"),
            *_care(leads),
        ),
        group=group,
    )


def _best(grid: cells.Grid, names: Sequence[str], column: str, known: bool) -> str | None:
    """The name with the lowest mean of those that have all their seeds, the first of several; None if none has."""
    of_column = {name: cells.cell(grid.get((name, column), {}), known) for name in names}
    means = {name: round(cell.mean, 9) for name, cell in of_column.items() if cell.mean is not None and cell.complete}
    return min(means, key=lambda name: means[name]) if means else None


def _reasons(names: Sequence[str], leads: Samples, grid: cells.Grid, best: Mapping[str, str | None]) -> Iterator[str]:
    """Notes on why cells have no figure."""
    lacking: dict[str, dict[str, list[str]]] = {}
    for column, name in itertools.product(best, names):
        if not leads[name, column].size:
            reason = _reason(grid.get((name, column)), best[column])
            lacking.setdefault(reason, {}).setdefault(column, []).append(name)
    for reason, of_reason in lacking.items():
        where = [
            column if len(of_column) == len(names) else f"{column} ({', '.join(of_column)})"
            for column, of_column in of_reason.items()
        ]
        yield f"No figure at {'; '.join(where)}: {reason}."


def _reason(sample: Mapping[int, float] | None, best: str | None) -> str:
    if sample is None:
        return "the method was not run there"
    if best is None:
        return "no prior method has all its seeds"
    if all(np.isnan(value) for value in sample.values()):
        return "no result yet"
    return f"no seed in common with {best}"


def _paper_leads(
    runs: pd.DataFrame, names: Sequence[str], best: Mapping[str, str | None], despite: Collection[str]
) -> dict[tuple[str, str], Reference]:
    """The paper's leads by (name, distortion), where AutoDO's runs and the prior method's follow its protocol."""
    config = {(name, column): str(of["config"].iloc[0]) for (name, column), of in runs.groupby(["name", "distortion"])}
    found = {}
    for name, column in itertools.product(names, best):
        ours, theirs = config.get((name, column)), config.get((best[column] or "", column))
        lead = paper_lead(ours, despite) if ours and theirs and paper_error(theirs, despite=despite) else None
        if lead is not None:
            found[name, column] = lead
    return found


def _paper_lead_notes(
    runs: pd.DataFrame, grid: cells.Grid, prior: Sequence[str], papers: Mapping[tuple[str, str], object], *, known: bool
) -> Iterator[str]:
    yield _OF_TABLES
    method_of = dict(zip(runs["name"], runs["method"], strict=True))
    lacking: dict[str, None] = {}
    for column in dict.fromkeys(column for _, column in papers):
        there = {
            paper_name(method_of[name]) for name in prior if cells.cell(grid.get((name, column), {}), known).complete
        }
        lacking.update(dict.fromkeys(name for name in PRIOR if name not in there))
    if lacking:
        yield _NOT_RUN.format(all=", ".join(PRIOR), lacking=" and ".join(lacking))


# ----- minority and spread over classes


def _class_tables(group: str, split: str, runs: pd.DataFrame, despite: Collection[str]) -> Iterator[Table]:
    """Gain of the minority over the baseline, and spread over classes, where the imbalance was made."""
    imbalanced = runs[(runs["imbalance_ratio"] > 1) & runs["minority_labels"].map(bool)]
    names, role_of = cells.names(imbalanced), roles(imbalanced)
    baseline = baseline_among(names)
    ours = [name for name in names if role_of[name] == "autodo"]
    if baseline is None or not ours:
        return
    known = cells.has_expected(imbalanced)
    values = imbalanced.assign(
        minority=100 * (1 - imbalanced["minority_error"].astype(float)),
        spread=[100 * spread_over_classes(accuracies) for accuracies in imbalanced["per_class_accuracy"]],
    )
    accuracy, spread = (cells.grid(values, "distortion", name) for name in ("minority", "spread"))
    distortions = cells.distortions(imbalanced)
    gains = {
        (name, distortion): differences(accuracy.get((name, distortion), {}), accuracy.get((baseline, distortion), {}))
        for name, distortion in itertools.product(ours, distortions)
    }
    gains |= {(baseline, distortion): np.empty(0) for distortion in distortions}
    papers = _paper_classes(imbalanced, baseline, despite)
    stated = papers["gain"].keys() | papers["spread"].keys()
    beside = [place in stated for place in zip(imbalanced["name"], imbalanced["distortion"], strict=True)]
    shown = [baseline, *ours]
    of_gain = _rows(shown, distortions, gains, accuracy, papers["gain"], known=known, reference=baseline)
    columns = [
        column
        for distortion in distortions
        for column in (
            Column(f"{distortion} gain", "%", better="higher"),
            Column(f"{distortion} spread", "%", better="lower"),
        )
    ]
    rows = []
    for row in of_gain:
        spreads = [
            cells.cell(spread.get((row.name, place), {}), known, papers["spread"].get((row.name, place)))
            for place in distortions
        ]
        rows.append(Row(row.name, tuple(itertools.chain(*zip(row.cells, spreads, strict=True)))))
    yield Table(
        key=key("claims", "classes", *_other(split), group),
        title=_title(group, split, "minority classes"),
        caption="gain in accuracy of the minority over the baseline, and spread over classes, "
        f"{epoch_of_classifier(imbalanced)}, mean over seeds",
        heading="method / IR-NR",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(
            _GAIN.format(baseline=baseline),
            _SPREAD,
            *dict.fromkeys(note for _, _, of_cell in cells.by_cell(imbalanced) for note in minority_notes(of_cell)),
            *([_ONE_MODEL] if any(papers.values()) else []),
            *departure_notes(imbalanced.loc[beside, "config"].astype(str)),
            *_care(gains),
        ),
        group=group,
    )


def _paper_classes(
    runs: pd.DataFrame, baseline: str, despite: Collection[str]
) -> dict[str, dict[tuple[str, str], Reference]]:
    """The paper's `gain` of the minority and `spread`, by (name, distortion)."""
    stated = {
        (str(name), str(distortion)): paper_accuracies(str(of_cell["config"].iloc[0]), despite)
        for (name, distortion), of_cell in runs.groupby(["name", "distortion"])
    }
    spreads = {place: figures["spread"] for place, figures in stated.items() if "spread" in figures}
    gains = {}
    for (name, distortion), figures in stated.items():
        of_baseline = stated.get((baseline, distortion), {})
        if name != baseline and "minority" in figures and "minority" in of_baseline:
            gains[name, distortion] = Reference(round(figures["minority"].mean - of_baseline["minority"].mean, 2))
    return {"gain": gains, "spread": spreads}


# ----- all


def _rows(
    names: Sequence[str],
    columns: Sequence[str],
    samples: Samples,
    grid: cells.Grid,
    papers: Mapping[tuple[str, str], Reference],
    *,
    known: bool,
    reference: str = "",
) -> tuple[Row, ...]:
    """Rows of differences by seed, with their intervals.

    Args:
        grid: values by seed, which say how many differences there should be; none for the row `reference`.
    """
    places = list(itertools.product(names, columns))
    intervals = dict(zip(places, bootstrap_intervals([samples[place] for place in places]), strict=True))
    made: dict[str, list[Cell]] = {name: [] for name in names}
    for place in places:
        mean, std = mean_std(samples[place].tolist())
        asked = len(grid.get(place, {})) if known and place[0] != reference else None
        cell = Cell(mean, std, samples[place].size, expected=asked, interval=intervals[place], paper=papers.get(place))
        made[place[0]].append(cell)
    return tuple(Row(name, tuple(of_name)) for name, of_name in made.items())


def _care(samples: Samples) -> list[str]:
    some = [sample for sample in samples.values() if sample.size]
    return [*([INTERVAL] if any(sample.size >= FEWEST for sample in some) else []), *care_notes(some)]


def _title(group: str, split: str, what: str) -> str:
    return f"{', '.join((group, *_other(split)))}: {what}"


def _other(split: str) -> tuple[str, ...]:
    """The split, if it is another than the paper's."""
    return () if split == "paper" else (split,)
