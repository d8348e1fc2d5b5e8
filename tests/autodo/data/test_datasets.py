import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from autodo.config.dataset import DatasetConfig
from autodo.config.shipped import dataset_names
from autodo.data import DATASETS, default_data_dir, load
from autodo.errors import ConfigError


def test_every_dataset_has_a_recipe_and_every_recipe_a_dataset():
    assert sorted(DATASETS) == dataset_names()


def test_planning_is_fast():
    heavy = ("torch", "torchvision", "sklearn", "PIL", "scipy", "ray", "pandas")
    code = f"import sys, autodo.data, autodo.config.recipes; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


def test_unknown_name_has_a_hint():
    with pytest.raises(ConfigError, match="unknown dataset 'cifar-10'; did you mean 'cifar10'"):
        load(DatasetConfig(name="cifar-10"))


def test_data_dir_comes_from_the_environment(monkeypatch, tmp_path, write_idx):
    write_idx(tmp_path / "MNIST" / "raw", gz=False)
    monkeypatch.setenv("AUTODO_DATA", str(tmp_path))
    assert len(load(DatasetConfig(name="mnist")).train) == 20
    monkeypatch.delenv("AUTODO_DATA")
    assert str(default_data_dir()) == "data"


def test_digits():
    dataset = load(DatasetConfig(name="digits"))
    assert dataset.train.images.shape == (1438, 1, 8, 8)
    assert dataset.test.images.shape == (359, 1, 8, 8)
    assert dataset.train.images.read().dtype == np.uint8
    assert dataset.train.images.read().max() == 255
    assert 128 in dataset.train.images.read()  # 8 of 16
    counts = np.bincount(dataset.test.labels)
    assert counts.min() >= 34
    assert dataset.class_names == tuple("0123456789")


def test_digits_are_those_of_scikit_learn():
    dataset, bunch = load(DatasetConfig(name="digits")), load_digits()
    images = dataset.train.images.concatenate(dataset.test.images).read()[:, 0]
    labels = np.concatenate([dataset.train.labels, dataset.test.labels])
    ours = sorted((label, *image.ravel()) for label, image in zip(labels, images, strict=True))
    theirs = np.rint(bunch.images * 255 / 16).astype(np.uint8).reshape(-1, 64)
    assert ours == sorted((label, *image) for label, image in zip(bunch.target, theirs, strict=True))


def test_digits_are_read_without_importing_scikit_learn():
    code = "import sys; from autodo.config.dataset import DatasetConfig; from autodo.data import load;"
    code += "load(DatasetConfig(name='digits'))"
    code += "; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_subsample_is_fixed_and_stratified():
    small, again = (load(DatasetConfig(name="digits", subsample=100, val_share=share)).train for share in (0.2, 0.4))
    assert np.bincount(small.labels).tolist() == [10] * 10
    assert (small.index == again.index).all()
    whole = load(DatasetConfig(name="digits")).train
    assert (whole.images.read(small.index) == small.images.read()).all()


def test_subsample_larger_than_the_set():
    with pytest.raises(ConfigError, match=r"dataset.subsample: 1439 is out of range: .* 10\.\.1438 is possible"):
        load(DatasetConfig(name="digits", subsample=1439))
