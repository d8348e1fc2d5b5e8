"""What ties a run to a person's own images: a fingerprint of the files, their classes and sets."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from autodo.config.dataset import DatasetConfig
from autodo.data.files.decode import damaged_images
from autodo.data.files.listing import Listing, WrongFolders, list_images, root_of
from autodo.data.files.reading import one_line
from autodo.data.files.remote import local_copy
from autodo.data.readers.sources import image_source
from autodo.errors import DataError


def pin_content(config: DatasetConfig) -> DatasetConfig:
    """The config with the fingerprint of a `folder`'s images as they are now; any other, or a pinned one, as it is.

    Raises:
        DataError: if the images cannot be listed or read.
    """
    if config.name != "folder" or config.content is not None:
        return config
    return config.model_copy(update={"content": folder_content(config)})


def folder_content(config: DatasetConfig) -> str:
    """16 hex digits that change if an image of a `folder` is added, removed, edited, renamed, or moved to another class
    or set, and do not if the folder as a whole is copied or moved.

    Of one that is streamed, an edit that leaves the file's size as it was is not seen: no file is read.

    Raises:
        DataError: if the images cannot be listed or read.
    """
    assert config.path is not None
    with local_copy(config.path) as path:
        if config.stream:
            return image_source(path).content
        return listing_content(list_readable(path), path)


def list_readable(path: Path) -> Listing:
    """`list_images`, of images that are to be held in memory: if class folders are wrong, damaged images are named too.

    Raises:
        DataError: a line for each class folder that is wrong, and one for the images that cannot be read.
    """
    try:
        return list_images(path)
    except WrongFolders as error:
        damaged = damaged_images(error.files, root=path)
        if damaged is None:
            raise
        raise DataError(f"{error}\n{damaged}") from None


def listing_content(listing: Listing, path: Path) -> str:
    """The fingerprint of images that are listed already: of (set, class, file, hash of its bytes) of each.

    In the order of the listing, because the split depends on it: a CSV with its rows in another order is another one.
    """
    root = root_of(path)
    files = [(part, label, name) for part, listed in listing.items() for name, label in zip(*listed, strict=True)]
    with ThreadPoolExecutor() as pool:
        digests = pool.map(_digest, [root / name for _, _, name in files])
        rows = [(*file, digest) for file, digest in zip(files, digests, strict=True)]
    return hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()


def _digest(file: Path) -> str:
    try:
        return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or one_line(error)}; replace or remove it") from None
