"""All figures of all tables equal an independent computation."""

import functools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from orchestration.planning.plan import expected_rows
from reports.analysis.findings import what_was_found
from reports.analysis.metrics import METRICS
from reports.document import Reference, Table
from reports.formats.cell_text import mean_text
from reports.tables.claims import claim_tables
from reports.tables.classes import class_tables
from reports.tables.cost import cost_tables
from reports.tables.differences import difference_tables
from reports.tables.errors import error_tables
from reports.tables.ranks import rank_sentences, rank_tables, ranks
from reports.tables.splits import split_tables
from tests.reports import synthetic
from tests.reports.tables.known import agree, shown


@pytest.fixture(scope="module")
def rows() -> list[Any]:
    """Two datasets, two distortions, four methods, four seeds; the last method lacks runs, and one has one seed."""
    whole = synthetic.grid()
    return [
        (run, row)
        for run, row in whole
        if not (run.method.name == "autodo-aws" and run.seed == 3 and str(run.distortion) == "10-0.1")
        and not (run.method.name == "randaugment" and run.dataset.name == "svhn" and run.seed > 0)
    ]


@pytest.fixture(scope="module")
def frame(rows: list[Any]) -> pd.DataFrame:
    return synthetic.results(rows)


@pytest.fixture(scope="module")
def with_holes(rows: list[Any]) -> pd.DataFrame:
    """The same, with the missing runs of the grid."""
    return synthetic.results(rows, expected_rows(run for run, _ in synthetic.grid()))


@pytest.mark.parametrize("metric", METRICS)
def test_errors(rows: list[Any], frame: pd.DataFrame, with_holes: pd.DataFrame, metric: str) -> None:
    agree(error_tables(with_holes, metric), rows, lambda row: 100 * row[metric])
    agree(error_tables(frame, metric), rows, lambda row: 100 * row[metric])


@pytest.mark.parametrize(
    ("column", "value"),
    {
        "all classes": lambda row: 100 * (1 - row["error_best_val"]),
        "majority": lambda row: 100 * sum(row["per_class_accuracy"][:5]) / 5,
        "minority": lambda row: 100 * sum(row["per_class_accuracy"][5:]) / 5,
        "std over classes": lambda row: 100 * pd.Series(row["per_class_accuracy"]).std(ddof=0),
    }.items(),
)
def test_classes(rows: list[Any], frame: pd.DataFrame, with_holes: pd.DataFrame, column: str, value: Any) -> None:
    agree(class_tables(with_holes), rows, value, column)


def test_the_worst_class_is_that_of_the_lowest_mean(rows: list[Any], frame: pd.DataFrame) -> None:
    cells: dict[tuple[str, str, str], list[Any]] = {}
    for run, row in rows:
        cells.setdefault((run.dataset.name, str(run.distortion), run.method.name), []).append(row["per_class_accuracy"])
    tables = class_tables(frame)
    found = shown(tables, "worst class")
    assert found.keys() == cells.keys()
    notes = {(t.title.split(" ")[0], t.distortion): next(n for n in t.notes if "Worst class" in n) for t in tables}
    for (dataset, distortion, method), accuracies in cells.items():
        by_class = 100 * np.array(accuracies)
        worst = by_class.mean(axis=0).argmin()
        mean, std, n = found[dataset, distortion, method]
        assert (mean, n) == (pytest.approx(by_class[:, worst].mean()), len(accuracies))
        assert n == 1 or std == pytest.approx(by_class[:, worst].std(ddof=1))
        assert f"{method} class {worst}" in notes[dataset, distortion]


@pytest.mark.parametrize(
    ("column", "value"),
    {
        "cost": lambda row: row["seconds"] / 4001.5,
        "run": lambda row: row["seconds"] / 3600,
        "inner, an epoch": lambda row: row["inner_seconds"] / 200,
        "outer share": lambda row: 100 * row["outer_seconds"] / (row["inner_seconds"] + row["outer_seconds"]),
        "speed": lambda row: row["images_per_second"],
        "peak memory": lambda row: row["peak_memory_bytes"] / 1024**3,
    }.items(),
)
def test_costs(rows: list[Any], frame: pd.DataFrame, with_holes: pd.DataFrame, column: str, value: Any) -> None:
    agree(cost_tables(with_holes), rows, value, column)
    agree(cost_tables(with_holes, synthetic.epochs(rows)), rows, value, column)


