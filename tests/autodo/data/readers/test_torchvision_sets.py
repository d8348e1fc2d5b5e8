import shutil

import numpy as np
import pytest
import scipy.io
import torchvision.datasets

from autodo.config.dataset import DatasetConfig
from autodo.data import load
from autodo.errors import DataError

SVHN = DatasetConfig(name="svhn")
CIFAR = {classes: DatasetConfig(name=f"cifar{classes}") for classes in (10, 100)}
CIFAR_FILE = {10: "cifar-10-batches-py/data_batch_3", 100: "cifar-100-python/test"}


def test_svhn(tmp_path, write_svhn):
    written = write_svhn(tmp_path)
    dataset = load(SVHN, data_dir=tmp_path)
    assert dataset.train.images.shape == (30, 3, 32, 32)
    assert dataset.train.images.read().flags.c_contiguous
    assert (dataset.train.images.read() == written.train.images).all()
    assert (dataset.train.labels == written.train.labels).all()
    assert scipy.io.loadmat(tmp_path / "train_32x32.mat")["y"].ravel().tolist() == 3 * [10, *range(1, 10)]
    assert len(dataset.test) == 10
    assert dataset.class_names == tuple("0123456789")


def test_svhn_file_missing(tmp_path, write_svhn):
    write_svhn(tmp_path)
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(DataError, match=r"^svhn: .*/test_32x32.mat: no such file; pass --data-dir .* or --download$"):
        load(SVHN, data_dir=tmp_path)


def test_svhn_file_truncated(tmp_path, write_svhn):
    write_svhn(tmp_path)
    path = tmp_path / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"test_32x32.mat: cannot be read: its checksum is not .*; replace it, or del"):
        load(SVHN, data_dir=tmp_path)


def test_svhn_download_leaves_whole_files_only(tmp_path, write_svhn, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    write_svhn(source)

    def download(self):
        shutil.copy(source / self.filename, self.root)

    monkeypatch.setattr(torchvision.datasets.SVHN, "download", download)
    assert len(load(SVHN, data_dir=tmp_path / "data", download=True).train) == 30
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["test_32x32.mat", "train_32x32.mat"]

    (tmp_path / "source" / "test_32x32.mat").write_bytes(b"half")
    with pytest.raises(DataError, match=r"^svhn: cannot be downloaded to"):
        load(SVHN, data_dir=tmp_path / "other", download=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "source"]


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar(classes, tmp_path, write_cifar):
    written = write_cifar(tmp_path, classes)
    dataset = load(CIFAR[classes], data_dir=tmp_path)
    for part, expected in ((dataset.train, written.train), (dataset.test, written.test)):
        assert (part.images.read() == expected.images).all()
        assert (part.labels == expected.labels).all()
        assert part.images.read().flags.c_contiguous
        assert part.labels.dtype == np.int64
    assert dataset.class_names == tuple(written.names)


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_wrong_checksum(classes, tmp_path, write_cifar):
    write_cifar(tmp_path, classes)
    path = tmp_path / CIFAR_FILE[classes]
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match=rf"{CIFAR_FILE[classes]}: cannot be read: its checksum is not that of"):
        load(CIFAR[classes], data_dir=tmp_path)


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_missing(classes, tmp_path, write_cifar):
    with pytest.raises(DataError, match=rf"^cifar{classes}: .*: no such file; pass --data-dir"):
        load(CIFAR[classes], data_dir=tmp_path)
    write_cifar(tmp_path, classes)
    (tmp_path / CIFAR_FILE[classes]).unlink()
    with pytest.raises(DataError, match=rf"{CIFAR_FILE[classes]}: no such file"):
        load(CIFAR[classes], data_dir=tmp_path)


def test_file_with_the_right_checksum_that_torchvision_cannot_read(tmp_path, write_cifar, monkeypatch):
    write_cifar(tmp_path, 10)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"not a pickle")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "test_list", [["test_batch", None]])
    with pytest.raises(DataError, match=r"^cifar10: cannot be read from .*; replace the files$"):
        load(CIFAR[10], data_dir=tmp_path)
