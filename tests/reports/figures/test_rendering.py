import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from autodo.io.storage import locate
from reports.analysis.curves import COLUMNS, learning_curves
from reports.document import Figure
from reports.figures import canvas
from reports.figures.accuracy import accuracy_figures
from reports.figures.choices import choose
from reports.figures.clusters import cluster_figures
from reports.figures.confusion import confusion_figures
from reports.figures.cost import cost_figures
from reports.figures.hyperparameters import hyperparameter_figures
from reports.figures.learning_curves import curve_figures
from reports.figures.palette import styles
from reports.figures.rendering import PAGE_BYTES, render, save
from reports.readers.load import load_epochs
from tests.reports.figures.stores import Store
from tests.reports.html.reports import clusters

HOSTILE = (
    *("$x^2$", "$\\frac{", "_private", "<script>alert(1)</script>", "-->", "a very long name of a class, and longer"),
    *("a very long name of a class, but longer", "猫", "קטה", "قطة", "a\nb\x07\u202ec", "100 % & {more}", "", "🐈"),
)


def everything(store: Store) -> list[Figure]:
    """All figures of a store."""
    runs = store.runs()
    choices, looks = choose(runs), styles(runs["name"])
    epochs, _ = load_epochs(store.root, runs["run_id"].tolist(), COLUMNS)
    figures = curve_figures(learning_curves(runs, epochs), looks, choices)
    for of_store in (confusion_figures, cluster_figures, hyperparameter_figures):
        found, warnings = of_store(store.root, choices)
        assert warnings == ()
        figures += found
    return figures + accuracy_figures(choices, looks) + cost_figures(choices, looks)


@pytest.mark.parametrize(
    "classes",
    [("a", "b"), HOSTILE, tuple(f"class number {i}" for i in range(100))],
    ids=["two", "hostile", "hundred"],
)
def test_every_figure_can_be_drawn_without_a_warning(store: Store, classes: Sequence[str]) -> None:
    store.classes, store.test_images = classes, 2 * len(classes)
    for method in ("baseline", "autodo-aws"):
        store.add(method, embeddings=True, absent=[1] if len(classes) > 2 else [])
    figures = everything(store)
    assert len(figures) == 7
    assert len({figure.key for figure in figures}) == 7
    for figure in figures:
        assert re.fullmatch("[a-z0-9-]+", figure.key)
        assert figure.caption == canvas.visible(figure.caption)
        assert figure.caption.endswith(".")
        files = render(figure)
        root = ET.fromstring(files.svg)
        assert {element.tag.rpartition("}")[2] for element in root.iter()}.isdisjoint({"script", "foreignObject", "a"})
        with Image.open(io.BytesIO(files.png)) as picture:
            assert 0.6 * canvas.WIDTH * canvas.DPI < picture.width <= canvas.WIDTH * canvas.DPI
            assert picture.getpixel((0, 0)) == (255, 255, 255, 255)
        assert len(files.smallest[1]) < 400_000


def test_a_store_with_one_unfinished_run_has_figures(store: Store) -> None:
    run_id = store.add(seed=3)
    for kind in ("epochs", "predictions", "points"):
        store.path(kind, run_id).unlink()
    assert [figure.key.split("-")[0] for figure in everything(store)] == ["class"]


def test_the_same_figure_gives_the_same_bytes(store: Store) -> None:
    store.test_images = 60
    store.add("autodo-aws", embeddings=True)
    for first, second in zip(everything(store), everything(store), strict=True):
        assert render(first) == render(second)


def test_a_figure_is_saved_in_both_formats(store: Store, bucket: str) -> None:
    store.add()
    figure = everything(store)[0]
    files = render(figure)
    for folder in (locate(store.root) / "report", locate(bucket) / "report"):
        places = save(figure, folder)
        assert [place.name for place in places] == [f"{figure.key}.svg", f"{figure.key}.png"]
        assert [place.read_bytes() for place in places] == [files.svg, files.png]
    assert files.smallest in (("image/svg+xml", files.svg), ("image/png", files.png))
    assert len(files.smallest[1]) == min(len(files.svg), len(files.png))


