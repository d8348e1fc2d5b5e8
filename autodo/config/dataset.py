"""The data of a run: which images, and how their labels are distorted."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from autodo.config.validation import Frozen, parse_model
from autodo.errors import ConfigError
from autodo.io.storage import check_uri, is_uri, without_secrets

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Minority = Literal["total", "total-proportional", "class"]
ALWAYS_STREAMED = ("imagenet",)
"""Datasets that no memory holds."""


class DatasetConfig(Frozen):
    """Which images, and how many of them."""

    name: str
    path: str | None = None
    """Directory of class folders, or CSV of path,label; a path or a URI. Only for `folder`."""
    image_size: Positive | None = None
    """Side in pixels to which images of a `folder`, or of `imagenet`, are resized."""
    stream: bool = False
    """Whether images of a `folder` are read from their files while training, and not held in memory; those of
    `imagenet` always are."""
    damaged_limit: Annotated[float, Field(ge=0, lt=1)] = 0.001
    """Share of the images that may be damaged, and so be left out, of a set that is streamed."""
    content: str | None = None
    """Fingerprint of a `folder`'s files and classes, from `autodo.data.pin_content`; the images must still have it."""
    subsample: Positive | None = None
    """Keep this many images of the train set: a fixed stratified subsample, drawn before the split."""
    val_share: Share = 0.2

    @field_validator("path")
    @classmethod
    def _no_credentials(cls, path: str | None) -> str | None:
        if path is not None and is_uri(path):
            check_uri(path)
        return path

    @model_validator(mode="after")
    def _folder_has_a_path(self) -> Self:
        if self.name == "folder":
            if not self.path:
                raise ValueError("path is needed: the directory of class folders, or the CSV of path,label")
            if self.image_size is None:
                raise ValueError("image_size is needed: the side in pixels to which images are resized")
        elif (self.path, self.content, self.stream) != (None, None, False):
            raise ValueError(
                f"path, content and stream are for the dataset 'folder' only, not for {self.name!r}; "
                "--data-dir says where the files of a named dataset are"
            )
        elif (self.image_size is not None) != (self.name in ALWAYS_STREAMED):
            told = "is needed" if self.image_size is None else f"is for 'folder' and 'imagenet', not for {self.name!r}"
            raise ValueError(f"image_size {told}: the side in pixels to which images are resized")
        return self

    @property
    def streams(self) -> bool:
        """Whether the images stay in their files."""
        return self.stream or self.name in ALWAYS_STREAMED

    @property
    def label(self) -> str:
        """Name in run ids and tables: the dataset, or `folder-<basename>` for a person's own images."""
        if self.path is None:
            return self.name
        path = without_secrets(self.path) if is_uri(self.path) else self.path
        return f"folder-{re.sub(r'[^A-Za-z0-9]+', '-', Path(path).stem).strip('-').lower() or 'images'}"


class DistortionConfig(Frozen):
    """What is done to the train labels after the split (DESIGN words: IR and NR)."""

    imbalance_ratio: Annotated[float, Field(ge=1)] = 1.0
    noise_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0
    minority: Annotated[Minority, Field(validate_default=True)] = "total"
    """How the upper half of the classes is reduced. `total`, as in the paper's published code: together they keep
    int(L / IR) images, drawn at random over them, where L is the number of images of the lower half.
    `total-proportional`: as many, in proportion to the classes' counts. `class`: each keeps 1 / IR of its own. At
    ratio 1 nothing is removed, and the value is always `class`."""

    @field_validator("minority")
    @classmethod
    def _nothing_to_choose_at_ratio_1(cls, minority: Minority, given: ValidationInfo) -> Minority:
        return "class" if given.data.get("imbalance_ratio") == 1 else minority

    @classmethod
    def parse(cls, text: str, minority: Minority | None = None) -> Self:
        """The paper's notation: `100-0.1` is imbalance ratio 100 and noise ratio 0.1.

        Args:
            minority: how classes are reduced; the default if None.
        Raises:
            ConfigError: if the text is not IR-NR, or a value is out of range.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", text)
        if match is None:
            raise ConfigError(f"distortion {text!r} is not IR-NR, such as '100-0.1' or '1-0.0'")
        ratios = {"imbalance_ratio": float(match[1]), "noise_ratio": float(match[2])}
        return parse_model(cls, ratios | ({} if minority is None else {"minority": minority}), f"distortion {text!r}")

    def __str__(self) -> str:
        return f"{plain_number(self.imbalance_ratio)}-{plain_number(self.noise_ratio) if self.noise_ratio else '0.0'}"


def plain_number(number: float) -> str:
    """A number without exponent and without loss: `100`, `33.3333333`, `0.00001`; float() of it is the number again."""
    return f"{Decimal(repr(float(number))).normalize():f}"
