"""Datasets, the split, the distortion and the batches. Importing this package imports neither torch nor sklearn."""

from autodo.data.datasets import DATASETS, DatasetSpec, default_data_dir, load
from autodo.data.image_set import Dataset, ImageSet
from autodo.data.prepare import Points, Prepared, prepare
from autodo.data.readers.content import folder_content, pin_content
from autodo.data.stream.sources import listed_once

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetSpec",
    "ImageSet",
    "Points",
    "Prepared",
    "default_data_dir",
    "folder_content",
    "listed_once",
    "load",
    "pin_content",
    "prepare",
]
