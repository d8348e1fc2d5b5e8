"""ImageNet (ILSVRC 2012), as torchvision unpacks it or as tar shards."""

from autodo.config.dataset import DatasetConfig
from autodo.data.files.listing import FileList, list_classes
from autodo.data.files.read_errors import reading
from autodo.data.images.image_set import Dataset
from autodo.data.readers.location import DatasetLocation
from autodo.data.readers.sources import FileSource, ImageSource, ShardSource, list_shards
from autodo.errors import DataError


def read_imagenet(config: DatasetConfig, location: DatasetLocation) -> Dataset:
    """Streams DATA_DIR/{train,val}/<wnid>/*.JPEG or DATA_DIR/{train,val}-*.tar; DATA_DIR may hold a folder imagenet.

    The official "val" images are the test set, because the labels of the official test images are not published. The
    run's own validation set is split off train, as in the paper (section 5.1).

    Raises:
        DataError: if a folder or a class is missing, or too many images are damaged.
    """
    return _sources(config.name, location).labelled_files(config.damaged_limit).dataset(config)


def _sources(name: str, location: DatasetLocation) -> ImageSource:
    for root in (location.data_dir / "imagenet", location.data_dir):
        shards = list_shards(root, among_others=True)
        if shards.get("train") and shards.get("val"):
            return ShardSource(root, {"train": shards["train"], "val": [], "test": shards["val"]})
        if (root / "train").is_dir() and (root / "val").is_dir():
            with reading(root):
                train, test = list_classes(root, "train"), list_classes(root, "val")
            if not test.names:
                raise DataError(f"{root / 'val'}: no class folders; sort its images into them, as torchvision does")
            return FileSource(root, {"train": train, "val": FileList([], []), "test": test})
    if not location.data_dir.is_dir():
        raise DataError(
            f"{name}: there is no directory {location.data_dir}; pass --data-dir with the folder of its files"
        )
    raise DataError(
        f"{name}: {location.data_dir} and a folder imagenet in it hold neither train/<wnid>/*.JPEG and "
        "val/<wnid>/*.JPEG nor train-*.tar and val-*.tar; pass --data-dir with the folder that does: image-net.org has "
        "the files, and torchvision.datasets.ImageNet unpacks them"
    )
