"""Synthetic reports: one with all parts that a page can show, and one of the size of the paper's grid."""

import io
import zlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Sheet
from PIL import Image

from reports.document import (
    Cell,
    Column,
    Curve,
    Figure,
    Gallery,
    Panel,
    Reference,
    Report,
    Row,
    Section,
    Suspect,
    Table,
)
from reports.figures import canvas
from reports.figures.clusters import MOST_POINTS, draw_clusters

SCRIPT = "<script>alert(1)</script>"
HOSTILE = (SCRIPT, "</script><img src=x onerror=alert(2)>", "\"'><b onmouseover=alert(3)>", "{{ 7*7 }}", "a&amp;b")
METHODS = (
    *("baseline", "autodo-a", "autodo-aw", "autodo-aws", "autodo-exact-aws", "autodo-shared"),
    *("dada", "fast-autoaugment", "forward-correction, objective.temperature=0.5", SCRIPT),
)
DISTORTIONS = ("1-0.0", "100-0.0", "1-0.1", "100-0.1")
QUANTITIES = (("test accuracy", "%"), ("test loss", ""), ("train loss", ""))


def errors(key: str = "errors", title: str = "svhn (wrn-28-10, 200 epochs)", methods: Any = METHODS) -> Table:
    """All kinds of cells: holes, incomplete, one seed, best, tied, with and without the paper's value."""
    random = np.random.default_rng(zlib.crc32(key.encode()))
    means = np.round(random.uniform(3, 20, (len(methods), len(DISTORTIONS))), 4)
    best = means[:-1].argmin(axis=0)
    rows = []
    for i in range(len(methods)):
        cells = []
        for j in range(len(DISTORTIONS)):
            mean = float(means[i, j])
            paper = Reference(round(mean + 0.3 * (j - 1), 1), 0.12) if i % 3 == 0 else None
            cell = Cell(mean, 0.21, 4, 4, best=i == best[j], tied=(i + 1) % len(methods) == best[j], paper=paper)
            cells.append(cell)
        rows.append(cells)
    rows[2][1] = Cell(None, None, 0, 4, paper=Reference(7.25))
    rows[3][2] = Cell(rows[3][2].mean, 0.33, 2, 4)
    rows[4][3] = Cell(rows[4][3].mean, None, 1, 4)
    rows[5][0] = Cell(None)
    return Table(
        key=key,
        title=title,
        caption="test error at the epoch of lowest val error, mean ± std over seeds",
        heading="method",
        columns=tuple(Column(name, "%", 2, "lower") for name in DISTORTIONS),
        rows=tuple(Row(name, tuple(cells)) for name, cells in zip(methods, rows, strict=True)),
        notes=("Results of different devices are compared: A100 (12 runs), H100 (20 runs).",),
    )


def cost(key: str = "cost") -> Table:
    """Columns of different units, one of them with higher values as better."""
    columns = (Column("per run", "h", 1, "lower"), Column("throughput", "images/s", 0, "higher"), Column("runs", "", 0))
    rows = tuple(
        Row(name, (Cell(0.7 * i + 1, 0.1, 4), Cell(9000.0 - 800 * ((i * 3) % 5), 120.0, 4), Cell(4.0, None, 4)))
        for i, name in enumerate(METHODS[:5])
    )
    return Table(key, "cifar10 (wrn-28-10, 200 epochs)", "measured cost", "method", columns, rows)


def panels(groups: int = 4, methods: Any = METHODS, epochs: int = 200, prefix: str = "curves") -> tuple[Panel, ...]:
    """Plausible learning curves."""
    random = np.random.default_rng(7)
    made = []
    for g in range(groups):
        place = f"dataset {g // 4} (wrn-28-10, 200 epochs, training.warmup_epochs=5), {DISTORTIONS[g % 4]}"
        for q, (quantity, unit) in enumerate(QUANTITIES):
            curves = []
            for i, name in enumerate(methods):
                epoch = np.arange(1, epochs + 1)
                course = np.exp(-epoch / (12 + 2 * i)) + 0.02 * random.standard_normal(epochs) * np.exp(-epoch / 90)
                mean = 97 - 1.2 * i - 45 * course if unit else 0.1 + 0.03 * i + 2 * course + 0.05 * q
                std = np.abs(0.012 * (mean if unit else 1) * (1 + 0.3 * random.standard_normal(epochs)))
                if i == 1:
                    std[:] = np.nan
                curves.append(Curve(name, epoch, mean, std, 1 if i == 1 else 4, 51 if "autodo" in name else None))
            made.append(Panel(f"{prefix}-{g}-{q}", place, quantity, unit, tuple(curves)))
    return tuple(made)


def figure(key: str, caption: str, width: float = 9) -> Figure:
    """A picture of bars."""

    def draw() -> Sheet:
        sheet = Sheet(figsize=(width, 3.2), layout="constrained")
        axes = sheet.subplots(1, 2)
        axes[0].bar(range(10), np.linspace(97, 71, 10), color="#0072b2")
        axes[1].imshow(np.eye(10) + 0.05, cmap="Blues")
        return sheet

    return Figure(key, caption, draw)


