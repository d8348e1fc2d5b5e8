from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from autodo.errors import ConfigError
from orchestration.planning.plan import expected_rows
from reports.analysis.comparison import named
from reports.analysis.selection import select
from reports.readers.load import load_results
from tests.reports.conftest import make


@pytest.fixture
def runs(root: Path, add: Callable[..., Path]) -> pd.DataFrame:
    for method in ("baseline", "autodo-aws"):
        for distortion in ("1-0.0", "10-0.1"):
            for seed in range(2):
                add(make(method, distortion, seed))
    add(make("baseline", "10-0.1", 0, split="union"))
    return named(load_results(root).frame)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("method=baseline", 5),
        ("method=baseline,method=autodo-aws", 9),
        ("method=baseline,distortion=10-0.1", 3),
        ("method=baseline, distortion=10-0.1, split=union", 1),
        ("seed=1", 4),
        ("dataset=digits,model=small-cnn", 9),
    ],
)
def test_a_selection_matches_any_value_of_each_key(runs: pd.DataFrame, text: str, count: int) -> None:
    chosen = select(runs, text)
    assert len(chosen) == count
    assert chosen["run_id"].is_unique


def test_the_variants_of_a_grid_can_be_selected(root: Path, add: Callable[..., Path]) -> None:
    starts = {"E10": 0.25, "E20": 0.5}
    chosen = {name: make("autodo-aws", overrides={"outer.start_share": start}) for name, start in starts.items()}
    for run in (make(), *chosen.values()):
        add(run)
    rows = [row for name, run in chosen.items() for row in expected_rows([run], {run.run_id: name})]
    runs = named(load_results(root).frame, rows)
    assert list(select(runs, "variant=E10,method=autodo-aws")["run_id"]) == [chosen["E10"].run_id]
    assert list(select(runs, "variant=E10")["name"]) == ["baseline", "autodo-aws E10"], "the baseline is of all"
    assert len(select(runs, "variant=E10,variant=E20")) == 3
    with pytest.raises(ConfigError, match=r"unknown variant .E15.*known: E10, E20"):
        select(runs, "variant=E15")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("baseline", "is not KEY=VALUE"),
        ("method=", "is not KEY=VALUE"),
        ("", "is not KEY=VALUE"),
        ("methods=baseline", "unknown key 'methods'; keys: dataset, model, method"),
        ("variant=E10", "unknown key 'variant'; keys: dataset"),
        ("method=autodo-awz", "did you mean 'autodo-aws'"),
        ("seed=7", "unknown seed '7'; known: 0, 1"),
    ],
)
def test_unknown_values_are_an_error_with_the_known_ones(runs: pd.DataFrame, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("(", r"\(")):
        select(runs, text)
