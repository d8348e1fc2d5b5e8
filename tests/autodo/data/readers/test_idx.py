import dataclasses
import gzip
import shutil
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

from autodo.config.dataset import DatasetConfig
from autodo.data import datasets, load
from autodo.data.readers.idx import read_fashion_mnist
from autodo.data.readers.location import DatasetLocation
from autodo.errors import DataError

FASHION = DatasetConfig(name="fashion-mnist")
MNIST = DatasetConfig(name="mnist")
FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def assert_holds(dataset, written):
    for part, expected in ((dataset.train, written.train), (dataset.test, written.t10k)):
        assert part.images.read().dtype == np.uint8
        assert part.images.read().flags.c_contiguous
        assert (part.images.read()[:, 0] == expected.images).all()
        assert part.labels.dtype == np.int64
        assert (part.labels == expected.labels).all()


@pytest.mark.parametrize("gz", [False, True])
def test_torchvisions_layout(gz, tmp_path, write_idx):
    written = write_idx(tmp_path / "FashionMNIST" / "raw", gz=gz, dataset="fashion-mnist")
    dataset = load(FASHION, data_dir=tmp_path)
    assert_holds(dataset, written)
    assert dataset.class_names[0] == "T-shirt/top"


@pytest.mark.parametrize("gz", [False, True])
def test_folder_of_the_four_files(gz, tmp_path, write_idx):
    written = write_idx(tmp_path, gz=gz)
    dataset = load(MNIST, data_dir=tmp_path)
    assert_holds(dataset, written)
    assert dataset.class_names == tuple("0123456789")


def test_system_dir_is_tried_last(tmp_path, write_idx):
    location = DatasetLocation(tmp_path / "data", system_dir=tmp_path / "system")
    system = write_idx(tmp_path / "system", gz=True, dataset="fashion-mnist")
    assert_holds(read_fashion_mnist(FASHION, location), system)
    own = write_idx(tmp_path / "data", gz=True, dataset="fashion-mnist")
    assert_holds(read_fashion_mnist(FASHION, location), own)


@pytest.fixture
def system_dir(tmp_path, monkeypatch, write_idx):
    """Where, for this test, the system's package puts Fashion-MNIST; the working directory is empty."""
    folder = tmp_path / "system"
    write_idx(folder, gz=True, dataset="fashion-mnist")
    spec = dataclasses.replace(datasets.DATASETS["fashion-mnist"], system_dir=folder)
    monkeypatch.setitem(datasets.DATASETS, "fashion-mnist", spec)
    monkeypatch.delenv("AUTODO_DATA", raising=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return folder


def test_system_dir_is_tried_only_if_no_data_dir_is_given(tmp_path, system_dir):
    assert len(load(FASHION).train) == 20
    with pytest.raises(DataError) as error:
        load(FASHION, data_dir=tmp_path / "empty")
    assert str(error.value).startswith(f"fashion-mnist: none of its files, such as {FILES[0]}[.gz], is in ")
    assert str(system_dir) not in str(error.value)


def test_data_dir_that_does_not_exist(tmp_path, system_dir):
    with pytest.raises(DataError, match=rf"; there is no directory {tmp_path / 'typo'}; pass --data-dir"):
        load(FASHION, data_dir=tmp_path / "typo")


def test_the_real_fashion_mnist(fashion_mnist):
    assert fashion_mnist.train.images.shape == (60_000, 1, 28, 28)
    assert fashion_mnist.test.images.shape == (10_000, 1, 28, 28)
    assert np.bincount(fashion_mnist.train.labels).tolist() == [6000] * 10
    assert fashion_mnist.train.labels[:5].tolist() == [9, 0, 0, 3, 0]
    assert fashion_mnist.train.images.read().mean() == pytest.approx(72.94, abs=0.01)  # the known 0.2860 of 255


def test_nothing_there(tmp_path):
    location = DatasetLocation(tmp_path, system_dir=tmp_path / "system", package="dataset-fashion-mnist")
    with pytest.raises(DataError) as error:
        read_fashion_mnist(FASHION, location)
    text = str(error.value)
    for part in (str(tmp_path / "FashionMNIST" / "raw"), str(tmp_path / "system"), "--data-dir", "--download"):
        assert part in text
    assert text.endswith("`apt-get install dataset-fashion-mnist`")
    assert "\n" not in text


@pytest.mark.parametrize("file", ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
def test_one_file_is_missing(file, tmp_path, write_idx):
    write_idx(tmp_path, gz=True)
    (tmp_path / f"{file}.gz").unlink()
    with pytest.raises(DataError, match=rf"{file}\[\.gz\]: no such file, but others of mnist are there; pass --data"):
        load(MNIST, data_dir=tmp_path)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip_a_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def repack(change):
    return lambda content: gzip.compress(change(gzip.decompress(content)))


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
@pytest.mark.parametrize(
    "damage",
    [cut, flip_a_byte, lambda _: b"<html>404</html>"],
    ids=["truncated", "wrong-crc", "html"],
)
def test_damaged_gz_is_named(file, damage, tmp_path, write_idx):
    write_idx(tmp_path, gz=True)
    path = tmp_path / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as error:
        load(MNIST, data_dir=tmp_path)
    assert str(error.value).startswith(f"{path}: cannot be read: ")
    assert str(error.value).endswith("; replace it, or delete it and pass --download")
    assert "\n" not in str(error.value)


def relabel(content: bytes) -> bytes:
    return content[:-1] + bytes([(content[-1] + 1) % 10])


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("gz", "change"),
    [(False, relabel), (True, repack(relabel)), (False, cut), (True, repack(cut)), (True, lambda _: b"")],
    ids=["altered", "altered-gz", "truncated", "truncated-inside", "empty-gz"],
)
def test_altered_file_is_named(file, gz, change, tmp_path, write_idx):
    write_idx(tmp_path, gz=gz)
    path = tmp_path / (f"{file}.gz" if gz else file)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError) as error:
        load(MNIST, data_dir=tmp_path)
    assert str(error.value) == (
        f"{path}: is not mnist's file: its checksum is not that of the published {file}; "
        "replace it, or delete it and pass --download"
    )


