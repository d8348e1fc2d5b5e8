"""Threads of tests, which of them one process runs, and real data that those of several packages use."""

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from autodo.config.dataset import DatasetConfig
from autodo.data import DATASETS, Dataset, default_data_dir, load

# Before torch is imported, here and in processes that tests start. One, unless a person asks for more as
# `make test-portable` does: on small tensors, beside the other tests, several threads mostly wait for each other.
os.environ["OMP_NUM_THREADS"] = os.environ.get("AUTODO_TEST_THREADS", "1")

# Tests compare bits of a CPU, and `--device auto` must not take a GPU; `make gpu-check` runs those that need one.
if "AUTODO_TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


SHARED = ("chrome", "pool")
"""Fixtures that take seconds to start, and that tests of several files share."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist loadgroup` one process runs all that may start Ray, all that shares a fixture, or a whole file."""
    for item in items:
        file = item.path.relative_to(Path(__file__).parents[1])
        groups = [name for name in SHARED if name in getattr(item, "fixturenames", ())]
        if file.is_relative_to("tests/orchestration") or item.get_closest_marker("ray") is not None:
            groups = ["ray"]
        item.add_marker(pytest.mark.xdist_group([*groups, str(file)][0]))


@contextlib.contextmanager
def s3_server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """moto's S3 on a free port of this machine: its URL and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert process.poll() is None, "moto_server ended"
                    assert time.monotonic() < deadline, "moto_server does not answer"
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()


@pytest.fixture(scope="session")
def _s3() -> Iterator[str]:
    with s3_server() as (url, _):
        yield url


_numbers = itertools.count()


@pytest.fixture
def bucket(_s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of a new, empty bucket of a real S3 server on this machine, which the environment names."""
    return new_bucket(_s3, monkeypatch)


def new_bucket(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a new bucket; the environment points to the server."""
    name = f"bucket-{os.getpid()}-{next(_numbers)}"
    urllib.request.urlopen(urllib.request.Request(f"{url}/{name}", method="PUT"), timeout=30).close()
    point_to(url, monkeypatch)
    return f"s3://{name}"


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names an S3 server and credentials in the environment, as a person does."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


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
