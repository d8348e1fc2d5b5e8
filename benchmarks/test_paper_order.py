"""The order of the paper, on errors whose order is known."""

import pandas as pd

from benchmarks.paper_order import Errors, order_table, steps, table

# Errors in % with three seeds; that of the whole method was not measured with the last one.
FOUND = {
    "baseline": (20.0, 21.0, 22.0),
    "randaugment": (18.1, 21.0, 24.1),
    "autodo-a": (19.0, 20.1, 20.9),
    "autodo-aws": (19.3, 20.6),
}


def test_differences_are_paired_by_seed() -> None:
    rows = [
        {"method": method, "imbalance_ratio": 10.0, "noise_ratio": 0.1, "seed": seed, "error_best_val": error / 100}
        for method, errors in FOUND.items()
        for seed, error in enumerate(errors)
    ]
    errors = Errors(pd.DataFrame(rows[::-1]))
    assert [str(step) for step in steps(errors.methods)] == [
        "baseline → autodo-a",
        "autodo-a → autodo-aws",
        "baseline → autodo-aws",
        "randaugment → autodo-aws",
    ]
    assert list(table(errors))[2:5] == [
        "| baseline | 21.0 ± 1.0 |",
        "| randaugment | 21.1 ± 3.0 |",
        "| autodo-a | 20.0 ± 1.0 |",
    ]
    first, second, _, fourth = list(order_table(errors))[2:]
    assert first == "| baseline → autodo-a | -1.0 ± 0.1 holds | 1 | 0 |"
    assert second == "| autodo-a → autodo-aws | +0.4 ± 0.1 | 0 | 0 |"
    assert fourth == "| randaugment → autodo-aws | +0.4 ± 0.8 | 0 | 0 |"
