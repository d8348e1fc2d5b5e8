"""The judgement of the recommended method, on errors whose verdict is known."""

import math

import numpy as np
import pandas as pd
import pytest

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from benchmarks.recommended import OURS, PLAIN, SOLVED, TRAINED, Entry, Errors, targets

RIVAL = "ldam-drw+dfr"
CELLS = {  # errors with a solved head in %: plain, the rival, autodo
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
                        "seconds": {PLAIN: 10.0, RIVAL: 11.0, OURS: 14.0}[method],
                        "config": run.model_dump_json(),
                    }
                )
    return pd.DataFrame(rows)


def test_each_target_follows_from_the_errors() -> None:
    errors = Errors(runs(CELLS))
    assert errors.cells == ["10-0.0", "10-0.1", "10-0.4", "10-pair0.4"]
    found = list(targets(errors, Entry(RIVAL, SOLVED), Entry(RIVAL, TRAINED)))
    assert [(target.measured, target.met) for target in found[:-1]] == [
        ("+0.10, standard error 0.07", False),  # 10-0.0
        ("60%", True),  # 10-0.1: 1.2 of the 2.0 to the oracle
        ("-1.20, p = 0.000", True),
        ("17.8%", True),  # 10-0.4: 14.8 is that much below 18, and 7.5% below 16
        ("7.5%", True),
        ("10%", False),  # 10-pair0.4: 0.5 of 5.0
        ("-0.50, p = 0.002", True),
        ("26%", False),  # 2.9 of 11.0
        ("1.40", True),  # times the time
    ]
    mean = math.exp(np.mean([np.log(ours / rival) for _, rival, ours in CELLS.values()])) - 1
    assert found[-1].measured.startswith(f"{100 * mean:+.1f}%, p = ")
    assert found[-1].met


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
    asked = [target.asks for target in targets(without, Entry(RIVAL, SOLVED), Entry(RIVAL, TRAINED))]
    assert len(asked) == 6  # two at 10-0.4, one at each of the others, cost and the test
    assert not any("oracle" in text or "gaps" in text for text in asked)
