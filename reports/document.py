"""A report as a value: what stands in it, with no word on how it looks. Rendering comes last, one format a file."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the paper states for the same dataset, model and protocol, in the cell's unit."""

    mean: float
    std: float | None = None


@dataclasses.dataclass(frozen=True)
class Cell:
    """One figure over seeds, in the unit of its column.

    Args:
        mean: None if there is no result.
        std: sample standard deviation; None under two results.
        n: how many seeds there are; expected: how many there should be, None if nobody knows.
        best: whether no complete cell of the column is better, and one is worse.
        tied: not the best, but a paired test does not tell it from the best.
        interval: confidence interval of the mean, where it is asked for: it is then shown and not the std.
    """

    mean: float | None
    std: float | None = None
    n: int = 0
    expected: int | None = None
    best: bool = False
    tied: bool = False
    paper: Reference | None = None
    interval: tuple[float, float] | None = None

    @property
    def complete(self) -> bool:
        """Whether every seed that should be there is."""
        return self.n > 0 and (self.expected is None or self.n >= self.expected)

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.mean is None or self.paper is None else self.mean - self.paper.mean


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        unit: of its figures, such as `%`, `h`, `GiB`; said once, in the head.
        better: which end is the good one; None where there is none.
        smallest: a positive figure; what is less is shown as less than it, such as a p of 0.0002 as `<0.001`.
    """

    name: str
    unit: str = ""
    digits: int = 2
    better: Literal["lower", "higher"] | None = None
    smallest: float | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: its name, such as a method's, and one cell per column.

    Args:
        name: as it is shown.
        part: which of a method's several rows it is, such as `low weight`; the name is then `METHOD: PART`.
    """

    name: str
    cells: tuple[Cell, ...]
    part: str = ""

    def __post_init__(self) -> None:
        assert not self.part or self.name.endswith(f": {self.part}"), (self.name, self.part)

    @property
    def whole(self) -> str:
        """The name without the part."""
        return self.name.removesuffix(f": {self.part}") if self.part else self.name


@dataclasses.dataclass(frozen=True)
class Table:
    """Figures over seeds.

    Args:
        key: unique in a report, `[a-z0-9-]+`: the anchor in the page, the name of its files.
        title: what is compared where, such as `svhn (wrn-28-10, 200 epochs)`.
        caption: what the figures are; a phrase without full stop.
        heading: over the names of the rows, such as `method`.
        notes: sentences for under the table.
        group: as `reports.analysis.comparison.named` gives it; empty if the table is of several, or of none.
        distortion: IR-NR of all of it; empty if its columns are distortions, or it is of several.
    """

    key: str
    title: str
    caption: str
    heading: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    group: str = ""
    distortion: str = ""

    @functools.cached_property  # every cell's text asks for it
    def common_n(self) -> int | None:
        """The n of every complete cell, if they agree: it is then said once."""
        ns = {cell.n for row in self.rows for cell in row.cells if cell.complete}
        return ns.pop() if len(ns) == 1 else None

    @property
    def holes(self) -> bool:
        """Whether a result is missing."""
        return any(not cell.complete for row in self.rows for cell in row.cells)


@dataclasses.dataclass(frozen=True)
class Curve:
    """One method's course over the epochs, over seeds.

    Args:
        n: the most seeds of an epoch.
        outer_start: the first epoch that ends with an outer pass; None if none does.
    Shape:
        epoch [E] int64; mean [E]; std [E], NaN where there is one seed only.
    """

    name: str
    epoch: NDArray[np.int64]
    mean: Floats
    std: Floats
    n: int
    outer_start: int | None = None


@dataclasses.dataclass(frozen=True)
class Panel:
    """The curves of all methods that can be compared, of one quantity.

    Args:
        key: unique in a report, `[a-z0-9-]+`.
        group: what is the same for all, such as `svhn (wrn-28-10, 200 epochs), 100-0.1`; a group's panels belong
            together.
        quantity: such as `test accuracy`; unit: such as `%`, or nothing.
    """

    key: str
    group: str
    quantity: str
    unit: str
    curves: tuple[Curve, ...]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture that is drawn when a format needs it.

    Args:
        key: unique in a report, `[a-z0-9-]+`: the name of its files.
        caption: what is to be seen, for those too who cannot see it.
    """

    key: str
    caption: str
    draw: Callable[[], "MatplotlibFigure"]


@dataclasses.dataclass(frozen=True)
class Suspect:
    """A train point whose label is probably wrong.

    Args:
        given, proposed: names of classes.
        score: the higher, the more probably wrong; comparable within a run only.
        wrong: whether the label was changed on purpose; None where nobody knows.
        image: PNG; None if the store holds none.
    """

    index: int
    source: str | None
    given: str
    proposed: str
    score: float
    weight: float | None
    loss: float | None
    wrong: bool | None = None
    image: bytes | None = None


@dataclasses.dataclass(frozen=True)
class Gallery:
    """The most suspicious train points of a run, the worst first."""

    key: str
    title: str
    caption: str
    suspects: tuple[Suspect, ...]


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report under one heading; paragraphs are plain text, and stand above all else."""

    key: str
    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    panels: tuple[Panel, ...] = ()
    figures: tuple[Figure, ...] = ()
    galleries: tuple[Gallery, ...] = ()


@dataclasses.dataclass(frozen=True)
class Report:
    """All of it, in the order in which it is read.

    Args:
        title: such as the names of the store's grids.
        summary: what was run, what is missing, and what was found: a sentence each.
        sections: tables and figures.
        warnings: files that could not be used, and other reasons for care.
        provenance: (what, value), such as ("PyTorch", "2.11.0").
        grids: (name, YAML) of the grids that were launched.
        methods: names of all methods, by which a method has one colour in curves and figures.
    """

    title: str
    summary: tuple[str, ...]
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()
    grids: tuple[tuple[str, str], ...] = ()
    methods: tuple[str, ...] = ()
