"""A person's own images."""

from pathlib import Path

from autodo.config.dataset import DatasetConfig
from autodo.data.files.remote import local_copy
from autodo.data.image_set import Dataset
from autodo.data.readers.content import list_readable, listing_content
from autodo.data.readers.labelled_files import LabelledFiles
from autodo.data.readers.location import DatasetLocation
from autodo.data.readers.sources import image_source, list_shards
from autodo.errors import DataError


def read_folder(config: DatasetConfig, place: DatasetLocation) -> Dataset:
    """The images of `config.path`: class folders or a CSV (see docs/tutorial/own-images.md), at `config.image_size`.

    Without a test set, a fixed stratified fifth of the train images is it.

    Raises:
        DataError: if the path, a class or an image is missing or unsuitable, or the images are not those of
            `config.content`; one line with the file and the remedy.
    """
    assert config.path is not None
    with local_copy(config.path) as path:
        return _read(config, path)


def _read(config: DatasetConfig, path: Path) -> Dataset:
    if config.stream:
        sources = image_source(path, to_load=True)
        if config.content is not None:
            _check_content(path, config.content, sources.content)
        return sources.labelled_files(config.damaged_limit).dataset(config)
    if list_shards(path):
        raise DataError(f"{path}: tar shards can only be streamed: set dataset.stream=true")
    listing = list_readable(path)
    if config.content is not None:
        _check_content(path, config.content, listing_content(listing, path))
    return LabelledFiles.of(listing, path).dataset(config)


def _check_content(path: Path, expected: str, now: str) -> None:
    if now != expected:
        raise DataError(
            f"{path}: the images have changed since this run was planned (dataset.content was {expected}, now it is "
            f"{now}); put the old ones back, or start the command again, without dataset.content if it is set, "
            "for a new run"
        )
