"""A trained classifier: uint8 images or features in, class probabilities out, one file on disk."""

import copy
import os
import pickle
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autodo.data.files.read_errors import one_line
from autodo.errors import ConfigError, DataError
from autodo.io.atomic import save_torch
from autodo.io.storage import StrPath, translate_os_errors
from autodo.models import assemble
from autodo.models.cosine_head import CosineHead
from autodo.models.names import is_given
from autodo.results.batches import BATCH_SIZE, outputs
from autodo.results.image_inputs import InputFormat
from autodo.results.model_card import model_card, write_cards

FORMAT = 2


class Classifier(nn.Module):
    """The network at the epoch of lowest val error, with its normalisation and class names, in eval mode.

    Args:
        mean, std: channel statistics in [0, 1], or those of features. Shape: [C].
        image_size: None for a classifier of features.
    """

    mean: Tensor
    std: Tensor
    resize: int | None = None
    """Pixels of the shorter side of an image before the centre crop of `image_size`; None: `image_size`."""
    run: Mapping[str, Any] | None = None
    """The run that it comes from, for its model card: data, errors, provenance (`model_card.run_record`)."""

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
        self._check(images)
        probabilities: Tensor = self.head(self.features(images)).softmax(1)
        return probabilities

    def features(self, images: Tensor) -> Tensor:
        """Outputs of the encoder. Shape: images as `forward` takes them -> [B, D]."""
        pixels = images.to(self.mean.dtype)
        pixels = pixels[:, :, None, None] if self.image_size is None else pixels / 255
        features: Tensor = self.encoder((pixels - self.mean) / self.std)
        return features

    def _check(self, images: Tensor) -> None:
        channels, size, given = self.mean.shape[1], self.image_size, f"{images.dtype} {tuple(images.shape)}"
        if size is None:
            if not images.is_floating_point() or images.ndim != 2 or images.shape[1] != channels:
                raise ValueError(f"features are {given}, not torch.float32 [B, {channels}]")
        elif images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != (channels, size, size):
            raise ValueError(f"images are {given}, not torch.uint8 [B, {(channels, size, size)}]")

    @property
    def inputs(self) -> InputFormat:
        """How images of any kind and size become inputs; of no use for features."""
        return InputFormat(self.mean.shape[1], self.image_size or 1, self.resize)

    def predict(self, images: Any, *, batch_size: int = BATCH_SIZE) -> NDArray[np.str_]:
        """Most probable class of each image.

        Images are prepared as in training: upright, resized, centre cut out, gray or RGB as the classifier needs them.

        Args:
            images: a path, a PIL image, an array ([H, W], [H, W, C], [N, H, W, C]), a tensor ([C, H, W], [N, C, H, W]),
                or a list of them, whose sizes may differ. Values are integers up to 255 or floats up to 1. For a
                classifier of features: an array or tensor [N, features].
            batch_size: images that the network sees at a time.
        Shape:
            -> [N] names of `class_names`; N is 1 for a single image.
        Raises:
            DataError: if an image is damaged or of another kind; the first few are named.
        """
        names: NDArray[np.str_] = np.array(self.class_names)[
            self.predict_proba(images, batch_size=batch_size).argmax(1)
        ]
        return names

    def predict_proba(self, images: Any, *, batch_size: int = BATCH_SIZE) -> NDArray[np.float32]:
        """Probability of each class, for images as `predict` takes them. Shape: -> [N, classes]."""
        return self._outputs(images, self, batch_size)

    @torch.no_grad()
    def embed(self, images: Any, *, batch_size: int = BATCH_SIZE) -> NDArray[np.float32]:
        """Features, the encoder's outputs, of images as `predict` takes them. Shape: -> [N, D]."""
        return self._outputs(images, self.features, batch_size)

    def _outputs(self, images: Any, network: Callable[[Tensor], Tensor], batch_size: int) -> NDArray[np.float32]:
        device = self.mean.device
        if self.image_size is None:
            features = torch.as_tensor(images, dtype=torch.float32)
            self._check(features)
            chunks = features.split(batch_size)
            return torch.cat([network(chunk.to(device)).cpu() for chunk in chunks]).numpy()
        return outputs(images, self.inputs, lambda batch: network(batch.to(device)), batch_size)

    def save(self, path: StrPath) -> None:
        """Write one file that `Classifier.load` reads, and a model card beside it, `*.card.json` and `*.card.md`.

        Raises:
            StoreError: if they cannot be written; one line.
        """
        content = {
            "format": FORMAT,
            "model": self.model,
            "network": self.encoder.settings,
            "channels": self.mean.shape[1],
            "image_size": self.image_size,
            "resize": self.resize,
            "run": None if self.run is None else dict(self.run),
            "class_names": list(self.class_names),
            "cosine_scale": self.head.scale if isinstance(self.head, CosineHead) else None,
            "state": self.state_dict(),
        }
        with translate_os_errors(os.fspath(path), "written"):
            save_torch(content, path)
            write_cards(model_card(self), path)

    @classmethod
    def load(cls, path: StrPath, *, network: nn.Module | None = None) -> Self:
        """The classifier of a file, on the CPU. No code of the file is run.

        Args:
            network: for a classifier whose network was given in Python, a module of the same class and shape. Networks
                by import path need nothing here, but their module must be importable.
        Raises:
            DataError: if the file is missing, damaged or of another format, or its network cannot be built.
        """
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(content, Mapping) or "format" not in content:
                raise ValueError(_kind_of(content))
            if content["format"] not in (1, FORMAT):
                raise ValueError(f"its format is {content['format']}, not {FORMAT}")
            settings = content["network"] if content["format"] > 1 else {"name": content["model"]}
            classifier = cls._built(content, settings, network)
            classifier.load_state_dict(content["state"])
            classifier.resize, classifier.run = content.get("resize"), content.get("run")
        except ConfigError as error:
            raise DataError(f"{os.fspath(path)}: its network cannot be built: {error}") from None
        except Exception as error:
            # torch.load raises many kinds of error on damaged files.
            problem = "torch cannot read it" if isinstance(error, pickle.UnpicklingError) else one_line(error)
            raise DataError(f"{os.fspath(path)}: not a saved classifier: {problem}") from None
        return classifier

    @classmethod
    def _built(cls, content: dict[str, Any], settings: dict[str, Any], network: nn.Module | None) -> Self:
        """Classifier of a file with initial weights."""
        if network is None and is_given(settings["name"]):
            raise ConfigError(
                f"{content['model']} was given in Python: give one of the same class and shape, "
                "Classifier.load(PATH, network=MODULE)"
            )
        size, names = content["image_size"], tuple(content["class_names"])
        encoder, head = assemble(
            settings,
            in_channels=content["channels"],
            image_size=size or 1,
            classes=len(names),
            cosine_scale=content.get("cosine_scale"),
            network=copy.deepcopy(network),
        )
        channel = torch.zeros(content["channels"])
        return cls(content["model"], encoder, head, channel, channel, size, names)


def _kind_of(content: Any) -> str:
    """Description of the content of a file that is no classifier."""
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        return (
            f"it holds the weights of a network alone, {len(content)} tensors, without classes and normalisation; a "
            "training starts from them with model.weights"
        )
    keys = f" of {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
    return f"it holds a {type(content).__name__}{keys}"