@pytest.mark.parametrize(
    ("column", "value"),
    {
        "outer, an epoch": lambda row: row["outer_seconds"] / 150,
        "outer phase": lambda row: (row["inner_seconds"] * 150 / 200 + row["outer_seconds"]) / 3600,
    }.items(),
)
def test_costs_of_outer_passes(rows: list[Any], frame: pd.DataFrame, column: str, value: Any) -> None:
    learning = [(run, row) for run, row in rows if run.outer is not None]
    tables = cost_tables(frame, epochs=synthetic.epochs(rows))
    agree(tables, learning, value, column)
    assert column not in {head.name for table in cost_tables(frame) for head in table.columns}


def samples(rows: list[Any]) -> dict[tuple[str, str, str], dict[int, float]]:
    found: dict[tuple[str, str, str], dict[int, float]] = {}
    for run, row in rows:
        place = run.dataset.name, str(run.distortion), run.method.name
        found.setdefault(place, {})[run.seed] = 100 * row["error_best_val"]
    return found


def marks(tables: list[Table]) -> dict[tuple[str, str, str], str]:
    return {
        (table.title.split(" ")[0], column.name, row.name): "best" if cell.best else "tied" if cell.tied else ""
        for table in tables
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
    }


def test_best_and_tied(rows: list[Any], frame: pd.DataFrame, with_holes: pd.DataFrame) -> None:
    found, wanted = marks(error_tables(with_holes)), samples(rows)
    for dataset in ("svhn", "cifar10"):
        for distortion in ("1-0.0", "10-0.1"):
            complete = {
                place[2]: s for place, s in wanted.items() if place[:2] == (dataset, distortion) and len(s) == 4
            }
            best = min(complete, key=lambda name: np.mean(list(complete[name].values())))
            ahead = any(
                np.mean([sample[seed] - complete[best][seed] for seed in sample]) < 0
                for place, sample in wanted.items()
                if place[:2] == (dataset, distortion) and place[2] not in complete
            )
            for name in synthetic.METHODS:
                mark = found[dataset, distortion, name]
                if ahead:
                    assert mark == ""
                elif name == best:
                    assert mark == "best"
                elif name in complete:
                    pairs = [(complete[name][seed], complete[best][seed]) for seed in range(4)]
                    p = scipy.stats.ttest_rel(*zip(*pairs, strict=True)).pvalue
                    assert mark == ("tied" if p >= 0.05 else "")
                else:
                    assert mark == ""
    assert set(found.values()) == {"best", ""}  # these methods are far apart


def test_only_close_methods_are_tied() -> None:
    rows = synthetic.grid(("svhn",), ("1-0.0",), {"baseline": 0.1, "randaugment": 0.101, "autodo-a": 0.3})
    (table,) = error_tables(synthetic.results(rows))
    found = {row.name: (row.cells[0].best, row.cells[0].tied) for row in table.rows}
    assert found["autodo-a"] == (False, False)
    assert {found["baseline"], found["randaugment"]} == {(True, False), (False, True)}
    assert any(note.startswith("Tied with the best: a paired t-test") for note in table.notes)


