"""Datasets of plug-ins: their reader is called, and what it returns is checked."""

import traceback

import numpy as np

from autodo import plugins
from autodo.config.dataset import DatasetConfig
from autodo.data.files.read_errors import one_line
from autodo.data.images.image_set import ArrayImages, Dataset, ImageSet
from autodo.data.readers.location import DatasetLocation
from autodo.errors import DataError, UserError


def read_plugin(config: DatasetConfig, location: DatasetLocation) -> Dataset:
    """Reads a dataset with its plug-in.

    Raises:
        ConfigError: if the plug-in is missing, or not as it was when the run was planned.
        DataError: if the reader fails, or does not return a dataset that can be used.
    """
    loaded = plugins.get("dataset", config.name, config.code)
    where = f"dataset {config.name!r} of {loaded.source}"
    try:
        dataset = loaded.plugin.read(config, location)
    except UserError:
        raise
    except Exception as error:  # whatever the reader does
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise DataError(
            f"{where}: its reader failed: {type(error).__name__}: {one_line(error)} ({last.filename}:{last.lineno})"
        ) from error
    if not isinstance(dataset, Dataset):
        raise DataError(f"{where}: its reader returned a {type(dataset).__name__}, not an autodo.data.Dataset")
    sets = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    for name, images in sets.items():
        if images is not None:
            _check(images, len(dataset.class_names), f"{where}: {name}")
    return dataset


def _check(images: ImageSet, classes: int, where: str) -> None:
    labels = np.asarray(images.labels)
    if isinstance(images.images, ArrayImages) and images.images.array.dtype != np.uint8:
        raise DataError(f"{where}: images are {images.images.array.dtype}, not uint8 in 0..255")
    shape = images.images.shape
    if len(shape) != 4 or shape[1] not in (1, 3) or shape[2] != shape[3]:
        raise DataError(f"{where}: images have the shape {tuple(shape)}, not [N, C, H, W] with C 1 or 3 and H = W")
    if labels.dtype != np.int64 or labels.shape != (shape[0],):
        raise DataError(
            f"{where}: labels are {labels.dtype} of the shape {labels.shape}, not int64 of the shape ({shape[0]},)"
        )
    if not shape[0]:
        raise DataError(f"{where}: has no images")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{where}: labels are in {labels.min()}..{labels.max()}, but there are {classes} class_names")
