from pathlib import Path

import pytest
from matplotlib.axes import Axes

from reports.figures import canvas
from tests.reports.figures.stores import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def ax() -> Axes:
    return canvas.sheet(4).add_subplot()
