"""Tables of the values that levels of operations stand for; the keys of a table are the operations of a policy."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from autodo.augment.operations import NAMES, OPERATIONS


class MagnitudeRange(NamedTuple):
    """value = low + level (high - low), mirrored to 2 mirror - value with probability 1/2 unless `mirror` is None."""

    low: float = 0.0
    high: float = 0.0
    mirror: float | None = None


MagnitudeRanges = Mapping[str, MagnitudeRange]

# Fast AutoAugment's, used by every searched policy; see `operations`.
PUBLISHED: MagnitudeRanges = {
    name: MagnitudeRange(operation.low, operation.high, 0.0 if operation.signed else None)
    for name, operation in OPERATIONS.items()
    if name not in ("Identity", "TranslateXPixels", "TranslateYPixels")
}

# Level 0 does nothing, and a sign is drawn: signed magnitudes of [-high, high], and factors of 1 - high .. 1 + high.
_SLOPE = MagnitudeRange(0, 0.3, mirror=0)
_ANGLE = MagnitudeRange(0, 30, mirror=0)
_FACTOR = MagnitudeRange(1, 1.9, mirror=1)

# AutoDO's 11, in its format [mean, range] (section 4.1 and 5.1); Color and Sharpness have mean 1.
PAPER: MagnitudeRanges = {
    "Identity": MagnitudeRange(),
    "AutoContrast": MagnitudeRange(),
    "Equalize": MagnitudeRange(),
    "Invert": MagnitudeRange(),
    "Color": _FACTOR,
    "Sharpness": _FACTOR,
    "Rotate": _ANGLE,
    "ShearX": _SLOPE,
    "ShearY": _SLOPE,
    "TranslateX": MagnitudeRange(0, 0.45, mirror=0),
    "TranslateY": MagnitudeRange(0, 0.45, mirror=0),
}
# Those that move no pixel, for runs whose affine part is learned.
COLOUR: MagnitudeRanges = {name: PAPER[name] for name in PAPER if OPERATIONS[name].matrix is None}

# torchvision.transforms.AutoAugment and RandAugment: 150 of the 331 pixels of the ImageNet images of the original.
_SHIFT = MagnitudeRange(0, 150 / 331, mirror=0)
ORIGINAL: MagnitudeRanges = {
    "Identity": MagnitudeRange(),
    "ShearX": _SLOPE,
    "ShearY": _SLOPE,
    "TranslateX": _SHIFT,
    "TranslateY": _SHIFT,
    "Rotate": _ANGLE,
    "Brightness": _FACTOR,
    "Color": _FACTOR,
    "Contrast": _FACTOR,
    "Sharpness": _FACTOR,
    # Half a bit more than 8..4, because the operation cuts the fraction off and torchvision rounds.
    "Posterize": MagnitudeRange(8.5, 4.5),
    "Solarize": MagnitudeRange(255, 0),
    "AutoContrast": MagnitudeRange(),
    "Equalize": MagnitudeRange(),
}
# AutoAugment's tables use one operation more.
AUTOAUGMENT: MagnitudeRanges = {**ORIGINAL, "Invert": MagnitudeRange()}

_WIDE_FACTOR = MagnitudeRange(1, 1.99, mirror=1)
# torchvision.transforms.TrivialAugmentWide.
WIDE: MagnitudeRanges = {
    "Identity": MagnitudeRange(),
    "ShearX": MagnitudeRange(0, 0.99, mirror=0),
    "ShearY": MagnitudeRange(0, 0.99, mirror=0),
    "TranslateXPixels": MagnitudeRange(0, 32, mirror=0),
    "TranslateYPixels": MagnitudeRange(0, 32, mirror=0),
    "Rotate": MagnitudeRange(0, 135, mirror=0),
    "Brightness": _WIDE_FACTOR,
    "Color": _WIDE_FACTOR,
    "Contrast": _WIDE_FACTOR,
    "Sharpness": _WIDE_FACTOR,
    "Posterize": MagnitudeRange(8.5, 2.5),
    "Solarize": MagnitudeRange(255, 0),
    "AutoContrast": MagnitudeRange(),
    "Equalize": MagnitudeRange(),
}


class OperationSampler:
    """Draws operations of a table of ranges, and the values of their levels."""

    def __init__(self, ranges: MagnitudeRanges) -> None:
        rows = torch.zeros(len(NAMES), 4)
        for name, (low, high, mirror) in ranges.items():
            # A mirrored value is slope * value + offset.
            slope, offset = (1.0, 0.0) if mirror is None else (-1.0, 2 * mirror)
            rows[NAMES.index(name)] = torch.tensor([low, high - low, slope, offset])
        self._rows = rows
        self._positions = torch.tensor([NAMES.index(name) for name in ranges])

    def draw_values(self, operation: Tensor, level: Tensor, generator: torch.Generator) -> Tensor:
        """Values in the operations' units, with drawn signs. Shape: operation [...] int64, level [...] -> [...]."""
        self._rows = self._rows.to(generator.device)  # a copy to a GPU only once
        low, span, slope, offset = self._rows[operation].unbind(-1)
        value = low + level * span
        flipped = torch.rand(value.shape, generator=generator, device=generator.device) < 0.5
        return torch.where(flipped, slope * value + offset, value)

    def draw_operations(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draws operations uniformly. Shape: -> `shape` int64: positions in NAMES."""
        self._positions = self._positions.to(generator.device)
        return self._positions[torch.randint(len(self._positions), shape, generator=generator, device=generator.device)]
