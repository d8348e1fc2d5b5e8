"""Real data that the tests of several packages use."""

import os
from pathlib import Path

import pytest

from autodo.config import DatasetConfig
from autodo.data import DATASETS, Dataset, default_data_dir, load


@pytest.fixture(scope="session")
def fashion_mnist() -> Dataset:
    """Fashion-MNIST from Debian's package or the default data dir.

    Skips if none of its files is there, unless AUTODO_REQUIRE_FASHION_MNIST is set; files that are there must be good.
    """
    data_dir, system_dir = default_data_dir(), DATASETS["fashion-mnist"].system_dir
    assert system_dir is not None
    require_or_skip(data_dir / "FashionMNIST" / "raw", data_dir, system_dir)
    return load(DatasetConfig(name="fashion-mnist"))


def require_or_skip(*folders: Path) -> None:
    """Skips the test, or fails it if AUTODO_REQUIRE_FASHION_MNIST is set, unless an idx file is in one of `folders`."""
    if any(file for folder in folders for file in folder.glob("*-ubyte*")):
        return
    told = f"Fashion-MNIST is in none of {', '.join(map(str, folders))}"
    if os.environ.get("AUTODO_REQUIRE_FASHION_MNIST"):
        pytest.fail(told)
    pytest.skip(told)
