"""Datasets: labelled images, the split, the distortion, shards and batches. Importing it imports no torch or sklearn.

The folders build on each other: `images` has the protocols, `files` lists and decodes files, `stream` decodes them
while a run trains, `readers` reads one dataset family per module. `datasets` is the table of all datasets.
"""

from autodo.data.datasets import DATASETS, DatasetSpec, default_data_dir, load, pin_content
from autodo.data.images.image_set import ArrayImages, Dataset, ImageSet
from autodo.data.prepare import DataSplits, TrainSet, prepare
from autodo.data.readers.folder import folder_content
from autodo.data.readers.location import DatasetLocation
from autodo.data.readers.sources import shared_listing

__all__ = [
    "DATASETS",
    "ArrayImages",
    "DataSplits",
    "Dataset",
    "DatasetLocation",
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
