"""Context of a run on one process: settings, data, device, process group and random streams."""

import time
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autodo.config.run import RunConfig
from autodo.data import DataSplits, ImageSet
from autodo.data.images.crop import CropParameters
from autodo.data.images.device_loader import DeviceLoader
from autodo.data.images.image_set import Images, Integers
from autodo.data.sharding import training_shard
from autodo.distributed.process_group import ProcessGroup
from autodo.errors import DataError
from autodo.models.encoder import Encoder
from autodo.seeds import derive, torch_generator


class FrozenEncoder(NamedTuple):
    """An encoder that stays as it is, whose features are the data of the run in place of images.

    Shape:
        mean, std [C], of the normalisation before it.
    """

    encoder: Encoder
    head: nn.Linear
    """The head that is trained on the features, with its initial weights."""
    mean: Tensor
    std: Tensor
    images: Images
    """The train images."""
    seconds: float
    """Time in which the features were computed."""


@dataclass(frozen=True)
class RunContext:
    """Settings and data of a run, its device and its process group."""

    config: RunConfig
    data: DataSplits
    device: torch.device
    group: ProcessGroup
    frozen: FrozenEncoder | None = None
    """The encoder whose features the data is; None if the network trains on the data itself."""

    def check_same_images(self) -> None:
        """Raise DataError if the processes have different images.

        Each process has indexed the files by itself, and positions must mean the same images on all of them.
        """
        config, fingerprint = self.config, self.data.fingerprint
        if not self.group.all_true(fingerprint == self.group.broadcast_object(fingerprint)):
            raise DataError(
                f"{config.dataset.path or config.dataset.name}: the images are not the same on all nodes that train "
                "this run: files are missing, other or damaged on some; make the copies equal"
            )

    @property
    def train_images(self) -> Images:
        """The train images, even if the run trains on their features."""
        return self.data.train.images if self.frozen is None else self.frozen.images

    def generator(self, phase: str, number: int) -> torch.Generator:
        """Random generator of this process for one phase of one epoch, or for another numbered event."""
        return torch_generator(self.config.seed, phase, number, *self.group.stream, device=self.device)

    def shared_generator(self, event: str, number: int) -> torch.Generator:
        """Random generator of a numbered event, for values that are the same on every process."""
        return torch_generator(self.config.seed, event, number, device=self.device)

    def crops(self, phase: str, epoch: int) -> CropParameters | None:
        """Random crops of streamed images in one phase of one epoch; the same on every process."""
        scale = self.config.augmentation.resized_crop
        return None if scale is None else CropParameters(scale, seed=derive(self.config.seed, "crops", phase, epoch))

    def clock(self) -> float:
        """Seconds, read when the device has done all work so far."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class LabelledImages(NamedTuple):
    """This process's images of a set, and their labels on the training device."""

    images: DeviceLoader
    labels: Tensor
    total: int
    """Images of the set over all processes."""


class Loaders:
    """The images of this process: its shards of the inner problem (`train`), of val and of test.

    Raises:
        ConfigError: if there are too many processes.
    """

    def __init__(self, context: RunContext) -> None:
        config, data, group = context.config, context.data, context.group
        self._context = context
        self.shard = training_shard(data, config, group)
        self.train = self.load(*self.shard.points(data), self.shard.total)
        self.val = self.load_shard(data.val)
        self.test = self.load_shard(data.test)

    @property
    def train_size(self) -> int:
        """Number of train points of this process; its trusted val points, if any, come after them."""
        return len(self.shard.train)

    def load(self, images: Images, labels: Integers, total: int) -> LabelledImages:
        """Images and labels on the device. Shape: n images, labels [n] int64."""
        device = self._context.device
        return LabelledImages(images.loader(device), torch.from_numpy(labels).to(device), total)

    def load_shard(self, images: ImageSet) -> LabelledImages:
        """This process's round-robin shard of a set."""
        shard = self._context.group.shard
        return self.load(images.images[shard], images.labels[shard], len(images))


class PhaseResult(NamedTuple):
    """Figures of the training steps of an epoch."""

    loss: float
    """Mean over the images."""
    lr: float
    """Learning rate of the last step."""
    images: int
    """Images of the epoch over all processes."""
    seconds: float
