"""The data of a run: which images, and how their labels are distorted."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from autodo.config.validation import Count, Frozen, Share, parse_model
from autodo.errors import ConfigError
from autodo.io.uri import check_uri, is_uri, without_secrets

Minority = Literal["total", "total-proportional", "class"]
ALWAYS_STREAMED = ("imagenet",)
"""Datasets too large for memory."""


class DatasetConfig(Frozen):
    """Images of a run, and how many of them."""

    name: str
    path: str | None = None
    """Path or URI of a directory of class folders, or of a CSV of path,label; only for `folder`."""
    image_size: Count | None = None
    """Side in pixels to which images are resized; only for `folder` and `imagenet`."""
    resize: Count | None = None
    """Length in pixels to which the shorter side of a streamed image is resized before the centre crop of `image_size`,
    in evaluation and, without `augmentation.resized_crop`, in training; None: `image_size`. The published code has 256
    for ImageNet."""
    stream: bool = False
    """Read the images of a `folder` from their files during training instead of loading them into memory; `imagenet`
    always does."""
    damaged_limit: Annotated[float, Field(ge=0, lt=1)] = 0.001
    """Largest share of damaged images that a streamed dataset may leave out."""
    content: str | None = None
    """Fingerprint of the files and classes of a `folder` (`autodo.data.pin_content`), which is checked on loading."""
    subsample: Count | None = None
    """Size of a fixed stratified subsample of the train set, drawn before the split; None: all images."""
    val_share: Share = 0.2

    @field_validator("path")
    @classmethod
    def _no_credentials(cls, path: str | None) -> str | None:
        if path is not None and is_uri(path):
            check_uri(path)
        return path

    @model_validator(mode="after")
    def _settings_match_the_name(self) -> Self:
        if self.name == "folder":
            if not self.path:
                raise ValueError("path is required: the directory of class folders, or the CSV of path,label")
            if self.image_size is None:
                raise ValueError("image_size is required: the side in pixels to which images are resized")
        elif (self.path, self.content, self.stream) != (None, None, False):
            raise ValueError(
                f"path, content and stream are for the dataset 'folder' only, not for {self.name!r}; "
                "use --data-dir for the files of a named dataset"
            )
        elif (self.image_size is not None) != (self.name in ALWAYS_STREAMED):
            problem = f"is for 'folder' and 'imagenet', not for {self.name!r}" if self.image_size else "is required"
            raise ValueError(f"image_size {problem}: the side in pixels to which images are resized")
        if self.resize is not None and not self.streams:
            raise ValueError(
                f"resize ({self.resize}) needs streamed images, and {self.name!r} is not streamed "
                "(dataset.stream=true streams a 'folder')"
            )
        if self.resize is not None and self.image_size is not None and self.resize < self.image_size:
            raise ValueError(f"resize ({self.resize}) must not be below image_size ({self.image_size})")
        return self

    @property
    def streams(self) -> bool:
        """Whether images are read from their files during training."""
        return self.stream or self.name in ALWAYS_STREAMED

    @property
    def label(self) -> str:
        """Name in run ids and tables: that of the dataset, or `folder-<basename>`."""
        if self.path is None:
            return self.name
        path = without_secrets(self.path) if is_uri(self.path) else self.path
        return f"folder-{re.sub(r'[^A-Za-z0-9]+', '-', Path(path).stem).strip('-').lower() or 'images'}"


class DistortionConfig(Frozen):
    """Class imbalance and label noise, applied to the train points after the split."""

    imbalance_ratio: Annotated[float, Field(ge=1)] = 1.0
    noise_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0
    minority: Annotated[Minority, Field(validate_default=True)] = "total"
    """How the upper half of the classes is reduced. `total` (the published code of the paper): together they keep
    int(L / IR) images, drawn at random, where L is the number of images of the lower half. `total-proportional`: the
    same number, in proportion to the class sizes. `class`: each class keeps 1 / IR of its images. At ratio 1 nothing
    is removed and the value is always `class`."""

    @field_validator("minority")
    @classmethod
    def _is_class_at_ratio_1(cls, minority: Minority, given: ValidationInfo) -> Minority:
        return "class" if given.data.get("imbalance_ratio") == 1 else minority

    @classmethod
    def parse(cls, text: str, minority: Minority | None = None) -> Self:
        """Parse the notation of the paper: `100-0.1` is imbalance ratio 100 and noise ratio 0.1.

        Args:
            minority: how classes are reduced; None: the default.
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
    """Format a number without exponent and without loss, such as `100` or `0.00001`; float() reverses it."""
    return f"{Decimal(repr(float(number))).normalize():f}"