def test_a_picture_of_a_page_is_small_and_looks_like_the_file() -> None:
    files = render(clusters("clusters"))
    assert len(files.smallest[1]) > 3 * PAGE_BYTES
    media_type, content = files.for_page
    assert media_type == "image/png"
    assert len(content) <= PAGE_BYTES
    with Image.open(io.BytesIO(content)) as picture, Image.open(io.BytesIO(files.png)) as full:
        assert picture.mode == "P"
        assert round(picture.info["dpi"][0]) >= 110
        assert picture.width == round(full.width * round(picture.info["dpi"][0]) / canvas.DPI)
        found = np.asarray(picture.convert("RGB"), dtype=float)
        expected = np.asarray(full.convert("RGB").resize(picture.size, Image.Resampling.BOX), dtype=float)
    assert (found[0] == 255).all(), "paper is white"
    assert np.abs(found - expected).mean() < 4, "of 255"


def test_a_small_picture_of_a_page_is_the_file(store: Store) -> None:
    store.add()
    files = render(everything(store)[0])
    assert files.for_page == files.smallest


def test_a_scatter_is_a_picture_within_the_svg(store: Store) -> None:
    store.test_images = 600
    store.add(error=0.5, embeddings=True)
    (figure,) = [figure for figure in everything(store) if figure.key.startswith("clusters")]
    found = render(figure).svg
    assert b"data:image/png;base64" in found
    assert found.count(b"<path") < 400


def test_users_matplotlib_settings_are_ignored_and_kept(store: Store) -> None:
    store.add()
    figure = everything(store)[0]
    plain = render(figure)
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "red", "svg.hashsalt": "x"}):
        before = dict(matplotlib.rcParams)
        assert render(figure) == plain
        assert dict(matplotlib.rcParams) == before


def test_pyplot_is_never_imported_and_keeps_no_figure() -> None:
    code = """
import sys
import numpy as np
import reports.write
from reports.analysis.stats import Ranks
from reports.figures.ranks import rank_figure
from reports.figures.rendering import render
assert "matplotlib.pyplot" not in sys.modules
assert "torch" not in sys.modules
render(rank_figure(Ranks(("a", "b"), np.array([1.0, 2.0]), np.ones((2, 2)), 0.5, ())))
# The library that draws ranks imports it.
assert sys.modules["matplotlib.pyplot"].get_fignums() == []
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3], timeout=120)


def test_text_of_a_store_is_drawn_literally(ax: Axes) -> None:
    for text in ("$x^2$", "\\$5 and $6", "a_b^c", "{}%s"):
        drawn = ax.text(0, 0, canvas.plain(text))
        assert drawn._preprocess_math(drawn.get_text()) == (text, False)  # type: ignore[attr-defined]


def test_names_are_cut_in_the_middle_and_stay_different() -> None:
    assert canvas.plain("abcdefghij", 5) == "ab…ij"
    labels = canvas.class_labels(HOSTILE)
    assert len(set(labels)) == len(HOSTILE)
    assert max(map(len, labels)) <= 18
    assert labels[HOSTILE.index("猫")] == str(HOSTILE.index("猫"))
    assert f"{HOSTILE.index('猫')} = 猫" in canvas.class_key(HOSTILE)
    assert canvas.class_key(["cat"]) == ""


def test_a_legend_shows_names_that_begin_with_an_underscore() -> None:
    sheet = canvas.sheet(3)
    line = sheet.add_subplot().plot(np.arange(3))[0]
    canvas.legend(sheet, [(line, "_private"), (line, "b")])
    assert [text.get_text().strip() for text in sheet.legends[0].get_texts()] == ["_private", "b"]
