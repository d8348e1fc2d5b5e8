"""The one table in which `python -m benchmarks` gathers the figures of every benchmark.

A benchmark joins by calling `record_rows` with its figures as soon as it has them, and by an entry in `BENCHMARKS`
(`benchmarks/__main__.py`). Started alone it prints its own table, and `record_rows` does nothing.
"""

import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROWS = "AUTODO_BENCHMARK_ROWS"
"""Environment variable: the file that rows are added to."""


class Row(NamedTuple):
    """A measured figure.

    Args:
        unit: of `value` and of its goal; `x` for a ratio of things that were measured in turns.
        at_most, at_least: the goal; both None if there is none.
    """

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least


def record_rows(*rows: Row) -> None:
    """Add rows to the table of all benchmarks, if this process is part of such a run."""
    path = os.environ.get(ROWS)
    if path is None:
        return
    with Path(path).open("a") as file:
        file.writelines(json.dumps(row._asdict()) + "\n" for row in rows)


def read_rows(path: Path) -> list[Row]:
    """Rows of a file that `record_rows` wrote; none if there is no such file."""
    return [Row(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def markdown(rows: Iterable[tuple[str, Row | str]]) -> str:
    """The table as Markdown.

    Args:
        rows: the name of a benchmark, and a figure of it or why there are no more.
    """
    lines = ["| benchmark | what | measured | goal | met |", "|---|---|---:|---:|---|"]
    for name, row in rows:
        if isinstance(row, str):
            lines.append(f"| {name} | **{row}** | | | **no** |")
            continue
        goal = next(
            (
                f"{sign} {number(at)} {row.unit}"
                for sign, at in (("≤", row.at_most), ("≥", row.at_least))
                if at is not None
            ),
            "",
        )
        met = {True: "yes", False: "**no**", None: ""}[row.met]
        lines.append(f"| {name} | {row.what} | {number(row.value)} {row.unit} | {goal} | {met} |")
    return "\n".join(lines)


def number(value: float) -> str:
    """Three digits, and all of those before the point: `0.0123`, `1.20`, `1,234`."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def machine() -> str:
    """The processor as a table should name it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    fields = dict(reversed([line.replace("\t", "").split(": ", 1) for line in lines if ": " in line]))
    model = fields.get("model name", platform.machine())
    numbers = ", ".join(
        f"{name} {fields[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in fields
    )
    return f"{model} ({numbers})" if numbers else model
