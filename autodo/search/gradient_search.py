"""What the searches that follow a gradient share: epoch after epoch, kept and continued."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from autodo.augment.crop_flip_erase import crop_and_flip, erase
from autodo.augment.pipeline import Pipeline, channel_statistics
from autodo.augment.policy_file import OperationStep, PolicyFile
from autodo.config.policy import SearchedPolicy
from autodo.config.run import RunConfig
from autodo.data.image_set import ArrayImages
from autodo.data.prepare import DataSplits
from autodo.errors import TrainingDiverged
from autodo.models import build
from autodo.search.smooth_operations import SEARCHED
from autodo.search.subset import search_subset
from autodo.search.tasks import ReportLine
from autodo.seeds import derive, initial_weights
from autodo.training import checkpoint as checkpoints

log = logging.getLogger(__name__)
SubPolicies = tuple[tuple[OperationStep, ...], ...]


class FoundPolicy(NamedTuple):
    """A policy, and what its provenance says beside what it does."""

    sub_policies: SubPolicies
    weights: dict[str, Any]


class Stateful(Protocol):
    """A module or an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class GradientSearch(Protocol):
    """A search whose whole state lies in `parts`; every random stream derives from (seed, epoch)."""

    @property
    def epochs(self) -> int: ...

    @property
    def parts(self) -> Mapping[str, Stateful]: ...

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the images: the losses and whatever else is worth a number."""

    def found(self) -> FoundPolicy:
        """The policy as it stands."""


def search_by_epochs(
    build_search: Callable[[], GradientSearch],
    config: RunConfig,
    *,
    device: str,
    checkpoint: Path | None,
    tell: ReportLine,
) -> PolicyFile:
    """Runs a search to its end, from where its checkpoint stands.

    On a CPU a search that is cut and continued finds what an uninterrupted one does, bit for bit.

    Raises:
        TrainingDiverged: if a loss is no longer finite.
    """
    assert isinstance(config.policy, SearchedPolicy)
    search_id = config.search_id
    assert search_id is not None
    algorithm = config.policy.search.algorithm
    search, history = _continued(build_search, checkpoint, search_id)
    kept = len(history)
    for epoch in range(len(history), search.epochs):
        started = time.perf_counter()
        row = search.run_epoch(epoch)
        for what, value in row.items():
            if not math.isfinite(value):
                raise TrainingDiverged(f"{algorithm} search: {what.replace('_', ' ')}", epoch, kept)
        history.append({**row, "seconds": time.perf_counter() - started})
        if checkpoint is not None:
            state = {
                "epoch": epoch + 1,
                "search": {name: part.state_dict() for name, part in search.parts.items()},
                "history": history,
            }
            if checkpoints.save(checkpoint, search_id, state, rows={}):
                kept = epoch + 1
        told = ", ".join(f"{what.replace('_', ' ')} {value:.4g}" for what, value in history[-1].items())
        tell(f"{algorithm} search, epoch {epoch + 1} of {search.epochs}: {told}")
    found = search.found()
    return PolicyFile(
        source=f"{algorithm} on {config.dataset.label} {config.distortion}, seed {config.seed}",
        sub_policies=found.sub_policies,
        provenance={
            "seconds": sum(row["seconds"] for row in history),
            "epochs": history,
            "weights": found.weights,
        },
    )


def _continued(
    build_search: Callable[[], GradientSearch], checkpoint: Path | None, search_id: str
) -> tuple[GradientSearch, list[dict[str, float]]]:
    """The search as its checkpoint holds it, and its rows so far; a new one if there is none that can be used."""
    search = build_search()
    kept = None if checkpoint is None else checkpoints.load(checkpoint, search_id)
    if kept is None:
        return search, []
    try:
        for name, part in search.parts.items():
            part.load_state_dict(kept["search"][name])
        history: list[dict[str, float]] = kept["history"]
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        log.warning("%s cannot be used, the search starts anew: %s: %s", checkpoint, type(error).__name__, error)
        return build_search(), []
    return search, history


class SearchImages:
    """The images that a search reads, the standard augmentation around its operations, and a network for them.

    Shape:
        images [n, C, H, W] uint8, labels [n] int64, on the device.
    """

    def __init__(self, config: RunConfig, data: DataSplits, size: int, model: str, device: str) -> None:
        images, labels = search_subset(data, size, config.seed)
        self.device = torch.device(device)
        self.images = torch.from_numpy(images).to(self.device)
        self.labels = torch.from_numpy(labels).to(self.device)
        self.classes = len(data.class_names)
        self._config = config
        self._model = model
        mean, std = channel_statistics(ArrayImages(images).statistics_sample())
        self._pipeline = Pipeline(config.augmentation, mean.to(self.device), std.to(self.device))

    def pixels(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Images cropped and flipped, ready for operations. Shape: points [B] -> [B, C, H, W] float in [0, 1]."""
        augmentation = self._config.augmentation
        images = crop_and_flip(self.images[points], augmentation.crop_padding, augmentation.flip, generator)
        return images.float() / 255

    def train_view(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """What a network sees of images after their operations: normalised, then erased. Shape: as given."""
        normalised = (pixels - self._pipeline.mean) / self._pipeline.std
        probability = self._config.augmentation.erase_probability
        return erase(normalised, probability, generator) if probability else normalised

    def test_view(self, points: Tensor) -> Tensor:
        """Images as they are, normalised. Shape: points [B] -> [B, C, H, W]."""
        return self._pipeline.test_view(self.images[points])

    def network(self, *heads: int) -> "Network":
        """An encoder with linear heads of these widths; its initial weights derive from the seed."""
        with initial_weights(derive(self._config.seed, "search", "network")):
            channels, size = self.images.shape[1], self.images.shape[-1]
            encoder, head = build(self._model, in_channels=channels, image_size=size, classes=self.classes)
            rest = [nn.Linear(head.in_features, width) for width in heads]
        return Network(encoder, [head, *rest]).to(self.device)


class Network(nn.Module):
    """An encoder and its heads. Batch norm in eval mode takes the statistics of the last batch in train mode.

    So in eval mode the loss of an image depends on no other image, but the network is the one of that batch; an average
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


def step_of(operation: int, probability: Tensor, level: Tensor) -> OperationStep:
    """A step of a policy file; four decimals are more than a policy can feel."""
    return SEARCHED[operation], round(float(probability), 4), round(float(level), 4)
