"""The lead over the best prior method, the gain of the minority, and the cost in passes."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from autodo.config.run import SplitName
from autodo.config.shipped import method_names, method_preset
from orchestration.planning.plan import expected_rows
from reports.analysis.cost import outer_pass_in_passes, paper_cost_in_passes, paper_outer_pass_in_passes
from reports.analysis.roles import role
from reports.document import Reference, Table
from reports.tables.claims import claim_tables
from reports.tables.outer_cost import outer_cost_tables
from tests.autodo.bilevel.test_outer_pass import training_of
from tests.reports import synthetic

METHODS = {"baseline": 0.2, "randaugment": 0.15, "dada-searched": 0.155, "autodo-a": 0.12, "autodo-aws": 0.08}
IMBALANCED = ("1-0.0", "100-0.1")
Rows = list[tuple[Any, dict[str, Any]]]


def grid(dataset: str = "svhn", methods: dict[str, float] = METHODS, **options: Any) -> Rows:
    return synthetic.grid((dataset,), IMBALANCED, methods, **options)


def by_kind(tables: list[Table]) -> dict[str, Table]:
    """Tables by `lead-paper`, `lead-all` or `classes`; each occurs once."""
    kinds = [next(kind for kind in ("lead-paper", "lead-all", "classes") if kind in table.key) for table in tables]
    assert len(set(kinds)) == len(kinds)
    return dict(zip(kinds, tables, strict=True))


def values(rows: Rows, column: str) -> pd.DataFrame:
    """Percent by (distortion, seed) and method."""
    found = [(str(run.distortion), run.seed, run.method.name, 100 * row[column]) for run, row in rows]
    frame = pd.DataFrame(found, columns=["distortion", "seed", "name", "percent"])
    return frame.pivot(index=["distortion", "seed"], columns="name", values="percent")


def test_every_method_has_the_role_that_autodo_methods_shows() -> None:
    roles = {name: role(method_preset(name)) for name in method_names()}
    assert {name for name, its in roles.items() if its == "autodo"} == {n for n in roles if n.startswith("autodo-")}
    anchors = {name for name, its in roles.items() if its == "anchor"}
    on_val = {"train+val", "val-only", "finetune-head-on-val", "class-balanced-finetune-on-val"}
    assert anchors == on_val | {"autodo", "dfr", "glc"}
    assert all(role(synthetic.run("svhn", name).model_dump()) == roles[name] for name in ("sop", "mixup", *anchors))


def test_the_lead_is_over_the_best_prior_method_of_each_cell_seed_by_seed() -> None:
    rows = grid()
    table = by_kind(claim_tables(synthetic.results(rows)))["lead-paper"]
    assert [row.name for row in table.rows] == ["autodo-a", "autodo-aws"]
    errors = values(rows, "error_best_val")
    for i, column in enumerate(table.columns):
        of_column = errors.loc[column.name]
        best = of_column[["baseline", "randaugment", "dada-searched"]].mean().idxmin()
        assert f"{column.name}: {best}" in " ".join(table.notes)
        for row in table.rows:
            lead = of_column[best] - of_column[row.name]
            cell = row.cells[i]
            assert (cell.mean, cell.std, cell.n) == (pytest.approx(lead.mean()), pytest.approx(lead.std()), 4)
            assert cell.interval is not None
            assert lead.min() <= cell.interval[0] <= cell.interval[1] <= lead.max()
    papers = [[cell.paper for cell in row.cells] for row in table.rows]
    assert papers == [[Reference(0.0), Reference(1.3)], [Reference(0.2), Reference(7.3)]]
    assert any("lack complete runs of fast-autoaugment." in note for note in table.notes)


def test_other_data_have_a_lead_and_no_figure_of_the_paper() -> None:
    table = by_kind(claim_tables(synthetic.results(grid("fashion-mnist"))))["lead-paper"]
    cells = [cell for row in table.rows for cell in row.cells]
    assert all(cell.mean is not None and cell.paper is None for cell in cells)
    assert not any("The paper's figures" in note for note in table.notes)


def test_methods_that_the_paper_lacks_are_compared_in_a_table_of_their_own() -> None:
    rows = grid(methods={**METHODS, "sop": 0.05, "train+val": 0.01})
    tables = by_kind(claim_tables(synthetic.results(rows)))
    of_paper, of_all = tables["lead-paper"], tables["lead-all"]
    errors = values(rows, "error_best_val").groupby("distortion").mean()
    for i, column in enumerate(of_all.columns):
        of_column = errors.loc[column.name]
        assert of_all.rows[1].cells[i].mean == pytest.approx(of_column["sop"] - of_column["autodo-aws"])
        prior = of_column[["baseline", "randaugment", "dada-searched"]].min()
        assert of_paper.rows[1].cells[i].mean == pytest.approx(prior - of_column["autodo-aws"])
    assert all(cell.paper is None for row in of_all.rows for cell in row.cells)
    assert any("train their network on val are left out" in note for note in of_all.notes)


def test_a_cell_without_a_figure_says_why() -> None:
    whole = grid()

    def there(run: Any) -> bool:
        name, distortion = run.method.name, str(run.distortion)
        if distortion == "100-0.1":
            return not (run.seed == 3 and name in ("baseline", "randaugment", "dada-searched"))
        return name != "autodo-a" and not (name == "autodo-aws" and run.seed > 1)

    rows = [(run, row) for run, row in whole if there(run)]
    runs = synthetic.results(rows, expected_rows(run for run, _ in whole))
    table = by_kind(claim_tables(runs))["lead-paper"]
    (no_run, no_prior), (two, _) = (row.cells for row in table.rows)
    assert [(cell.mean, cell.n, cell.expected) for cell in (no_run, no_prior)] == [(None, 0, 4)] * 2
    assert (two.n, two.expected) == (2, 4)
    assert "No figure at 1-0.0 (autodo-a): no result yet." in table.notes
    assert "No figure at 100-0.1: no prior method has all its seeds." in table.notes
    without = [(run, row) for run, row in rows if (run.method.name, str(run.distortion)) != ("autodo-a", "1-0.0")]
    table = by_kind(claim_tables(synthetic.results(without)))["lead-paper"]
    assert "No figure at 1-0.0 (autodo-a): the method was not run there." in table.notes


@pytest.mark.parametrize("split", ["union", "oversplit"])
def test_each_split_is_compared_within_itself(split: SplitName) -> None:
    other = synthetic.grid(("svhn",), ("1-0.0",), {"randaugment": 0.1, "autodo-aws": 0.05}, split=split)
    _, table = claim_tables(synthetic.results(synthetic.grid(("svhn",), ("1-0.0",), METHODS) + other))
    assert [row.name for row in table.rows] == [f"autodo-aws ({split})"]
    assert split in table.title
    (cell,) = table.rows[0].cells
    errors = values(other, "error_best_val").mean()
    assert cell.mean == pytest.approx(errors["randaugment"] - errors["autodo-aws"])
    assert cell.paper == (Reference(0.07) if split == "oversplit" else None)


def test_tables_without_anything_to_say_are_left_out() -> None:
    only_baseline = synthetic.grid(("svhn",), ("1-0.0",), {"baseline": 0.2, "autodo-aws": 0.1})
    optimistic = grid(split="test-as-val")
    no_autodo = grid(methods={"baseline": 0.2, "randaugment": 0.1})
    for rows in (only_baseline, optimistic, no_autodo):
        assert claim_tables(synthetic.results(rows)) == []
    holes = synthetic.results([], expected_rows(run for run, _ in grid()))
    assert claim_tables(holes) == outer_cost_tables(holes, synthetic.epochs(grid())) == []


def test_the_gain_of_the_minority_and_the_spread_over_classes() -> None:
    rows = grid()
    table = by_kind(claim_tables(synthetic.results(rows)))["classes"]
    assert [column.name for column in table.columns] == ["100-0.1 gain", "100-0.1 spread"]
    errors = values(rows, "minority_error").loc["100-0.1"]
    spreads = {
        name: np.mean(
            [
                100 * np.std(row["per_class_accuracy"])
                for run, row in rows
                if (run.method.name, str(run.distortion)) == (name, "100-0.1")
            ]
        )
        for name in METHODS
    }
    (_, of_baseline), (gain_a, _), (gain, spread) = (row.cells for row in table.rows)
    assert [row.name for row in table.rows] == ["baseline", "autodo-a", "autodo-aws"]
    assert gain.mean == pytest.approx((errors["baseline"] - errors["autodo-aws"]).mean())
    assert (spread.mean, of_baseline.mean) == (pytest.approx(spreads["autodo-aws"]), pytest.approx(spreads["baseline"]))
    assert (gain.paper, spread.paper, of_baseline.paper) == (Reference(36.6), Reference(4.4), Reference(20.0))
    assert gain_a.paper is None
    assert gain.n == spread.n == 4


# ----- cost


class Counting(nn.Module):
    """Counts the images that go forward through an encoder, and those that come back."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.encoder(images)
        self.images += len(images)
        if features.requires_grad:
            features.register_hook(self._back)
        return features

    def _back(self, gradient: Tensor) -> None:
        self.images += len(gradient)


