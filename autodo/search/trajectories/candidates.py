"""The candidates of OHL-Auto-Aug: 36 operations with fixed values, and the pairs of them.

Reference: Lin et al., ICCV 2019, section 4.1.
"""

import itertools

from autodo.augment.operations import OPERATIONS
from autodo.augment.policy_file import OperationName, OperationStep, SubPolicy

# In the units of `autodo.augment.operations`. The operations of a pair are always applied.
VALUES: dict[OperationName, tuple[float, ...]] = {
    "ShearX": (0.1, 0.2, 0.3),
    "ShearY": (0.1, 0.2, 0.3),
    "TranslateX": (0.15, 0.3, 0.45),
    "TranslateY": (0.15, 0.3, 0.45),
    "Rotate": (10, 20, 30),
    "Color": (0.3, 0.6, 0.9),
    "Posterize": (4.4, 5.6, 6.8),
    "Solarize": (26, 102, 179),
    "Contrast": (1.3, 1.6, 1.9),
    "Sharpness": (1.3, 1.6, 1.9),
    "Brightness": (1.3, 1.6, 1.9),
    "AutoContrast": (0,),
    "Equalize": (0,),
    "Invert": (0,),
}


def _step(name: OperationName, value: float) -> OperationStep:
    operation = OPERATIONS[name]
    span = operation.high - operation.low
    return name, 1.0, (value - operation.low) / span if span else 0.0


CANDIDATES: tuple[OperationStep, ...] = tuple(_step(name, value) for name in VALUES for value in VALUES[name])
PAIRS: tuple[SubPolicy, ...] = tuple(itertools.product(CANDIDATES, repeat=2))
"""All 1,296 ordered pairs; the first operation is applied first."""
