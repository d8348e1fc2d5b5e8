"""Datasets, the split, the distortion and the batches. Importing this package imports neither torch nor sklearn."""

from autodo.data.datasets import DATASETS, DatasetSpec, default_data_dir, load
from autodo.data.image_set import ArrayImages, Dataset, ImageSet
from autodo.data.prepare import DataSplits, TrainSet, prepare
from autodo.data.readers.folder import folder_content, pin_content
from autodo.data.readers.sources import shared_listing

__all__ = [
    "DATASETS",
    "ArrayImages",
    "DataSplits",
    "Dataset",
    "DatasetSpec",
    "ImageSet",
    "TrainSet",
    "default_data_dir",
    "folder_content",
    "load",
    "pin_content",
    "prepare",
    "shared_listing",
]
