"""A policy as data: the result of a search or a published policy, kept in a store as JSON.

    {"source": "...", "sub_policies": [[["Rotate", 0.9, 0.3], ["Invert", 0.2, 0.7]], ...]}

One sub-policy is drawn per image; its operations follow one another, each with its probability. A schedule has one
policy for each share of the training:

    {"source": "...", "schedule": [{"from": 0.0, "operations": [["Rotate", 0.9, 0.3], ...]}, ...]}

0, 1 or 2 operations of a stage are drawn per image (population-based augmentation).
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

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
OperationStep = tuple[OperationName, Unit, Unit]
"""Operation, probability, level: value = low + level (high - low)."""
SubPolicy = Annotated[tuple[OperationStep, ...], Field(min_length=1)]


class ScheduleStage(Frozen):
    """Operations that a schedule draws from, beginning at a share of the training."""

    start: Annotated[float, Field(ge=0, lt=1, alias="from")]
    operations: Annotated[tuple[OperationStep, ...], Field(min_length=1)]


class PolicyFile(Frozen):
    """A policy: either `sub_policies` or a `schedule`."""

    source: str = ""
    """Origin of the policy, for people."""
    sub_policies: tuple[SubPolicy, ...] = ()
    schedule: tuple[ScheduleStage, ...] = ()
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Details of the search: configuration, versions, device, seconds, rewards. No part of the policy's meaning."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.sub_policies) == bool(self.schedule):
            raise ValueError("is either a list of sub_policies or a schedule, and not empty")
        starts = [stage.start for stage in self.schedule]
        if starts and (starts[0] != 0 or starts != sorted(set(starts))):
            raise ValueError(f"schedule: begins at 0 and goes up, not {starts}")
        return self


def fingerprint(policy: PolicyFile) -> str:
    """First 16 hex digits of the sha256 of the sub-policies or the schedule."""
    content = policy.model_dump(mode="json", by_alias=True, include={"sub_policies", "schedule"})
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
