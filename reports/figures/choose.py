"""Which cells and methods of a large grid are drawn."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reports.figures.palette import is_baseline

AT_MOST = 6


@dataclasses.dataclass(frozen=True)
class Choice:
    """Some methods of one cell.

    Args:
        runs: rows of the frame of `named` that have a result, of these methods in this cell.
        methods: names, baselines first, then the others from low error to high.
        remark: sentences for a caption that say what else there is; begins with a space if there are any.
    """

    group: str
    distortion: str
    methods: tuple[str, ...]
    runs: pd.DataFrame
    remark: str = ""

    @property
    def title(self) -> str:
        """Where it is, as panels have it."""
        return f"{self.group}, {self.distortion}"

    def of(self, method: str) -> pd.DataFrame:
        """Runs of one method, by seed."""
        return self.runs[self.runs["name"] == method].sort_values("seed")


def choose(runs: pd.DataFrame, methods: Sequence[str] | None = None, at_most: int = AT_MOST) -> list[Choice]:
    """Of each group its most distorted cell: the highest imbalance, then the most noise.

    Where only one method has come that far, the most distorted cell of those with two stands for it.

    Args:
        runs: the frame of `named`; runs without a result count for nothing.
        methods: names of those to draw; if None, the baseline, and of every family the method of lowest mean error,
            AutoDO's first. A family is the first word of a name; what learns augmentation is one of its own.
        at_most: how many methods are drawn where none are named.
    """
    done = runs[runs["error_best_val"].notna()]
    choices = []
    for group, of_group in done.groupby("group", sort=False):
        wanted = of_group if methods is None else of_group[of_group["name"].isin(list(methods))]
        if wanted.empty:
            continue
        size = wanted.groupby(["imbalance_ratio", "noise_ratio", "distortion"])["name"].nunique()
        most = max(size[size >= min(2, size.max())].index)
        cell = wanted[wanted["distortion"] == most[2]]
        error = cell.groupby("name")["error_best_val"].mean().sort_values(kind="stable")
        families = {str(name): _family(str(name), config) for name, config in _configs(cell).items()}
        chosen = _best_of_families(error, families, at_most) if methods is None else list(methods)
        chosen = [name for name in chosen if name in error.index]
        cells = of_group["distortion"].nunique()
        further = most != max(size.index)
        remark = _remark(cells, further, len(error) - len(chosen), methods is None)
        kept = cell[cell["name"].isin(chosen)]
        choices.append(Choice(str(group), str(cell["distortion"].iloc[0]), tuple(chosen), kept, remark))
    return choices


def _best_of_families(error: "pd.Series[float]", families: Mapping[str, str], at_most: int) -> list[str]:
    """Names in order of error, the baselines first. If they are too many, AutoDO and the best are kept."""
    baselines = [str(name) for name in error.index if is_baseline(str(name))][:1]
    best: dict[str, str] = {}
    for name in map(str, error.index):
        if not is_baseline(name):
            best.setdefault(families[name], name)
    own = [name for family, name in best.items() if family.startswith("autodo")]
    others = [name for name in best.values() if name not in own]
    kept = {*own, *others[: max(0, at_most - len(baselines) - len(own))]}
    return [*baselines, *(name for name in best.values() if name in kept)]


def _configs(runs: pd.DataFrame) -> dict[str, Mapping[str, Any]]:
    """The configuration of one run of each name."""
    first = runs.drop_duplicates("name")
    return {str(name): json.loads(config) for name, config in zip(first["name"], first["config"], strict=True)}


def _family(name: str, config: Mapping[str, Any]) -> str:
    """The first word of a name; methods that learn augmentation are a family of their own, since they alone show it."""
    learned = (config.get("points") or {}).get("learn") or ()
    return re.split(r"[-,( ]", name, maxsplit=1)[0] + (" augment" if "augment" in learned else "")


def _remark(cells: int, further: bool, left_out: int, by_family: bool) -> str:
    words = []
    if cells > 1:
        of = "that two methods have reached, of" if further else "of"
        words.append(f" Drawn is the most distorted {of} {cells} cells.")
    if left_out and by_family:
        methods = "method is" if left_out == 1 else "methods are"
        words.append(f" Of each family of methods the best by test error is drawn; {left_out} other {methods} not.")
    return "".join(words)
