"""Cost of a run relative to the baseline of the same launch, and the conditions of the measurement."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from autodo.text import count_of
from reports.analysis.comparison import BASELINE, name_with_split

_LAUNCHES = 3  # launches with a note each; more share one note
_MEASURED = ["launch_id", "device", "split"]
_SHARED = "Runs at the same time share cores, memory and caches, so that each takes longer than alone."


def relative_costs(runs: pd.DataFrame) -> "pd.Series[float]":
    """Seconds of each run over the mean of the baseline's runs in the same launch and split on the same device.

    Devices with different numbers of threads are different. Each split has its own baseline, because the union split
    trains on more images. NaN for a run that was resumed from a checkpoint, belongs to no launch, or has no such
    baseline.

    Args:
        runs: of one cell, from `comparison.named`.
    Shape:
        -> [R].
    """
    seconds = runs["seconds"].astype(float).where(_alike(runs))
    of_split = [name_with_split(BASELINE, split) for split in runs["split"]]
    baselines = seconds[runs["name"] == of_split]
    means = baselines.groupby([runs.loc[baselines.index, key] for key in _MEASURED]).mean()
    places = zip(*(runs[key] for key in _MEASURED), strict=True)
    of_baseline = pd.Series([means.get(place, float("nan")) for place in places], index=runs.index, dtype=float)
    return seconds / of_baseline.where(of_baseline > 0)


def _alike(runs: pd.DataFrame) -> "pd.Series[bool]":
    """Whether a run was measured by a single attempt within a launch."""
    return runs["launch_id"].notna() & ~runs["resumed"].eq(True)


def outer_pass_in_passes(config: Mapping[str, Any], train_points: float, val_points: float) -> float:
    """Forward and backward passes of an outer pass through the network, over the N points of the inner problem.

    Each counts as 1, so that an epoch of training takes 2. A pass goes backward only if it learns augmentation. With
    `val_gradient: full` it needs the features of the Hessian's points before. NaN for a method without outer passes.

    Args:
        config: of a run.
        train_points, val_points: number of points of its train and val sets.
    """
    outer, points = config.get("outer"), config.get("points")
    if not outer or not points:
        return float("nan")
    if "augment" not in points["learn"]:
        return 1.0
    if outer.get("val_gradient") != "full":
        return 2.0
    inner = train_points + (val_points if config.get("split") == "union" else 0)
    sample = outer.get("hessian_points") or inner
    learnable = inner if points.get("shared") else train_points
    return min(sample, inner) / inner + 2 * learnable / inner


def paper_outer_pass_in_passes(config: Mapping[str, Any]) -> float | None:
    """The paper's count of the same, 5 + T; None if the run has another algorithm or solver.

    Reference: section 4.3. T is the number of terms of the Neumann series, 0 for the identity.
    """
    outer = config.get("outer") or {}
    if outer.get("val_gradient") != "batch" or outer.get("every", 1) != 1:
        return None
    terms = {"identity": 0, "neumann": outer.get("iterations")}.get(str(outer.get("solver")))
    return None if terms is None else 5.0 + terms


def paper_cost_in_passes(config: Mapping[str, Any]) -> float | None:
    """The paper's cost of a run over that of its inner loops, 1 + (1 - E) (5 + T) / 2, where E is a share of epochs."""
    passes = paper_outer_pass_in_passes(config)
    return None if passes is None else 1 + (1 - config["outer"]["start_share"]) * passes / 2


def condition_notes(runs: pd.DataFrame) -> list[str]:
    """Notes on what ran beside the runs of a cell, and on runs without a relative cost.

    Args:
        runs: of one cell, from `comparison.named`.
    """
    done = runs[runs["error_best_val"].notna()]
    return [*_launch_notes(done), *_left_out(done)]


def _launch_notes(done: pd.DataFrame) -> Iterable[str]:
    launches = [of_launch for _, of_launch in done[done["launch_id"].notna()].groupby("launch_id", sort=False)]
    if len(launches) > _LAUNCHES:
        yield f"Measured in {len(launches)} launches: {_conditions(pd.concat(launches))}."
    else:
        for number, of_launch in enumerate(launches, 1):
            which = "one launch" if len(launches) == 1 else f"launch {number} ({count_of(len(of_launch), 'run')})"
            yield f"Measured in {which}: {_conditions(of_launch)}."
    if (done["slots"] > 1).any() or (done["load_average"] > done["host_cpus"]).any():
        yield _SHARED


def _conditions(runs: pd.DataFrame) -> str:
    """Such as `up to 4 runs at a time on a host of 8 CPU cores; load average 0.5 to 3.9 when they began`."""
    slots, cpus, load = (runs[name].dropna().tolist() for name in ("slots", "host_cpus", "load_average"))
    at_a_time = _span(slots, 0)
    words = f"up to {at_a_time} run{'' if at_a_time == '1' else 's'} at a time"
    hosts = runs["host"].nunique()
    if cpus:
        on = "a host" if hosts == 1 else f"{hosts} hosts"
        words += f" on {on} of {_span(cpus, 0)} CPU core{'' if set(cpus) == {1} else 's'}"
    if load:
        words += f"; load average {_span(load, 1)} when they began"
    return words


def _span(values: Sequence[float], digits: int) -> str:
    """`2`, or `2 to 8`."""
    ends = dict.fromkeys(f"{end:.{digits}f}" for end in (min(values), max(values))) if values else ["unknown"]
    return " to ".join(ends)


def _left_out(done: pd.DataFrame) -> Iterable[str]:
    alone = done["launch_id"].isna()
    resumed = done["resumed"].eq(True) & ~alone
    rest = _alike(done) & relative_costs(done).isna()
    reasons = {
        "outside of a launch": alone,
        "resumed from a checkpoint, so that the time is of several attempts": resumed,
        "of a launch without the baseline in the same split on the same device": rest,
    }
    words = [f"{count_of(int(which.sum()), 'run')} {why}" for why, which in reasons.items() if which.any()]
    if words:
        yield f"Left out of the cost, because no baseline is comparable: {'; '.join(words)}."
