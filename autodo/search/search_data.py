"""The part of the train points that a search uses, and a gradient search's views of it and network for it."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from autodo.augment.crop_flip_erase import SMALLEST_ERASED, crop_and_flip, erase
from autodo.augment.pipeline import Pipeline, channel_statistics
from autodo.config.run import RunConfig
from autodo.data.images.image_set import ArrayImages, Integers, Pixels
from autodo.data.images.split import subsample
from autodo.data.prepare import DataSplits
from autodo.models import build
from autodo.seeds import derive, initial_weights, numpy_generator


def search_subset(data: DataSplits, size: int, seed: int) -> tuple[Pixels, Integers]:
    """Images and observed labels of a stratified subsample of the train points; all of them if there are no more.

    They are held in memory, the centres of streamed ones too: a search goes through them again and again.

    Shape:
        -> [n, C, H, W] uint8, [n] int64.
    """
    labels = data.train.labels
    if size >= len(labels):
        return data.train.images.read(), labels
    chosen = subsample(labels, max(size, len(np.unique(labels))), numpy_generator(seed, "search", "subsample"))
    return data.train.images.read(chosen), labels[chosen]


class SearchData:
    """The images that a gradient search reads, on its device, and the standard augmentation around its operations.

    Shape:
        images [n, C, H, W] uint8, labels [n] int64.
    """

    def __init__(self, config: RunConfig, data: DataSplits, size: int, device: str) -> None:
        images, labels = search_subset(data, size, config.seed)
        self.device = torch.device(device)
        self.images = torch.from_numpy(images).to(self.device)
        self.labels = torch.from_numpy(labels).to(self.device)
        self.classes = len(data.class_names)
        self._augmentation = config.augmentation
        mean, std = channel_statistics(ArrayImages(images).statistics_sample())
        self._pipeline = Pipeline(config.augmentation, mean.to(self.device), std.to(self.device))

    def cropped(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Images cropped and flipped, ready for operations. Shape: points [B] -> [B, C, H, W] float in [0, 1]."""
        config = self._augmentation
        cropped = crop_and_flip(self.images[points], config.crop_padding, config.flip, generator, config.border)
        return cropped.float() / 255

    def train_view(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Network inputs of images after their operations: normalised, then erased. Shape: as given."""
        normalised = (pixels - self._pipeline.mean) / self._pipeline.std
        config = self._augmentation
        if not config.erase_probability:
            return normalised
        return erase(normalised, config.erase_probability, generator, (SMALLEST_ERASED, config.erase_area))

    def test_view(self, points: Tensor) -> Tensor:
        """Images as they are, normalised. Shape: points [B] -> [B, C, H, W]."""
        return self._pipeline.test_view(self.images[points])

    def build_network(self, model: str, seed: int, *heads: int) -> "Network":
        """An encoder, a linear head for the classes, and others of these widths; the weights derive from the seed."""
        with initial_weights(derive(seed, "search", "network")):
            channels, size = self.images.shape[1], self.images.shape[-1]
            encoder, head = build(model, in_channels=channels, image_size=size, classes=self.classes)
            others = [nn.Linear(head.in_features, width) for width in heads]
        return Network(encoder, [head, *others]).to(self.device)


class Network(nn.Module):
    """An encoder and its heads. Batch norm in eval mode takes the statistics of the last batch in train mode.

    So in eval mode the loss of an image depends on no other image, and the network is the one of that batch; an average
    over many steps would lag behind the weights.

    Shape:
        images [B, C, H, W] -> [B, K1 + K2 + ...]: the heads side by side.
    """

    def __init__(self, encoder: nn.Module, heads: Iterable[nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(heads)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        return torch.cat([head(features) for head in self.heads], 1)
