"""The rehearsal of the paper's grids: what it covers, and a part of it that runs."""

import csv
import dataclasses
from pathlib import Path

import pytest

from autodo.config.shipped import grid_names
from orchestration.testing.rehearsal import EXPECTED, REHEARSALS, ExpectedFigures, Rehearsal, rehearse, stated

REFERENCE = Path(__file__).parents[3] / "reports" / "reference" / "paper_error_rates.csv"
MAY_DIFFER = {"training.epochs", "training.warmup_epochs", "dataset.image_size"}


def test_all_grids_of_the_paper_are_rehearsed_with_their_settings_and_all_figures_are_expected() -> None:
    assert {rehearsal.grid for rehearsal in REHEARSALS} == {name for name in grid_names() if name.startswith("paper-")}
    assert {key for rehearsal in REHEARSALS for key in rehearsal.overrides} <= MAY_DIFFER
    assert {figures.store for figures in EXPECTED} == {rehearsal.store_path for rehearsal in REHEARSALS}
    expected = [tuple(row.values()) for figures in EXPECTED for row in stated(figures)]
    with REFERENCE.open() as file:
        assert {tuple(row.values()) for row in csv.DictReader(file)} == set(expected)


def part(grid: str, only: str) -> Rehearsal:
    """The rehearsal of a part of a grid."""
    (rehearsal,) = (rehearsal for rehearsal in REHEARSALS if rehearsal.grid == grid)
    return dataclasses.replace(rehearsal, only=only)


@pytest.mark.slow
def test_a_part_is_launched_killed_resumed_and_reported_beside_the_paper(tmp_path: Path) -> None:
    cell = "seed=0,distortion=100-0.1,method="
    rehearsals = [
        part("paper-svhn", f"{cell}baseline,method=randaugment,method=autodo-aws"),
        part("paper-svhn-published", f"{cell}dada-published"),
    ]
    methods = ("baseline", "randaugment", "autodo-aws", "dada")
    expected = ExpectedFigures("outputs/paper-svhn", (1,), distortions=("100-0.1",), methods=methods)
    assert rehearse(tmp_path / "R", rehearsals, [expected]) == []
    assert (tmp_path / "R/outputs/paper-svhn/beside-the-paper/report.html").exists()


@pytest.mark.slow
@pytest.mark.long
def test_all_grids(tmp_path: Path) -> None:
    assert rehearse(tmp_path / "R") == []
