"""ImageNet (ILSVRC 2012), as torchvision unpacks it or as tar shards."""

from autodo.config import DatasetConfig
from autodo.data.class_sets import ClassSets
from autodo.data.files import Place
from autodo.data.image_set import Dataset
from autodo.data.listing import Listing, list_classes
from autodo.data.stream.sources import Shards, list_shards, sets_of_shards, without_damaged
from autodo.errors import DataError


def read_imagenet(config: DatasetConfig, place: Place) -> Dataset:
    """DATA_DIR/{train,val}/<wnid>/*.JPEG, or DATA_DIR/{train,val}-*.tar, or either in DATA_DIR/imagenet; streamed.

    Its "val" images are the test set: the labels of the official test images are not published. The run's own
    validation set is split off train, as the paper does it (section 5.1).

    Raises:
        DataError: if a folder or a class is missing, or too many images are damaged.
    """
    for root in (place.data_dir / "imagenet", place.data_dir):
        shards = list_shards(root)
        if shards.get("train") and shards.get("val"):
            of_set: Shards = {"train": shards["train"], "val": [], "test": shards["val"]}
            return sets_of_shards(root, of_set, config.damaged_limit).dataset(config)
        if (root / "train").is_dir() and (root / "val").is_dir():
            listing: Listing = {"train": list_classes(root / "train"), "val": [], "test": list_classes(root / "val")}
            if not listing["test"]:
                raise DataError(f"{root / 'val'}: no class folders; sort its images into them as torchvision does")
            return without_damaged(ClassSets.of(listing, root), config.damaged_limit).dataset(config)
    raise DataError(
        f"{config.name}: {place.data_dir} and a folder imagenet in it hold neither train/<wnid>/*.JPEG and "
        "val/<wnid>/*.JPEG nor train-*.tar and val-*.tar; pass --data-dir with the folder that does: image-net.org has "
        "the files, and torchvision.datasets.ImageNet unpacks them"
    )
