"""A trained classifier: uint8 images or features in, class probabilities out, one file on disk."""

import os
from typing import Any, Self

import torch
from torch import Tensor, nn

from autodo.errors import DataError
from autodo.io.atomic import save_torch
from autodo.io.storage import StrPath
from autodo.models import build
from autodo.models.cosine_head import CosineHead

FORMAT = 1


class Classifier(nn.Module):
    """The network at the epoch of lowest val error, with its normalisation and class names, in eval mode.

    Args:
        mean, std: channel statistics in [0, 1], or those of features. Shape: [C].
        image_size: None for a classifier of features.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: str,
        encoder: nn.Module,
        head: nn.Linear,
        mean: Tensor,
        std: Tensor,
        image_size: int | None,
        class_names: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.model = model
        self.encoder = encoder
        self.head = head
        self.register_buffer("mean", mean.reshape(1, -1, 1, 1).clone())
        self.register_buffer("std", std.reshape(1, -1, 1, 1).clone())
        self.image_size = image_size
        self.class_names = class_names
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Class probabilities.

        Shape:
            images [B, C, image_size, image_size] uint8, or features [B, C] float -> [B, classes].
        Raises:
            ValueError: if the images are of another type or shape.
        """
        probabilities: Tensor = self.head(self.encoder(self._normalised(images))).softmax(1)
        return probabilities

    def _normalised(self, images: Tensor) -> Tensor:
        channels = self.mean.shape[1]
        if self.image_size is None:
            if not images.is_floating_point() or images.ndim != 2 or images.shape[1] != channels:
                given = f"{images.dtype} {tuple(images.shape)}"
                raise ValueError(f"this classifier takes features, torch.float32 [B, {channels}], not {given}")
            return (images.to(self.mean.dtype)[:, :, None, None] - self.mean) / self.std
        expected = (channels, self.image_size, self.image_size)
        if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"images are {images.dtype} {tuple(images.shape)}, not torch.uint8 [B, {expected}]")
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    def save(self, path: StrPath) -> None:
        """Writes one file that `Classifier.load` reads."""
        content = {
            "format": FORMAT,
            "model": self.model,
            "channels": self.mean.shape[1],
            "image_size": self.image_size,
            "class_names": list(self.class_names),
            "cosine_scale": self.head.scale if isinstance(self.head, CosineHead) else None,
            "state": self.state_dict(),
        }
        save_torch(content, path)

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """The classifier of a file, on the CPU. No code of the file is run.

        Raises:
            DataError: if the file is missing, damaged or of another format.
        """
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']}, not {FORMAT}")
            names = tuple(content["class_names"])
            encoder, head = build(
                content["model"],
                in_channels=content["channels"],
                image_size=content["image_size"] or 1,
                classes=len(names),
                cosine_scale=content.get("cosine_scale"),
            )
            channel = torch.zeros(content["channels"])
            classifier = cls(content["model"], encoder, head, channel, channel, content["image_size"], names)
            classifier.load_state_dict(content["state"])
        except Exception as error:
            # torch.load raises many kinds of error on damaged files.
            raise DataError(f"{os.fspath(path)}: not a saved classifier: {error}") from None
        return classifier
