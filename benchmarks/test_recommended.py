"""The judgement of the recommended method, on errors whose verdict is known."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from benchmarks.recommended import OURS, SOLVED, TRAINED, Entry, Errors, read_costs, targets

PLAIN, RIVAL = "solved-head", "dfr+ldam-drw"
CELLS = {  # errors with a solved head in %: plain, the rival, autodo; those with a trained head are 2 higher
    "10-0.0": (13.0, 12.0, 12.1),
    "10-0.1": (16.0, 14.0, 12.8),
    "10-0.4": (20.0, 16.0, 14.8),
    "10-pair0.4": (22.0, 17.0, 16.5),
}
NOISE = np.array([0.1, -0.1, 0.2, -0.2, 0.0])


def runs(cells: dict[str, tuple[float, float, float]]) -> pd.DataFrame:
    rows = []
    for distortion, errors in cells.items():
        for method, error in zip((PLAIN, RIVAL, OURS), errors, strict=True):
            for seed, noise in enumerate(NOISE):
                run = build_run("digits", method, distortion=DistortionConfig.parse(distortion), seed=seed)
                rows.append(
                    {
                        "method": method,
                        "seed": seed,
                        "error_best_val": (error + noise * (1 + (method == OURS))) / 100,
                        "error_last": (error + 2) / 100,
                        "config": run.model_dump_json(),
                    }
                )
    return pd.DataFrame(rows)


def judged(cells: dict[str, tuple[float, float, float]]) -> list[tuple[str, bool]]:
    found = targets(Errors(runs(cells)), Entry(RIVAL, SOLVED), Entry(RIVAL, TRAINED), {OURS: 1.4})
    return [(target.measured, target.met) for target in found]


def test_each_target_follows_from_the_errors() -> None:
    *found, against_all, against_lowest = judged(CELLS)
    assert found == [
        ("+0.10, standard error 0.07", False),  # 10-0.0
        ("60%", True),  # 10-0.1: 1.2 of the 2.0 to the oracle
        ("-1.20, p = 0.000", True),
        ("17.8%", True),  # 10-0.4: 14.8 is that much below 18, and 7.5% below 16
        ("7.5%", True),
        ("-1.20, p = 0.000", True),
        ("10%", False),  # 10-pair0.4: 0.5 of 5.0
        ("-0.50, p = 0.002", True),
        ("26%", False),  # 2.9 of 11.0
        ("1.40", True),  # times the time
    ]
    mean = math.exp(np.mean([np.log(ours / rival) for _, rival, ours in CELLS.values()])) - 1
    assert against_all[0].startswith(f"closest {RIVAL}, solved head: {100 * mean:+.1f}%; largest p = ")
    assert against_lowest[0].startswith(f"{100 * mean:+.1f}%, p = ")
    assert against_all[1]
    assert against_lowest[1]


def test_the_lowest_rival_of_each_cell_is_harder_to_beat_than_every_rival() -> None:
    *_, against_all, against_lowest = judged({"10-0.1": (12.0, 16.0, 13.0), "10-0.4": (20.0, 14.0, 14.5)})
    assert (against_all[1], against_lowest[1]) == (True, False)


def test_without_a_gap_to_the_oracle_the_rival_must_still_be_reached() -> None:
    assert ("no gap; +0.50", False) in judged({"10-0.0": (14.0, 14.0, 14.0), "10-0.1": (15.0, 13.0, 13.5)})


def test_errors_on_unused_images_are_of_solved_heads_only() -> None:
    rows = runs(CELLS).assign(error_unused=0.1)
    errors = Errors(rows, "error_unused")
    assert [entry.head for entry in errors.entries] == [SOLVED] * 3
    assert errors.of("10-0.4", Entry(OURS, SOLVED)) == pytest.approx([10.0] * 5)


def test_costs_are_those_of_plain_training_on_the_same_images(tmp_path: Path) -> None:
    (tmp_path / "costs.csv").write_text("method,cost\nbaseline,1.25\nldam-drw+dfr,1.5\n")
    assert read_costs(tmp_path / "costs.csv")[RIVAL] == pytest.approx(1.2)


def test_runs_that_others_have_must_not_be_missing() -> None:
    whole = runs(CELLS)
    with pytest.raises(SystemExit, match=r"autodo at 10-pair0.4 has seeds \[0, 1, 2, 3\], others have"):
        Errors(whole.drop(whole.index[-1]))
    with pytest.raises(SystemExit, match=r"no runs of autodo, solved head at 10-pair0.4"):
        Errors(whole[(whole["method"] != OURS) | ~whole["config"].str.contains("pair")])


def test_the_oracle_has_the_same_imbalance_and_true_labels() -> None:
    errors = Errors(runs(CELLS))
    assert errors.oracle("10-0.4") == pytest.approx(12.0)
    without = Errors(runs({name: values for name, values in CELLS.items() if name != "10-0.0"}))
    assert math.isnan(without.oracle("10-0.4"))
    asked = [target.asks for target in targets(without, Entry(RIVAL, SOLVED), Entry(RIVAL, TRAINED), {})]
    assert len(asked) == 7  # three at 10-0.4, one at each of the others, the two tests
    assert not any("oracle" in text for text in asked)
