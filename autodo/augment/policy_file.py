"""A policy as data: the result of a search or a published policy, kept in a store as JSON.

    {"source": "...", "sub_policies": [[["Rotate", 0.9, 0.3], ["Invert", 0.2, 0.7]], ...]}

One sub-policy is drawn per image; its operations follow one another, each with its probability. A schedule has one
policy for each share of the training:

    {"source": "...", "schedule": [{"from": 0.0, "operations": [["Rotate", 0.9, 0.3], ...]}, ...]}

0, 1 or 2 operations of a stage are drawn per image (population-based augmentation). With sub-policies beside it, a
schedule has their weights instead, which their probabilities are proportional to (OHL-Auto-Aug):

    {"source": "...", "sub_policies": [...], "schedule": [{"from": 0.0, "weights": [1.0, 0.5, ...]}, ...]}
"""

import hashlib
import json
import math
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, NonNegativeFloat, model_validator

from autodo.config.validation import Frozen

OperationName = Literal[
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "AutoContrast",
    "Invert",
    "Equalize",
    "Solarize",
    "Posterize",
    "Contrast",
    "Color",
    "Brightness",
    "Sharpness",
    "Cutout",
]
OPERATION_NAMES: tuple[OperationName, ...] = get_args(OperationName)
Unit = Annotated[float, Field(ge=0, le=1)]
OperationStep = tuple[str, Unit, Unit]
"""Operation, probability, level: value = low + level (high - low)."""
SubPolicy = Annotated[tuple[OperationStep, ...], Field(min_length=1)]
SearchedSubPolicy = Annotated[tuple[tuple[OperationName, Unit, Unit], ...], Field(min_length=1)]
"""Sub-policy of a search, which has built-in operations only."""


class ScheduleStage(Frozen):
    """Operations that a schedule draws from, or weights of sub-policies, beginning at a share of the training."""

    start: Annotated[float, Field(ge=0, lt=1, alias="from")]
    operations: Annotated[tuple[OperationStep, ...], Field(exclude_if=lambda given: not given)] = ()
    weights: Annotated[tuple[NonNegativeFloat, ...], Field(exclude_if=lambda given: not given)] = ()
    """Relative probability of each sub-policy of the policy."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.operations) == bool(self.weights):
            raise ValueError("has either operations or weights")
        if self.weights and not 0 < sum(self.weights) < math.inf:
            raise ValueError("weights: must be finite, and not all 0")
        return self


class PolicyFile(Frozen):
    """A policy: either `sub_policies` or a `schedule`; or both, if the schedule has weights of the sub-policies."""

    source: str = ""
    """Origin of the policy, for people."""
    sub_policies: tuple[SubPolicy, ...] = ()
    schedule: tuple[ScheduleStage, ...] = ()
    operations: dict[str, str] = Field(default_factory=dict, exclude_if=lambda given: not given)
    """Code of each operation that is of a plug-in (`autodo.plugins`)."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Details of the search: configuration, versions, device, seconds, rewards. No part of the policy's meaning."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        weighted = [bool(stage.weights) for stage in self.schedule]
        if any(weighted):
            count = len(self.sub_policies)
            if any(len(stage.weights) != count for stage in self.schedule):
                raise ValueError(f"schedule: needs a weight for each of the {count} sub_policies in every stage")
        elif bool(self.sub_policies) == bool(self.schedule):
            raise ValueError("is either a list of sub_policies or a schedule, and not empty")
        lists = {f"sub_policies.{n}": steps for n, steps in enumerate(self.sub_policies)}
        lists |= {f"schedule.{n}.operations": stage.operations for n, stage in enumerate(self.schedule)}
        known = {*OPERATION_NAMES, *self.operations}
        for where, steps in lists.items():
            for n, (name, _, _) in enumerate(steps):
                if name not in known:
                    raise ValueError(f"{where}.{n}.0: unknown operation {name!r}; known: {', '.join(OPERATION_NAMES)}")
        starts = [stage.start for stage in self.schedule]
        if starts and (starts[0] != 0 or starts != sorted(set(starts))):
            raise ValueError(f"schedule: begins at 0 and goes up, not {starts}")
        return self


def fingerprint(policy: PolicyFile) -> str:
    """First 16 hex digits of the sha256 of the sub-policies or the schedule, and the code of plug-ins' operations."""
    content = policy.model_dump(mode="json", by_alias=True, include={"sub_policies", "schedule", "operations"})
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
