"""Networks as a person may have them, by import path."""

from typing import Any

import torch
from torch import Tensor, nn


def make(in_channels: int, classes: int) -> nn.Module:
    """A small network with batch norm and ReLU that ends in a linear layer."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


def for_colours() -> nn.Module:
    """The same for images of three channels and seven classes."""
    return make(3, 7)


def backbone(**sizes: int) -> nn.Module:
    """The same without its head."""
    return make(sizes["in_channels"], 2)[:-1]


def with_dropout(in_channels: int) -> nn.Module:
    """The same with a layer that draws random numbers."""
    network = make(in_channels, 10)
    return nn.Sequential(*network[:-1], nn.Dropout(), network[-1])


def with_softmax(in_channels: int) -> nn.Module:
    """The same with a softmax after its head."""
    return nn.Sequential(make(in_channels, 3), nn.Softmax(1))


def with_activation(in_channels: int) -> nn.Module:
    """The same with an activation that overwrites the outputs of its last layer."""
    return nn.Sequential(make(in_channels, 3), nn.ReLU(inplace=True))


class WithTuples(nn.Module):
    """Returns a tuple in train mode."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.network = make(in_channels, classes)

    def forward(self, images: Tensor) -> Any:
        logits = self.network(images)
        return (logits, logits) if self.training else logits


class Scaled(nn.Module):
    """Calculates with the outputs of its last layer."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.network = make(in_channels, 3)

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.network(images))


class Twice(nn.Module):
    """Uses its last layer twice."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.network = make(in_channels, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.network[-1](torch.relu(self.network(images)))


class AsksItsHead(nn.Module):
    """Needs an attribute of its last layer."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.network = make(in_channels, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.to(self.network[-1].weight.dtype))


class DropsLogits(nn.Module):
    """Changes the outputs of its last layer in train mode."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.network = make(in_channels, 3)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.dropout(self.network(images), training=self.training)


class Bare(nn.Module):
    """Calculates with a weight of its own."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, in_channels))

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.linear(images.mean((2, 3)), self.weight)


def with_nan() -> nn.Module:
    """A network with a broken weight."""
    network = make(1, 3)
    nn.init.constant_(network[-1].bias, torch.nan)
    return network


def needs_depth(depth: int) -> nn.Module:
    """A function that needs something that it cannot get."""
    raise AssertionError


def fails() -> nn.Module:
    """A function with an error."""
    raise RuntimeError("no such layer")


def no_module() -> str:
    """A function that returns something else."""
    return "resnet"
