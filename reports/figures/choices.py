"""Selection of the cells and methods of a large grid that are drawn."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from reports.figures.palette import is_baseline

AT_MOST = 6
"""Methods in a figure, unless there are more families that learn augmentation."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """The methods of one cell that are drawn.

    Args:
        runs: rows of the frame of `named` with a result, of these methods in this cell.
        methods: names, the baseline first, then the others from low error to high.
        remark: sentences for a caption on what is left out; empty, or begins with a space.
    """

    group: str
    distortion: str
    methods: tuple[str, ...]
    runs: pd.DataFrame
    remark: str = ""

    @property
    def title(self) -> str:
        """Group and distortion, as `Panel.group`."""
        return f"{self.group}, {self.distortion}"

    def of(self, method: str) -> pd.DataFrame:
        """The runs of one method, by seed."""
        return self.runs[self.runs["name"] == method].sort_values("seed")


def choose(runs: pd.DataFrame) -> list[Choice]:
    """The most distorted cell of each group (highest imbalance, then most noise), preferably one with two methods.

    Draws the baseline and the best method of each family, AutoDO's first. A family is the first word of a name;
    methods that learn augmentation are a family of their own, and so is each variant of a grid.

    Args:
        runs: the frame of `named`; runs without a result are ignored.
    """
    done = runs[runs["error_best_val"].notna()]
    choices = []
    for group, of_group in done.groupby("group", sort=False):
        size = of_group.groupby(["imbalance_ratio", "noise_ratio", "distortion"])["name"].nunique()
        most = max(size[size >= min(2, size.max())].index)
        cell = of_group[of_group["distortion"] == most[2]]
        error = cell.groupby("name")["error_best_val"].mean().sort_values(kind="stable")
        variants = dict(zip(cell["name"], cell["variant"], strict=True))
        families = {str(name): _family(str(name), config, variants[name]) for name, config in _configs(cell).items()}
        chosen = _best_of_families(error, families)
        remark = _remark(of_group["distortion"].nunique(), most != max(size.index), len(error) - len(chosen))
        kept = cell[cell["name"].isin(chosen)]
        choices.append(Choice(str(group), str(most[2]), tuple(chosen), kept, remark))
    return choices


def _best_of_families(error: "pd.Series[float]", families: Mapping[str, str]) -> list[str]:
    """The best name of each family in order of error, the baseline first; AutoDO's and the best are kept."""
    baselines = [str(name) for name in error.index if is_baseline(str(name))][:1]
    best: dict[str, str] = {}
    for name in map(str, error.index):
        if not is_baseline(name):
            best.setdefault(families[name], name)
    own = [name for family, name in best.items() if family.startswith("autodo")]
    others = [name for name in best.values() if name not in own]
    kept = {*own, *others[: max(0, AT_MOST - len(baselines) - len(own))]}
    return [*baselines, *(name for name in best.values() if name in kept)]


def _configs(runs: pd.DataFrame) -> dict[str, Mapping[str, Any]]:
    """The configuration of one run of each name."""
    first = runs.drop_duplicates("name")
    return {str(name): json.loads(config) for name, config in zip(first["name"], first["config"], strict=True)}


def _family(name: str, config: Mapping[str, Any], variant: str) -> str:
    """The first word of a name; methods that learn augmentation are a family, since only they have such figures."""
    learned = (config.get("points") or {}).get("learn") or ()
    return re.split(r"[-,( ]", name, maxsplit=1)[0] + (" augment" if "augment" in learned else "") + f" {variant}"


def _remark(cells: int, further: bool, left_out: int) -> str:
    words = []
    if cells > 1:
        of = f"cell with two methods, of {cells} cells," if further else f"of {cells} cells"
        words.append(f" Only the most distorted {of} is drawn.")
    if left_out:
        methods = "method is" if left_out == 1 else "methods are"
        words.append(
            f" Of each family of methods only the best by test error is drawn; {left_out} other {methods} not."
        )
    return "".join(words)
