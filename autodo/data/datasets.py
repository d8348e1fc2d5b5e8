"""The table of datasets, and `load`. A new dataset is a reader, an entry here and a recipe in configs/datasets/."""

import dataclasses
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autodo.config.dataset import MEMORY, DatasetConfig
from autodo.config.validation import check_name
from autodo.data.files.remote import local_copy
from autodo.data.images.image_set import Dataset
from autodo.data.images.split import FIXED_SEED, subsample
from autodo.data.readers.digits import read_digits
from autodo.data.readers.features import features_content, read_features_dataset
from autodo.data.readers.folder import folder_content, read_folder
from autodo.data.readers.from_plugin import read_plugin
from autodo.data.readers.idx import read_fashion_mnist, read_mnist
from autodo.data.readers.imagenet import read_imagenet
from autodo.data.readers.location import DatasetLocation
from autodo.data.readers.torchvision_sets import read_cifar10, read_cifar100, read_svhn
from autodo.errors import DataError
from autodo.io.storage import StrPath
from autodo.io.uri import is_uri
from autodo.seeds import numpy_generator

logger = logging.getLogger("autodo")


@dataclass(frozen=True)
class DatasetSpec:
    """Reader of a dataset, and where the system's package puts its files."""

    read: Callable[[DatasetConfig, DatasetLocation], Dataset]
    system_dir: Path | None = None
    """Tried if no data dir is given and the default one has none of the files."""
    package: str | None = None
    content: Callable[[DatasetConfig], str] | None = None
    """Computes the fingerprint of a person's own data at `dataset.path`."""


DATASETS: dict[str, DatasetSpec] = {
    "digits": DatasetSpec(read_digits),
    "mnist": DatasetSpec(read_mnist),
    "fashion-mnist": DatasetSpec(
        read_fashion_mnist, system_dir=Path("/usr/share/datasets/fashion-mnist"), package="dataset-fashion-mnist"
    ),
    "svhn": DatasetSpec(read_svhn),
    "cifar10": DatasetSpec(read_cifar10),
    "cifar100": DatasetSpec(read_cifar100),
    "imagenet": DatasetSpec(read_imagenet),
    "folder": DatasetSpec(read_folder, content=folder_content),
    "features": DatasetSpec(read_features_dataset, content=features_content),
}


def default_data_dir() -> Path:
    """The environment variable AUTODO_DATA if it is set, else ./data."""
    return Path(os.environ.get("AUTODO_DATA") or "data")


def load(config: DatasetConfig, *, data_dir: StrPath | None = None, download: bool = False) -> Dataset:
    """Reads a dataset, subsamples its train set if the config says so, and logs its warnings.

    Args:
        data_dir: folder of a named dataset's files, in torchvision's layout: a path, or a URI that is copied into this
            node's cache; if None, `default_data_dir()` or else the system package's folder.
        download: let torchvision download a named dataset whose files are missing.
    Raises:
        ConfigError: if there is no such dataset, or `subsample` does not fit it.
        DataError: if a file is missing, damaged or unsuitable; one line with the file and the remedy.
    """
    if config.name == MEMORY:
        raise DataError("the images of this run were given in Python and are not kept; give them to autodo.fit again")
    spec = DATASETS.get(config.name)
    if spec is None:
        if config.code is None:
            check_name(config.name, list(DATASETS), "dataset")
        spec = DatasetSpec(read_plugin)
    if data_dir is None:
        dataset = spec.read(config, DatasetLocation(default_data_dir(), download, spec.system_dir, spec.package))
    else:
        # An explicit data_dir switches the fallbacks off; nothing is downloaded into a copy.
        with local_copy(data_dir) as folder:
            dataset = spec.read(config, DatasetLocation(folder, download and not is_uri(os.fspath(data_dir))))
    for warning in dataset.warnings:
        logger.warning("%s", warning)
    if config.subsample is None:
        return dataset
    # The seed is fixed: a subsample is a smaller dataset, the same for every run.
    kept = subsample(dataset.train.labels, config.subsample, numpy_generator(FIXED_SEED, "subsample"))
    return dataclasses.replace(dataset, train=dataset.train.take(kept))


def pin_content(config: DatasetConfig) -> DatasetConfig:
    """The config with the present fingerprint of a person's own data, unless it has one already.

    Raises:
        DataError: if the data cannot be listed or read.
    """
    spec = DATASETS.get(config.name)
    if spec is None or spec.content is None or config.content is not None:
        return config
    return config.model_copy(update={"content": spec.content(config)})