def clusters(key: str, classes: int = 10) -> Figure:
    """The largest t-SNE figure: six panels of points, half of them wrong."""

    @canvas.styled
    def draw() -> Sheet:
        random = np.random.default_rng(zlib.crc32(key.encode()))
        sheet, panels = canvas.panels(6, 3.4)
        for ax in panels:
            label, prediction = random.integers(0, classes, (2, MOST_POINTS))
            prediction = np.where(random.random(MOST_POINTS) < 0.5, label, prediction)
            places = random.normal(0, 30, (classes, 2))[label] + random.normal(0, 8, (MOST_POINTS, 2))
            draw_clusters(ax, places, label, prediction, [f"class {i}" for i in range(classes)])
        return sheet

    return Figure(key, f"Six panels of {classes} classes", draw)


def picture(figure: Figure) -> tuple[str, bytes]:
    """A picture as SVG."""
    file = io.BytesIO()
    figure.draw().savefig(file, format="svg")
    return "image/svg+xml", file.getvalue()


def png(seed: int, size: int = 28, mode: str = "L") -> bytes:
    """A small image."""
    y, x = np.mgrid[:size, :size] / size
    waves = 127 + 127 * np.sin(6 * (x * np.cos(seed) + y * np.sin(seed)) * (1 + seed % 3))
    shades = waves.astype(np.uint8)
    image = Image.fromarray(shades if mode == "L" else np.stack([shades, shades.T, 255 - shades], axis=-1))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def gallery() -> Gallery:
    """Suspects with images of two sizes, damaged or without one, with and without the truth; more than are unfolded."""
    names = ("T-shirt/top", "trouser", "pullover", SCRIPT, "ankle boot")
    suspects = []
    for i in range(40):
        image = {3: None, 5: b"no PNG"}.get(i, png(i, 64, "RGB") if i % 2 else png(i))
        source = f"train/{names[i % 5]}/a rather long folder name/IMG_{i:05d}.png" if i % 4 == 1 else None
        suspects.append(
            Suspect(
                index=1000 + 37 * i,
                source=source,
                given=names[i % 5],
                proposed=names[(i + 2) % 5],
                score=1 - i / 50,
                weight=0.02 * i if i != 2 else None,
                loss=9.5 - i / 5 if i != 2 else None,
                wrong=(True, False, None)[i % 3],
                image=image,
            )
        )
    title = "fashion-mnist_ir1_nr0.1_autodo-aws_s0_1a2b3c4d"
    return Gallery("suspects", title, "train points ranked by weight and soft label, the worst first", tuple(suspects))


def rich() -> Report:
    """All parts of a page, with hostile text in place of all content of a store."""
    return Report(
        title="paper-small: AutoDO against eight methods",
        summary=(
            "On svhn with 100-0.1, autodo-exact-aws has the lowest test error: 7.31 ± 0.21 % over 4 seeds.",
            "The grid asks for 160 runs; 149 have a result, 8 failed and 3 have not started.",
            f"A class is called {SCRIPT}.",
        ),
        warnings=(
            *(f"STORE/results/run-{i}.parquet: left out: it is cut short" for i in range(11)),
            f"STORE/results/{HOSTILE[1]}.parquet: left out: not a .parquet file",
        ),
        sections=(
            Section(
                "test-error",
                "Test error",
                paragraphs=(
                    "Each figure is the mean over seeds of the test error at the epoch that validation chose.",
                    f"Paths are shown as they are: {HOSTILE[2]} {HOSTILE[3]} {HOSTILE[4]}",
                ),
                tables=(errors(), errors("errors-cifar10", "cifar10 (wrn-28-10, 200 epochs)")),
            ),
            Section(
                "learning",
                "Learning curves",
                panels=panels(),
                figures=(figure("bars", f"Accuracy of each class; the last is called {SCRIPT}"),),
            ),
            Section("costs", "Cost", tables=(cost(),), figures=(figure("small", "A small picture", 4),)),
            Section("splits", "Splits", tables=tuple(cost(f"split-{i}") for i in range(9))),
            Section("labels", "Suspicious labels", galleries=(gallery(),)),
        ),
        provenance=(("PyTorch", "2.11.0"), ("code", "1b8512a"), ("folder", HOSTILE[1])),
        grids=(
            ("paper-small", "datasets: [svhn, cifar10]\nmethods:\n" + "".join(f"- {m}\n" for m in METHODS)),
            (
                f"recipe of folder (small-cnn, 30 epochs, dataset.path=/{'photographs_of_mine' * 8})",
                "model: small-cnn\n",
            ),
        ),
    )


def paper_grid() -> Report:
    """A report of the size of 3 datasets x 4 distortions x 8 methods over 200 epochs."""
    methods = METHODS[:8]
    return Report(
        "full grid",
        ("384 runs.",),
        (
            Section("errors", "Test error", tables=tuple(errors(f"errors-{i}", methods=methods) for i in range(12))),
            Section("curves", "Learning curves", panels=panels(12, methods)),
        ),
    )