@pytest.mark.parametrize("what", ["baseline", "best"])
def test_differences(rows: list[Any], frame: pd.DataFrame, with_holes: pd.DataFrame, what: str) -> None:
    wanted = samples(rows)
    tables = {
        table.title.split(" ")[0]: table for table in difference_tables(with_holes) if f"the {what}," in table.caption
    }
    assert tables.keys() == {"svhn", "cifar10"}
    for dataset, table in tables.items():
        for i, column in enumerate(table.columns):
            complete = {
                n: wanted[dataset, column.name, n]
                for n in synthetic.METHODS
                if len(wanted[dataset, column.name, n]) == 4
            }
            best = min(complete, key=lambda name: np.mean(list(complete[name].values())))
            reference = "baseline" if what == "baseline" else best
            for row in table.rows:
                cell, theirs = row.cells[i], wanted[dataset, column.name, reference]
                ours = wanted[dataset, column.name, row.name]
                pairs = [ours[seed] - theirs[seed] for seed in sorted(ours) if seed in theirs]
                if row.name == reference:
                    assert (cell.mean, cell.n) == (None, 0)
                    continue
                assert (cell.mean, cell.n) == (pytest.approx(np.mean(pairs)), len(pairs))
                if len(pairs) == 1:
                    assert (cell.std, cell.interval) == (None, None)
                    continue
                assert cell.interval is not None
                assert cell.interval[0] < cell.mean < cell.interval[1]
                assert min(pairs) - 1e-9 <= cell.interval[0] <= cell.interval[1] <= max(pairs) + 1e-9
        assert any("under p = 0.125" in note for note in table.notes)
        assert any("80 with 4 seeds" in note for note in table.notes)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_under_three_pairs_a_note_replaces_the_interval(seeds: int) -> None:
    rows = synthetic.grid(("svhn",), ("1-0.0",), {"baseline": 0.3, "autodo-a": 0.1}, seeds=seeds)
    table = difference_tables(synthetic.results(rows))[0]
    (cell,) = (row.cells[0] for row in table.rows)
    of = samples(rows)
    pairs = [of["svhn", "1-0.0", "autodo-a"][seed] - of["svhn", "1-0.0", "baseline"][seed] for seed in range(seeds)]
    assert cell.mean == pytest.approx(np.mean(pairs))
    assert cell.std == (pytest.approx(np.std(pairs, ddof=1)) if seeds > 1 else None)
    assert (cell.interval is None) == (seeds < 3)
    notes = " ".join(table.notes)
    assert ("Under three common seeds" in notes) == ("In brackets" not in notes) == (seeds < 3)
    assert ("about 72 with 3 seeds" in notes) == (seeds == 3)


def test_without_a_baseline_there_are_only_differences_from_the_best() -> None:
    rows = synthetic.grid(("svhn",), ("1-0.0",), {"autodo-a": 0.2, "autodo-aws": 0.1})
    (only,) = difference_tables(synthetic.results(rows))
    assert "minus that of the best" in only.caption
    assert difference_tables(synthetic.results(rows[:4])) == []  # nothing to compare it with


def test_the_baseline_of_the_union_split_is_used_if_it_is_the_only_one() -> None:
    rows = synthetic.grid(("svhn",), ("1-0.0",), {"baseline": 0.2, "autodo-aws": 0.1}, split="union")
    from_baseline, _ = difference_tables(synthetic.results(rows))
    assert "minus that of the baseline" in from_baseline.caption
    assert [row.name for row in from_baseline.rows] == ["autodo-aws (union)"]
    _, most = what_was_found(synthetic.results(rows), "error_best_val", "test error")
    assert "of baseline (union)" in most


def test_ranks_over_complete_cells(rows: list[Any], frame: pd.DataFrame, with_holes: pd.DataFrame) -> None:
    # Complete in half of the cells: autodo-aws in those of 1-0.0, randaugment in cifar10's.
    found = ranks(with_holes)
    assert found is None  # only cifar10 at 1-0.0 is complete for all
    assert "nothing is compared" in rank_sentences(found)[0]
    whole = [
        (run, row) for run, row in synthetic.grid() if run.method.name != "autodo-aws" or run.dataset.name == "svhn"
    ]
    whole = [(run, row) for run, row in whole if run.method.name != "autodo-aws" or str(run.distortion) == "1-0.0"]
    found = ranks(synthetic.results(whole))
    assert found is not None
    assert found.left_out == ("autodo-aws",)
    means = pd.DataFrame(
        {place: {n: np.mean(list(s.values())) for n in [place[2]]} for place, s in samples(whole).items()}
    )
    means = means.T.groupby(level=[0, 1]).first().drop(columns="autodo-aws")
    average = means.rank(axis=1).mean().sort_values()
    assert found.names == tuple(average.index)
    assert found.average_rank == pytest.approx(average.to_numpy())
    assert found.friedman_p == pytest.approx(scipy.stats.friedmanchisquare(*means.to_numpy().T).pvalue)
    assert len(found.blocks) == 4
    (table,) = rank_tables(synthetic.results(whole))
    assert [row.name for row in table.rows] == list(found.names)
    assert [row.cells[0].mean for row in table.rows] == pytest.approx(list(found.average_rank))
    assert [row.cells[1].mean for row in table.rows][1:] == pytest.approx(list(found.p_values[0, 1:]))
    text = " ".join(rank_sentences(found))
    assert "3 methods over 4 cells of 2 groups" in text
    assert "Not compared, because too few of their cells are complete: autodo-aws." in text