def test_one_file_in_place_of_another(tmp_path, write_idx):
    write_idx(tmp_path, gz=False)
    shutil.copy(tmp_path / FILES[3], tmp_path / FILES[1])
    with pytest.raises(DataError, match=rf"{FILES[1]}: is not mnist's file: its checksum"):
        load(MNIST, data_dir=tmp_path)


@pytest.mark.parametrize("gz", [False, True])
def test_files_of_the_other_dataset(gz, tmp_path, write_idx):
    write_idx(tmp_path, gz=gz, dataset="fashion-mnist")
    with pytest.raises(DataError) as error:
        load(MNIST, data_dir=tmp_path)
    assert str(error.value) == (
        f"{tmp_path / FILES[0]}{'.gz' if gz else ''}: is not mnist's file, but fashion-mnist's; "
        "pass --data-dir with the folder that holds mnist's files, or name the dataset fashion-mnist"
    )


def test_download_is_moved_into_torchvisions_layout(tmp_path, write_idx, monkeypatch):
    written = []

    def download(self):
        written.append(write_idx(Path(self.raw_folder), gz=False))
        (Path(self.raw_folder) / "train-images-idx3-ubyte.gz").write_bytes(b"what torchvision leaves behind")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    data_dir = tmp_path / "new" / "data"
    assert_holds(load(MNIST, data_dir=data_dir, download=True), written[0])
    assert len(list((data_dir / "MNIST" / "raw").iterdir())) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    load(MNIST, data_dir=data_dir, download=True)
    assert len(written) == 1


def test_failed_download_leaves_nothing(tmp_path, monkeypatch):
    def no_network(request):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(DataError) as error:
        load(MNIST, data_dir=tmp_path / "data", download=True)
    assert str(error.value).startswith(f"mnist: cannot be downloaded to {tmp_path / 'data'}: ")
    assert "Name or service not known" in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    def download(self):
        Path(self.raw_folder).mkdir(parents=True)
        (Path(self.raw_folder) / "train-images-idx3-ubyte").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    with pytest.raises(KeyboardInterrupt):
        load(MNIST, data_dir=tmp_path / "data", download=True)
    assert list(tmp_path.iterdir()) == []
