"""ImageNet (ILSVRC 2012), as torchvision unpacks it."""

from autodo.config import DatasetConfig
from autodo.data.class_sets import ClassSets
from autodo.data.files import Place
from autodo.data.image_set import Dataset
from autodo.data.listing import Listing, list_classes
from autodo.errors import DataError


def read_imagenet(config: DatasetConfig, place: Place) -> Dataset:
    """DATA_DIR/train/<wnid>/*.JPEG and DATA_DIR/val/<wnid>/*.JPEG, or the same below DATA_DIR/imagenet; streamed.

    Its "val" images are the test set: the labels of the official test images are not published. The run's own
    validation set is split off train, as the paper does it (section 5.1).

    Raises:
        DataError: if a folder is missing, or a class.
    """
    folders = [place.data_dir / "imagenet", place.data_dir]
    root = next((folder for folder in folders if (folder / "train").is_dir()), None)
    if root is None or not (root / "val").is_dir():
        raise DataError(
            f"{config.name}: {(root or place.data_dir) / ('train' if root is None else 'val')}: no such folder; pass "
            "--data-dir with the folder that holds train/<wnid>/*.JPEG and val/<wnid>/*.JPEG; image-net.org gives the "
            "files away, and torchvision.datasets.ImageNet unpacks them"
        )
    listing: Listing = {"train": list_classes(root / "train"), "val": [], "test": list_classes(root / "val")}
    return ClassSets.of(listing, root).dataset(config)