def test_small_p_values_are_not_shown_as_zero() -> None:
    distortions = [f"{ratio}-{noise}" for ratio in (1, 10, 50, 100) for noise in ("0.0", "0.1", "0.2")]
    rows = synthetic.grid(distortions=distortions, methods={"baseline": 0.3, "autodo-a": 0.2, "autodo-aws": 0.1})
    frame = synthetic.results(rows)
    (table,) = rank_tables(frame)
    p = table.columns[1]
    first, second, third = (row.cells[1] for row in table.rows)
    assert third.mean is not None
    assert 0 <= third.mean < 0.0005
    assert [mean_text(cell, p) for cell in (first, second, third)] == ["–", f"{second.mean:.3f}", "<0.001"]
    assert "a difference between methods (p < 0.001)," in rank_sentences(ranks(frame))[0]
    assert "3 methods over 24 cells" in rank_sentences(ranks(frame))[0]


@pytest.mark.parametrize("split", ["union", "oversplit", "test-as-val"])
def test_splits_beside_each_other(split: str) -> None:
    first = synthetic.grid(("svhn",), ("1-0.0",), {"autodo-aws": 0.1, "randaugment": 0.2, "baseline": 0.3})
    other = synthetic.grid(("svhn",), ("1-0.0",), {"randaugment": 0.18, "autodo-aws": 0.09}, split=split)[:-1]
    frame = synthetic.results(first + other)
    (table,) = split_tables(frame)
    assert [column.name for column in table.columns] == ["paper", split, "difference"]
    assert [row.name for row in table.rows] == ["autodo-aws", "randaugment"]  # the baseline has no such runs
    ours, theirs = samples(other), samples(first)
    for row in table.rows:
        a, b = theirs["svhn", "1-0.0", row.name], ours["svhn", "1-0.0", row.name]
        assert row.cells[0].mean == pytest.approx(np.mean(list(a.values())))
        assert row.cells[1].mean == pytest.approx(np.mean(list(b.values())))
        paired = [b[seed] - a[seed] for seed in b]
        assert row.cells[2].mean == pytest.approx(np.mean(paired))
        assert row.cells[2].n == len(paired) == (3 if row.name == "autodo-aws" else 4)
    aws = table.rows[0].cells
    of_paper = {"oversplit": Reference(2.39, 0.02), "test-as-val": Reference(2.48, 0.05)}
    assert aws[1].paper == of_paper.get(split)
    assert aws[0].paper == (Reference(2.48, 0.04) if split == "test-as-val" else Reference(2.5, 0.04))
    assert any("reads the test images" in note for note in table.notes) == (split == "test-as-val")
    assert split_tables(synthetic.results(first)) == []


def test_the_papers_errors_are_shown_with_a_note(frame: pd.DataFrame) -> None:
    for metric, said in (("error_best_val", True), ("error_best_test", False)):
        (cifar10, _) = error_tables(frame, metric)
        cells = {row.name: row.cells for row in cifar10.rows}
        assert cells["autodo-aws"][1].paper == Reference(13.1, 0.16)
        assert cells["autodo-aws"][1].difference == pytest.approx(cells["autodo-aws"][1].mean - 13.1)
        assert any("like-for-like" in note for note in cifar10.notes) == said
        assert any("chooses the epoch on the test set itself" in note for note in cifar10.notes) != said
    assert all(cell.paper is None for t in error_tables(frame, "minority_error") for r in t.rows for cell in r.cells)
    short = synthetic.grid(("cifar10",), overrides={"training.epochs": 30})
    assert all(cell.paper is None for t in error_tables(synthetic.results(short)) for r in t.rows for cell in r.cells)


def test_the_papers_errors_on_imagenet_are_shown() -> None:
    rows = synthetic.grid(["imagenet"], ["10-0.0", "10-0.1"], {"baseline": 0.5, "autodo-aws": 0.4}, seeds=1)
    (table,) = error_tables(synthetic.results(rows))
    papers = {row.name: [cell.paper for cell in row.cells] for row in table.rows}
    assert papers == {"baseline": [Reference(43.1), Reference(46.2)], "autodo-aws": [Reference(40.4), Reference(44.1)]}


