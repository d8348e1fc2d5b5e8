from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from autodo.config.run import RunConfig
from reports.analysis.comparison import named
from reports.analysis.findings import what_is_missing, what_was_found, what_was_run
from reports.readers.load import load_results
from tests.reports.conftest import make

Add = Callable[..., Path]
ERRORS = {
    ("baseline", "1-0.0"): (0.10, 0.11, 0.12),
    ("autodo-aws", "1-0.0"): (0.11, 0.12, 0.13),
    ("autodo-exact-ws", "1-0.0"): (0.20, 0.20, 0.20),
    ("baseline", "10-0.1"): (0.30, 0.32, 0.31),
    ("autodo-aws", "10-0.1"): (0.25, 0.28, 0.26),
    ("autodo-exact-ws", "10-0.1"): (0.21, 0.22, 0.20),
    ("autodo-exact-ws", "10-0.0"): (0.01, 0.01, 0.01),
}


def rows(runs: Iterable[RunConfig]) -> list[dict[str, Any]]:
    """Identity columns of runs that should be there."""
    return [{**run.identity, "config": run.model_dump_json()} for run in runs]


@pytest.fixture
def runs(root: Path, add: Add) -> pd.DataFrame:
    for (method, distortion), errors in ERRORS.items():
        for seed, error in enumerate(errors):
            add(make(method, distortion, seed), error_best_val=error, seconds=3600.0)
    return named(load_results(root).frame)


def test_the_sentence_on_finished_runs(runs: pd.DataFrame) -> None:
    assert (
        what_was_run(runs) == "21 runs done: 1 dataset, 3 distortions, 3 methods and 3 seeds; 21.0 hours of training."
    )
    assert what_was_run(runs[:0]) == "No run is done yet."
    assert what_is_missing(runs) is None


def test_findings_on_the_most_distorted_data(runs: pd.DataFrame) -> None:
    often, most = what_was_found(runs, "error_best_val", "test error")
    # 10-0.0 has one method and so is no comparison.
    assert often == (
        "baseline and autodo-exact-ws have the lowest mean test error in 1 of 2 comparisons each "
        "(dataset and distortion)."
    )
    ours, theirs = (100 * np.array(ERRORS[name, "10-0.1"]) for name in ("autodo-exact-ws", "baseline"))
    p = scipy.stats.ttest_rel(ours, theirs).pvalue
    assert most.startswith(
        "At 10-0.1 of digits (small-cnn, 40 epochs), the most distorted data compared, autodo-exact-ws"
    )
    assert (
        "21.00% against 31.00% of baseline: −10.00 ± 1.00 points over 3 common seeds, "
        f"paired t-test p = {p:.2g}. The mean difference over many seeds is estimated to lie between −11.00 and −9.00 "
        "points; of 100 such estimates from 3 seeds about 72 are right."
    ) in most
    assert "cannot go under p = 0.25" in most


def test_seeds_that_a_method_lacks_are_not_compared(root: Path, add: Add, runs: pd.DataFrame) -> None:
    (root / "results" / f"{make('baseline', '10-0.1', 2).run_id}.parquet").unlink()
    asked = named(load_results(root).frame, rows(make("baseline", "10-0.1", seed) for seed in range(3)))
    assert what_is_missing(asked) == "1 of 3 expected runs has no result: baseline at 10-0.1 (1 of 3)."
    often, most = what_was_found(asked, "error_best_val", "test error")
    assert often.startswith("So far, over the seeds that all methods of a cell have: baseline and autodo-exact-ws have")
    assert "21.50% against 31.00% of baseline: −9.50 ± 0.71 points over 2 common seeds" in most


def test_one_seed_has_no_spread(root: Path, add: Add) -> None:
    for method, error in (("baseline", 0.2), ("autodo-aws", 0.1)):
        add(make(method, "10-0.1"), error_best_val=error)
    often, most = what_was_found(named(load_results(root).frame), "error_best_val", "test error")
    assert often == "autodo-aws has the lowest mean test error of 2 methods."
    assert most.endswith("10.00% against 20.00% of baseline; one seed does not show the spread.")


