"""A report as a value, without its look. Rendering comes last, one format a file."""

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
    """The paper's figure for the same dataset, model and protocol, in the cell's unit."""

    mean: float
    std: float | None = None


@dataclasses.dataclass(frozen=True)
class Cell:
    """One figure over seeds, in the unit of its column.

    Args:
        mean: None if there is no result.
        std: sample standard deviation; None under two results.
        n: number of seeds; expected: number that there should be, None if unknown.
        best: whether no complete cell of the column is better, and one is worse.
        tied: not the best, but a paired test finds no difference from the best.
        interval: confidence interval of the mean, shown in place of the std.
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
        """Whether no expected seed is missing."""
        return self.n > 0 and (self.expected is None or self.n >= self.expected)

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.mean is None or self.paper is None else self.mean - self.paper.mean


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        unit: of its figures, such as `%`, `h`, `GiB`.
        better: the better end; None if there is none.
        smallest: smaller figures are shown as less than it, such as a p of 0.0002 as `<0.001`.
    """

    name: str
    unit: str = ""
    digits: int = 2
    better: Literal["lower", "higher"] | None = None
    smallest: float | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: its name, such as a method's, and one cell for each column.

    Args:
        name: as shown.
        part: one of several rows of a method, such as `low weight`; the name is then `METHOD: PART`.
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
        key: unique in a report, `[a-z0-9-]+`: anchor in the page and name of files.
        title: such as `svhn (wrn-28-10, 200 epochs)`.
        caption: meaning of the figures; a phrase without full stop.
        heading: of the column of names, such as `method`.
        notes: sentences below the table.
        group: from `reports.analysis.comparison.named`; empty if the table has several or none.
        distortion: IR-NR of the whole table; empty if it has several.
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

    @functools.cached_property  # needed for each cell
    def common_n(self) -> int | None:
        """The n of all complete cells, if they agree."""
        ns = {cell.n for row in self.rows for cell in row.cells if cell.complete}
        return ns.pop() if len(ns) == 1 else None


@dataclasses.dataclass(frozen=True)
class Curve:
    """Mean and standard deviation of one method over seeds, by epoch.

    Args:
        n: largest number of seeds of an epoch.
        outer_start: the first epoch that ends with an outer pass; None if none does.
    Shape:
        epoch [E] int64; mean [E]; std [E], NaN for one seed.
    """

    name: str
    epoch: NDArray[np.int64]
    mean: Floats
    std: Floats
    n: int
    outer_start: int | None = None


@dataclasses.dataclass(frozen=True)
class Panel:
    """The curves of one quantity for all methods that can be compared.

    Args:
        key: unique in a report, `[a-z0-9-]+`.
        group: such as `svhn (wrn-28-10, 200 epochs), 100-0.1`; its panels are shown together.
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
        key: unique in a report, `[a-z0-9-]+`: name of its files.
        caption: also the text for readers who cannot see the picture.
    """

    key: str
    caption: str
    draw: Callable[[], "MatplotlibFigure"]


@dataclasses.dataclass(frozen=True)
class Suspect:
    """A train point whose label is probably wrong.

    Args:
        given, proposed: names of classes.
        score: the higher, the more probably wrong; comparable only within a run.
        wrong: whether the label is known to be wrong or right; None if unknown.
        image: PNG; None if there is none.
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
    """The most suspicious train points of a run, in order.

    Args:
        pictures: whether the points are images, not features.
    """

    key: str
    title: str
    caption: str
    suspects: tuple[Suspect, ...]
    pictures: bool = True


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report under one heading, which begins with paragraphs of plain text."""

    key: str
    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    panels: tuple[Panel, ...] = ()
    figures: tuple[Figure, ...] = ()
    galleries: tuple[Gallery, ...] = ()


@dataclasses.dataclass(frozen=True)
class Report:
    """A whole report, in reading order.

    Args:
        title: such as the names of the store's grids.
        summary: sentences on what was run, what is missing, and what was found.
        sections: tables and figures.
        warnings: unusable files, and other reasons for caution.
        provenance: (name, value), such as ("PyTorch", "2.11.0").
        grids: (name, YAML) of the launched grids.
        methods: names of all methods, in an order that decides their colours.
    """

    title: str
    summary: tuple[str, ...]
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()
    grids: tuple[tuple[str, str], ...] = ()
    methods: tuple[str, ...] = ()
