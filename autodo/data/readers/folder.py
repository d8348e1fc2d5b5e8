"""The user's own images: reading them, and the fingerprint that ties a run to them."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from autodo.config.dataset import DatasetConfig
from autodo.data.files.decode import damaged_images
from autodo.data.files.listing import FileList, Listing, WrongFolders, list_images, root_of
from autodo.data.files.read_errors import one_line
from autodo.data.files.remote import local_copy
from autodo.data.images.image_set import Dataset
from autodo.data.readers.location import DatasetLocation
from autodo.data.readers.sources import FileSource, image_source, list_shards
from autodo.errors import DataError


def read_folder(config: DatasetConfig, location: DatasetLocation) -> Dataset:
    """The images of `config.path`: class folders or a CSV (see docs/tutorial/own-images.md), at `config.image_size`.

    Without a test set, a fixed stratified fifth of the train images is the test set.

    Raises:
        DataError: if the path, a class or an image is missing or unsuitable, or the images are not those of
            `config.content`; one line with the file and the remedy.
    """
    assert config.path is not None
    with local_copy(config.path) as path:
        if config.stream:
            source = image_source(path, to_load=True)
            if config.content is not None:
                _check_content(path, config.content, source.content)
            return source.labelled_files(config.damaged_limit).dataset(config)
        if list_shards(path):
            raise DataError(f"{path}: tar shards can only be streamed: set dataset.stream=true")
        listing = _list_readable(path)
        if config.content is not None:
            _check_content(path, config.content, _listing_content(listing, path))
        return FileSource(path, listing).unchecked_files().dataset(config)


def folder_content(config: DatasetConfig) -> str:
    """Fingerprint of a `folder`'s images: 16 hex digits.

    They change if an image is added, removed, edited, renamed, or moved to another class or set, but not if the whole
    folder is copied or moved. For a streamed folder no file is read, so an edit that keeps the file's size is not seen.

    Raises:
        DataError: if the images cannot be listed or read.
    """
    assert config.path is not None
    with local_copy(config.path) as path:
        if config.stream:
            return image_source(path).content
        return _listing_content(_list_readable(path), path)


def _check_content(path: Path, expected: str, now: str) -> None:
    if now != expected:
        raise DataError(
            f"{path}: the images have changed since this run was planned (dataset.content was {expected}, now it is "
            f"{now}); put the old ones back, or start the command again, without dataset.content if it is set, "
            "for a new run"
        )


def _list_readable(path: Path) -> Listing:
    """`list_images`, whose error about wrong class folders also names damaged images."""
    try:
        return list_images(path)
    except WrongFolders as error:
        damaged = damaged_images(error.files, root=path)
        if damaged is None:
            raise
        raise DataError(f"{error}\n{damaged}") from None


def _listing_content(listing: Listing, path: Path) -> str:
    """Fingerprint of (set, class, file, true class if the CSV has it, hash of its bytes) of each image.

    In the order of the listing, on which the split depends: a CSV with its rows in another order has another one.
    """
    root = root_of(path)
    files = [(part, *row) for part, listed in listing.items() for row in _listed_rows(listed)]
    with ThreadPoolExecutor() as pool:
        digests = pool.map(_digest, [root / name for _, _, name, *_ in files])
        rows = [(*file, digest) for file, digest in zip(files, digests, strict=True)]
    return hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()


def _listed_rows(listed: FileList) -> Iterator[tuple[str, ...]]:
    columns = (listed.labels, listed.names)
    return zip(*columns if listed.clean_labels is None else (*columns, listed.clean_labels), strict=True)


def _digest(file: Path) -> str:
    try:
        return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or one_line(error)}; replace or remove it") from None