def test_many_holes_are_counted(root: Path) -> None:
    runs = [make("baseline", f"{ratio}-0.1", 0) for ratio in range(1, 10)]
    asked = named(load_results(root).frame, rows(runs))
    told = what_is_missing(asked)
    assert told is not None
    assert told.startswith("9 of 9 expected runs have no result: baseline at 1-0.1 (1 of 1), ")
    assert told.endswith(" and 4 more cells.")


def found(root: Path, add: Add, errors: dict[str, dict[str, float]], **options: Any) -> list[str]:
    """Findings for runs of seed 0, given the error of each method by distortion."""
    for distortion, of_methods in errors.items():
        for method, error in of_methods.items():
            add(make(method, distortion, **options), error_best_val=error)
    return list(what_was_found(named(load_results(root).frame), "error_best_val", "test error"))


def test_a_shared_win_is_not_counted_for_one_method(root: Path, add: Add) -> None:
    tie = {"baseline": 0.0, "autodo-a": 0.0, "autodo-aw": 0.0, "autodo-aws": 0.0}
    errors = {
        "1-0.0": tie,
        "10-0.0": tie | {"autodo-aws": 0.3},
        "10-0.1": tie | {"autodo-aws": -0.0, "autodo-a": 0.3, "autodo-aw": 0.3, "baseline": 0.3},
        "100-0.1": tie | {"autodo-a": 0.1, "autodo-aw": 0.2, "autodo-aws": 0.3},
    }
    often = found(root, add, errors)[0]
    assert often == (
        "autodo-aws and baseline have alone the lowest mean test error in 1 of 4 comparisons each (dataset and "
        "distortion); in 2 several methods share it: baseline in 2, autodo-a in 2, autodo-aw in 2 and autodo-aws in 1."
    )


def test_only_shared_wins(root: Path, add: Add) -> None:
    tie = {"baseline": 0.1, "autodo-aws": 0.1, "autodo-a": 0.2}
    often, most = found(root, add, {"10-0.1": tie})
    assert often == "baseline and autodo-aws share the lowest mean test error of 3 methods."
    assert "baseline and autodo-aws share the lowest test error: 10.00% against 20.00% of autodo-a." in most
    often, most = found(root, add, {"100-0.1": dict.fromkeys(tie, 0.1)})
    assert often == (
        "In each of 2 comparisons (dataset and distortion) several methods share the lowest mean test error: "
        "baseline in 2, autodo-aws in 2 and autodo-a in 1."
    )
    assert most.endswith("the most distorted data compared, all methods have a test error of 10.00%.")


def test_undistorted_data_are_not_called_most_distorted(root: Path, add: Add) -> None:
    _, only = found(root, add, {"1-0.0": {"baseline": 0.2, "autodo-aws": 0.1}})
    assert only.startswith("At 1-0.0 of digits (small-cnn, 40 epochs), autodo-aws has a test error of 10.00% against")
    # Two undistorted comparisons: none is singled out.
    other = {"overrides": {"training.epochs": 20}}
    assert len(found(root, add, {"1-0.0": {"baseline": 0.2, "autodo-aws": 0.1}}, **other)) == 1


def test_own_images_are_not_called_distorted(root: Path, add: Add) -> None:
    for method, error in (("baseline", 0.2), ("autodo-aws", 0.1)):
        for distortion in ("1-0.0", "10-0.1"):
            run = make(method, distortion)
            own = run.dataset.model_copy(update={"name": "folder", "path": "/home/me/own"})
            run = run.model_copy(update={"dataset": own})
            add(run, error_best_val=error)
    (often,) = what_was_found(named(load_results(root).frame), "error_best_val", "test error")
    assert often == "autodo-aws has the lowest mean test error in 2 of 2 comparisons (dataset and distortion)."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "1 second"), (59, "59 seconds"), (61, "1 minute"), (125, "2 minutes"), (7200, "2.0 hours")],
)
def test_times_in_words(root: Path, add: Add, seconds: float, words: str) -> None:
    add(make(), error_best_val=0.1, seconds=seconds)
    assert what_was_run(named(load_results(root).frame)).endswith(f"; {words} of training.")
