from typing import Any

import numpy as np
import pandas as pd
import pytest

from reports.analysis.curves import COLUMNS, learning_curves
from reports.document import Curve, Panel

Rows = list[dict[str, Any]]


def runs(*rows: tuple[str, str, str]) -> pd.DataFrame:
    """Runs of a group by (run id, distortion, name)."""
    return pd.DataFrame([{"run_id": r, "group": "g", "distortion": d, "name": n} for r, d, n in rows])


def epoch(run_id: str, number: int, value: float | None, outer: bool | None = False) -> dict[str, Any]:
    return {
        **{"run_id": run_id, "epoch": number, "outer_phase": outer},
        **{"test_error": value, "test_loss": value, "train_loss": value},
    }


def frame(rows: Rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS))


def only(panels: list[Panel], quantity: str = "test loss") -> Curve:
    (panel,) = [panel for panel in panels if panel.quantity == quantity]
    (curve,) = panel.curves
    return curve


def test_curves_agree_with_a_groupby_of_merged_rows() -> None:
    generator = np.random.default_rng(0)
    known = runs(*((f"{d}{n}{s}", d, n) for d in ("1-0.0", "100-0.1") for n in "abc" for s in range(4)))
    rows = [
        epoch(run_id, number, generator.random() if generator.random() < 0.9 else None, number >= 5)
        for run_id in [*known["run_id"], "stranger"]
        for number in range(generator.integers(8, 13))
        if generator.random() < 0.9
    ]
    epochs = frame(rows).sample(frac=1, random_state=0)
    panels = learning_curves(known, epochs)
    assert [(panel.group, panel.quantity, panel.unit) for panel in panels] == [
        (f"g, {d}", *quantity)
        for d in ("1-0.0", "100-0.1")
        for quantity in (("test accuracy", "%"), ("test loss", ""), ("train loss", ""))
    ]
    assert len({panel.key for panel in panels}) == 6
    merged = epochs.merge(known).astype({"test_error": float})
    merged["test accuracy"] = 100 - 100 * merged["test_error"]
    merged["test loss"] = merged["train loss"] = merged["test_error"]
    for panel in panels:
        assert [curve.name for curve in panel.curves] == ["a", "b", "c"]
        for curve in panel.curves:
            mine = merged[(merged["distortion"] == panel.group.removeprefix("g, ")) & (merged["name"] == curve.name)]
            wanted = mine.groupby("epoch")[panel.quantity].agg(["mean", "std", "count"])
            wanted = wanted[wanted["count"] > 0]
            assert curve.epoch.tolist() == wanted.index.tolist()
            np.testing.assert_allclose(curve.mean, wanted["mean"])
            np.testing.assert_allclose(curve.std, wanted["std"], atol=1e-12)
            assert curve.n == wanted["count"].max()
            assert curve.outer_start == mine.loc[mine["outer_phase"].astype(bool), "epoch"].min()


def test_one_seed_has_no_deviation() -> None:
    curve = only(learning_curves(runs(("r", "d", "a")), frame([epoch("r", 0, 0.5), epoch("r", 1, 0.25)])))
    assert (curve.mean.tolist(), curve.n, curve.outer_start) == ([0.5, 0.25], 1, None)
    assert np.isnan(curve.std).all()


def test_values_that_are_not_finite_are_left_out() -> None:
    rows = [epoch("r", 0, 0.5), epoch("r", 1, float("nan")), epoch("s", 0, 0.25), epoch("s", 1, 0.125)]
    rows += [epoch("r", 2, float("inf")), epoch("s", 2, None)]
    curve = only(learning_curves(runs(("r", "d", "a"), ("s", "d", "a")), frame(rows)))
    assert (curve.epoch.tolist(), curve.mean.tolist(), curve.n) == ([0, 1], [0.375, 0.125], 2)


def test_a_small_deviation_beside_a_large_mean_keeps_its_digits() -> None:
    rows = [epoch("r", 0, 1e8), epoch("s", 0, 1e8 + 0.001)]
    curve = only(learning_curves(runs(("r", "d", "a"), ("s", "d", "a")), frame(rows)))
    assert curve.std[0] == pytest.approx(0.001 / 2**0.5, rel=1e-4)


def test_unknown_outer_phases_and_null_columns_are_ignored() -> None:
    rows = [{**epoch("r", 0, 0.5, None), "train_loss": None}]
    panels = learning_curves(runs(("r", "d", "a")), frame(rows))
    assert [panel.quantity for panel in panels] == ["test accuracy", "test loss"]
    assert only(panels).outer_start is None


def test_no_epochs_make_no_panel() -> None:
    assert learning_curves(runs(("r", "d", "a")), frame([])) == []
    assert learning_curves(runs(("r", "d", "a")), frame([epoch("other", 0, 0.5)])) == []
    nobody = pd.DataFrame(columns=["run_id", "group", "distortion", "name"])
    assert learning_curves(nobody, frame([epoch("r", 0, 0.5)])) == []
