"""Datasets: labelled images, the split, the distortion, shards and batches. Importing it imports no torch or sklearn.

`files` lists and decodes image files, `stream` decodes them while a run trains, `readers` has one module per dataset
family, `datasets` the table of all.
"""

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