def test_the_papers_figures_beside_other_settings_have_a_note_of_them() -> None:
    despite = ("model.name", "training.epochs", "training.warmup_epochs")
    small = {"model.name": "small-cnn", "training.epochs": 8, "training.warmup_epochs": 1}
    rows = synthetic.grid(["svhn"], ["1-0.0", "100-0.1"], overrides=small)
    note = (
        "The paper's figures are shown although these runs do not follow its protocol: model.name = small-cnn "
        "(the paper: wrn-28-10); training.epochs = 8 (the paper: 200); training.warmup_epochs = 1 (the paper: 5)."
    )
    frame, epochs = synthetic.results(rows), synthetic.epochs(rows)
    for build in (error_tables, class_tables, claim_tables, functools.partial(cost_tables, epochs=epochs)):
        tables = build(frame, despite=despite)
        for table in tables:
            shown = any(cell.paper for row in table.rows for cell in row.cells)
            assert shown == (note in table.notes), (build, table.key)
        assert any(cell.paper for table in tables for row in table.rows for cell in row.cells), build
        for fewer in ((), despite[:2]):
            hidden = build(frame, despite=fewer)
            assert not any(cell.paper for table in hidden for row in table.rows for cell in row.cells)
            assert not any("do not follow" in text for table in hidden for text in table.notes)
    (table,) = error_tables(frame, despite=despite)
    assert {row.name: row.cells[1].paper for row in table.rows}["autodo-aws"] == Reference(6.3, 0.57)


def test_the_papers_hours_are_shown_for_the_outer_phase(rows: list[Any], frame: pd.DataFrame) -> None:
    tables = {table.title: table for table in cost_tables(frame, epochs=synthetic.epochs(rows))}
    table = tables["svhn (wrn-28-10, 200 epochs), 1-0.0"]
    papers = {
        (row.name, c.name): cell.paper for row in table.rows for c, cell in zip(table.columns, row.cells, strict=True)
    }
    assert {place: paper for place, paper in papers.items() if paper} == {("autodo-aws", "outer phase"): Reference(6.8)}
    assert any("AutoDO, E=50 6.8" in note for note in table.notes)
    assert "Measured on: NVIDIA H100 80GB HBM3." in table.notes


def test_classes_without_test_images_are_named_and_left_out() -> None:
    rows = synthetic.grid(("svhn",), ("1-0.0",), {"baseline": 0.1}, seeds=1)
    row = rows[0][1] | {"per_class_accuracy": [0.5, None, 0.7, *[0.6] * 7], "minority_error": None}
    (table,) = class_tables(synthetic.results([(rows[0][0], row)]))
    cells = {column.name: cell for column, cell in zip(table.columns, table.rows[0].cells, strict=True)}
    assert cells["worst class"].mean == pytest.approx(50)
    assert cells["std over classes"].mean == pytest.approx(100 * np.std([0.5, 0.7, *[0.6] * 7]))
    assert (cells["minority"].mean, cells["minority"].n) == (None, 0)
    assert "Classes without test images are left out: class 1." in table.notes


def test_tables_name_their_group_and_distortion() -> None:
    rows = [pair for split in ("paper", "union") for pair in synthetic.grid(overrides={"split": split})]
    frame = synthetic.results(rows)
    groups = {f"{run.dataset.name} (wrn-28-10, 200 epochs)" for run, _ in rows}
    cells = {(group, str(run.distortion)) for group in groups for run, _ in rows}
    for make in (class_tables, cost_tables, split_tables):
        assert {(table.group, table.distortion) for table in make(frame)} == cells
        assert all(table.title == f"{table.group}, {table.distortion}" for table in make(frame))
    for make in (error_tables, difference_tables):
        assert {(table.group, table.distortion) for table in make(frame)} == {(group, "") for group in groups}
        assert all(table.title.startswith(table.group) for table in make(frame))
    assert {(table.group, table.distortion) for table in rank_tables(frame)} == {("", "")}


def test_a_store_without_results_has_holes_and_no_figures() -> None:
    nothing = synthetic.results([])
    makers = (error_tables, class_tables, cost_tables, split_tables, difference_tables, rank_tables)
    assert all(make(nothing) == [] for make in makers)
    holes = synthetic.results([], expected_rows(run for run, _ in synthetic.grid()))
    for table in (table for make in makers for table in make(holes)):
        for cell in (cell for row in table.rows for cell in row.cells):
            assert (cell.mean, cell.std, cell.n, cell.best, cell.tied) == (None, None, 0, False, False)
            assert not math.isnan(cell.expected or 0)
    assert sum(len(table.rows) for table in error_tables(holes)) == 8
