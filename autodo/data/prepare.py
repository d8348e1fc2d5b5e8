"""Data splits of a run: val is split off, then the train set is made imbalanced and some of its labels wrong."""

import functools
import hashlib
from dataclasses import dataclass

import numpy as np

from autodo.config.run import RunConfig
from autodo.data.distort import kept_images, long_tail
from autodo.data.images.image_set import Dataset, Images, ImageSet, Integers
from autodo.data.images.split import stratified_split
from autodo.data.minority import minority_classes
from autodo.data.noise import observed_labels
from autodo.errors import DataError
from autodo.seeds import numpy_generator


@dataclass(frozen=True, eq=False)
class TrainSet:
    """Train points with their observed labels.

    Shape:
        images [N, C, H, W] uint8; labels, clean_labels, index [N] int64.
    """

    images: Images
    labels: Integers
    """Observed labels, of which some are wrong."""
    clean_labels: Integers
    """Labels before the distortion, or from the column clean_label of the user's CSV; never used for training."""
    index: Integers
    """Position in the whole train set, before subsample and split."""
    sources: tuple[str, ...] | None
    """File of each image, for `folder` and `imagenet`."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class DataSplits:
    """Train, val and test sets of a run."""

    train: TrainSet
    val: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    minority: tuple[int, ...] = ()
    """Labels of the minority classes: `autodo.data.minority`."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that depend on the index, label and file name of every image, but not on the files' content."""
        digest = hashlib.blake2b(digest_size=8)
        for part in (self.train, self.val, self.test):
            digest.update(f"{len(part)}\n".encode())
            digest.update(part.labels.tobytes())
            digest.update(part.index.tobytes())
            digest.update("\n".join(part.sources or ()).encode(errors="surrogateescape"))
        return digest.hexdigest()


def prepare(dataset: Dataset, config: RunConfig) -> DataSplits:
    """Splits off val, unless the dataset has its own, and distorts the train points.

    The result depends on (dataset, val share, distortion, seed) only: all methods see the same split and the same wrong
    labels, and all distortions with one seed the same split. With split `test-as-val` val is the test set, and the
    images that were split off are unused, so that the train points are those of split `paper`. With split `oversplit`
    nothing is split off: train and val are both the whole train set.

    Raises:
        DataError: if a class has too few images for the split, or a dataset with a val set of its own should be
            oversplit.
    """
    generator = functools.partial(numpy_generator, config.seed)
    classes = len(dataset.class_names)
    labels = dataset.train.labels
    if config.split == "oversplit":
        if dataset.val is not None:
            raise DataError(
                f"{config.dataset.path or config.dataset.name}: split 'oversplit' takes val from the train images, but "
                "this dataset has a val set of its own; use 'paper' or 'union'"
            )
        rest, val = np.arange(len(labels)), dataset.train
    elif dataset.val is None:
        rest, held = stratified_split(
            labels,
            config.dataset.val_share,
            generator("split"),
            class_names=dataset.class_names,
            where=config.dataset.path or config.dataset.name,
        )
        val = dataset.train.take(held)
    else:
        rest, val = np.arange(len(labels)), dataset.val
    if config.split == "test-as-val":
        val = dataset.test
    distortion = config.distortion
    kept = rest[kept_images(labels[rest], classes, distortion, generator("imbalance"))]
    train = dataset.train.take(kept)
    points = TrainSet(
        images=train.images,
        labels=observed_labels(train, dataset.train, classes, distortion, generator("noise")),
        clean_labels=train.labels if train.clean_labels is None else train.clean_labels,
        index=train.index,
        sources=train.sources,
    )
    whole, before, after = (np.bincount(part, minlength=classes) for part in (labels, labels[rest], labels[kept]))
    minority = minority_classes(whole, reduced=after < before)
    if distortion.imbalance == "exponential":
        minority = minority_classes(long_tail(classes, distortion.imbalance_ratio))
    return DataSplits(
        train=points,
        val=val,
        test=dataset.test,
        class_names=dataset.class_names,
        minority=minority,
    )