@pytest.mark.parametrize("split", ["paper", "union"])
@pytest.mark.parametrize(
    ("method", "hessian_points"),
    [
        ("autodo-aws", None),
        ("autodo-shared", None),
        ("autodo-exact-ws", None),
        ("autodo-exact-ws", 20),
        ("autodo-exact-aws", None),
        ("autodo-exact-aws", 20),
    ],
)
def test_passes_are_those_of_an_outer_pass(
    method: str, hessian_points: int | None, split: SplitName, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = training_of(method, split, hessian_points)
    counting: list[Counting] = []

    def counted(encoder: nn.Module) -> nn.Module:
        counting.append(Counting(encoder))
        return counting[-1]

    monkeypatch.setattr("autodo.bilevel.outer_pass.frozen_copy", counted)
    assert training.outer is not None
    val = training.evaluator.evaluate(training.loaders.val)
    training.outer.outer_pass.run(val, 0.1, torch.Generator().manual_seed(7))
    (count,) = counting
    config = training.context.config.model_dump(mode="json")
    assert count.images / len(training.loaders.train.images) == pytest.approx(outer_pass_in_passes(config, 48, 12))


@pytest.mark.parametrize(
    ("method", "start", "passes", "cost"),
    [
        ("autodo-aws", 0.5, 10, 3.5),  # as section 4.3 has it
        ("autodo-darts-aws", 0.5, 5, 2.25),
        ("autodo-aws", 0.25, 10, 4.75),
        ("autodo-published-aws", 0.25, 10, 4.75),
        ("autodo-exact-aws", 0.25, None, None),
        ("baseline", 0.25, None, None),
    ],
)
def test_the_papers_count(method: str, start: float, passes: float | None, cost: float | None) -> None:
    config = synthetic.run("svhn", method, overrides={"outer.start_share": start}).model_dump()
    assert (paper_outer_pass_in_passes(config), paper_cost_in_passes(config)) == (passes, cost)


def test_counted_and_measured_costs_stand_beside_each_other() -> None:
    rows = grid(methods={"baseline": 0.2, "autodo-aws": 0.1, "autodo-exact-ws": 0.1})
    (table,) = outer_cost_tables(synthetic.results(rows), synthetic.epochs(rows))
    names = [column.name for column in table.columns]
    aws, exact = (dict(zip(names, (cell.mean for cell in row.cells), strict=True)) for row in table.rows)
    times = [row for run, row in rows if run.method.name == "autodo-aws"]
    assert aws == {
        "outer pass, paper": 10,
        "outer pass, here": 2,
        "run, paper": 4.75,
        "run, here": pytest.approx(1 + 2 * 150 / 400),
        "run, measured": pytest.approx(np.mean([1 + row["outer_seconds"] / row["inner_seconds"] for row in times])),
        "whole run": pytest.approx(1, abs=0.01),  # the same seconds as the baseline
    }
    assert (exact["outer pass, paper"], exact["outer pass, here"], exact["run, paper"]) == (None, 1, None)
    assert any("no count for other solvers" in note for note in table.notes)
    without = [(run, row) for run, row in rows if run.method.name != "baseline"]
    (table,) = outer_cost_tables(synthetic.results(without), synthetic.epochs(without))
    assert "whole run" not in [column.name for column in table.columns]
