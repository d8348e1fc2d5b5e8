"""The data of a run: which images, and how their labels are distorted."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from autodo import plugins
from autodo.config.validation import Count, Frozen, Share, parse_model
from autodo.errors import ConfigError
from autodo.io.uri import check_uri, is_uri, without_secrets

Imbalance = Literal["step", "exponential"]
Noise = Literal["uniform", "pair", "confusion", "instance"]
Minority = Literal["total", "total-proportional", "class"]
ALWAYS_STREAMED = ("imagenet",)
"""Datasets too large for memory."""
MEMORY = "memory"
"""Name of a dataset that is given in Python (`autodo.fit`)."""
FEATURES = "features"
"""Name of datasets of features in place of images."""
OWN_DATA = ("folder", FEATURES)
"""Datasets of a person's own, at `dataset.path`."""


class DatasetConfig(Frozen):
    """Images of a run, and how many of them."""

    name: str
    path: str | None = None
    """Path or URI; only for `folder` and `features`. `folder`: a directory of class folders, or a CSV of path,label and
    optionally split, clean_label. `features`: a .npy or .parquet file (docs/how-to/features.md)."""
    image_size: Count | None = None
    """Side in pixels to which images are resized; only for `folder`, `imagenet` and images given in Python."""
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
    """Fingerprint of the files and classes of a `folder`, or of the rows of `features` (`autodo.data.pin_content`),
    which is checked on loading; or of the pixels and labels of images given in Python."""
    code: Annotated[str | None, Field(validate_default=True)] = None
    """Code of the plug-in (`autodo.plugins`) that the dataset is from, which AutoDO sets; null for its own datasets."""
    subsample: Count | None = None
    """Size of a fixed stratified subsample of the train set, drawn before the split; None: all images."""
    val_share: Share = 0.2

    @field_validator("path")
    @classmethod
    def _no_credentials(cls, path: str | None) -> str | None:
        if path is not None and is_uri(path):
            check_uri(path)
        return path

    @field_validator("code")
    @classmethod
    def _of_the_plugin(cls, code: str | None, given: ValidationInfo) -> str | None:
        try:
            found = plugins.find("dataset", given.data.get("name", "")) if code is None else None
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return code if found is None else found.code

    @model_validator(mode="after")
    def _settings_match_the_name(self) -> Self:
        if self.name == "folder":
            if not self.path:
                raise ValueError("path is required: the directory of class folders, or the CSV of path,label")
            if self.image_size is None:
                raise ValueError("image_size is required: the side in pixels to which images are resized")
        elif self.name == MEMORY:
            if self.content is None or self.image_size is None or (self.path, self.stream) != (None, False):
                raise ValueError("'memory' is for images given in Python: autodo.fit(images, labels)")
        elif self.name == FEATURES:
            if not self.path:
                raise ValueError("path is required: the .npy or .parquet file of the features")
            if self.image_size is not None or self.stream:
                raise ValueError("image_size and stream are for images, not for 'features', which stay as they are")
        elif (self.path, self.content, self.stream) != (None, None, False):
            raise ValueError(
                "path and content are for the datasets 'folder' and 'features' only, and stream for 'folder', not for "
                f"{self.name!r}; use --data-dir for the files of a named dataset"
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
        """Name in run ids and tables: that of the dataset, or such as `folder-<basename>`."""
        if self.path is None:
            return self.name
        path = without_secrets(self.path) if is_uri(self.path) else self.path
        stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(path).stem).strip("-").lower()
        return f"{self.name}-{stem or 'images'}"


class DistortionConfig(Frozen):
    """Class imbalance and label noise, applied to the train points after the split."""

    imbalance_ratio: Annotated[float, Field(ge=1)] = 1.0
    noise_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0
    imbalance: Imbalance = "step"
    """Numbers of images by class. `step` (the paper): the upper half of the classes is reduced. `exponential`: a long
    tail, class c of C keeps a share IR^(-c/(C-1)) of the images of class 0 (Cui et al. 2019). At ratio 1 the value is
    always `step`."""
    noise: Noise = "uniform"
    """Wrong labels. `uniform` (the paper): a share NR of the labels is redrawn over all classes. Of the others, a share
    NR is wrong. `pair`: c becomes c+1, the last class becomes 0 (Han et al. 2018). `confusion`: another class, the more
    often the less a linear classifier tells the two apart. `instance`: which labels are wrong, and how, depends on the
    pixels (Xia et al. 2020). At ratio 0 the value is always `uniform`."""
    minority: Annotated[Minority, Field(validate_default=True)] = "total"
    """How `step` reduces the upper half of the classes. `total` (the published code of the paper): together they keep
    int(L / IR) images, drawn at random, where L is the number of images of the lower half. `total-proportional`: the
    same number, in proportion to the class sizes. `class`: each class keeps 1 / IR of its images. At ratio 1, where
    nothing is removed, and with `exponential` the value is always `class`."""

    @field_validator("imbalance")
    @classmethod
    def _is_step_at_ratio_1(cls, imbalance: Imbalance, given: ValidationInfo) -> Imbalance:
        return "step" if given.data.get("imbalance_ratio") == 1 else imbalance

    @field_validator("noise")
    @classmethod
    def _is_uniform_at_ratio_0(cls, noise: Noise, given: ValidationInfo) -> Noise:
        return "uniform" if given.data.get("noise_ratio") == 0 else noise

    @field_validator("minority")
    @classmethod
    def _is_class_without_steps(cls, minority: Minority, given: ValidationInfo) -> Minority:
        steps = given.data.get("imbalance_ratio") != 1 and given.data.get("imbalance") != "exponential"
        return minority if steps else "class"

    @classmethod
    def parse(cls, text: str, minority: Minority | None = None) -> Self:
        """Parse IR-NR: `100-0.1` is imbalance ratio 100 and noise ratio 0.1, as in the paper.

        `exp` before IR is an exponential imbalance; `pair`, `confusion` or `instance` before NR is the kind of noise:
        `exp100-pair0.2`.

        Args:
            minority: how classes are reduced; None: the default.
        Raises:
            ConfigError: if the text is not IR-NR, or a value is out of range.
        """
        match = _NOTATION.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"distortion {text!r} is not IR-NR, such as '100-0.1' or '1-0.0'; before IR may stand exp, and before "
                f"NR {', '.join(_NOISE_PREFIXES[:-1])} or {_NOISE_PREFIXES[-1]}, such as 'exp100-pair0.2'"
            )
        settings = {"imbalance_ratio": float(match["ir"]), "noise_ratio": float(match["nr"])}
        kinds = {"imbalance": match["exp"] and "exponential", "noise": match["noise"], "minority": minority}
        given = {key: value for key, value in kinds.items() if value}
        return parse_model(cls, {**settings, **given}, f"distortion {text!r}")

    @property
    def prefixes(self) -> tuple[str, str]:
        """Kind of imbalance and of noise, as they stand before their ratios in names; `step` and `uniform` do not."""
        return "exp" if self.imbalance == "exponential" else "", "" if self.noise == "uniform" else self.noise

    def __str__(self) -> str:
        ratios = plain_number(self.imbalance_ratio), plain_number(self.noise_ratio) if self.noise_ratio else "0.0"
        return "-".join(f"{prefix}{ratio}" for prefix, ratio in zip(self.prefixes, ratios, strict=True))


_NOISE_PREFIXES = get_args(Noise)[1:]
_NUMBER = r"\d+(?:\.\d+)?"
_NOTATION = re.compile(rf"(?P<exp>exp)?(?P<ir>{_NUMBER})-(?P<noise>{'|'.join(_NOISE_PREFIXES)})?(?P<nr>{_NUMBER})")


def check_readable(dataset: DatasetConfig, distortion: DistortionConfig) -> None:
    """Raise ValueError if the distortion reads pixels before the training that the dataset does not hold."""
    if distortion.noise == "instance" and (dataset.streams or dataset.name == FEATURES):
        lacking = "is streamed" if dataset.streams else "has none"
        raise ValueError(
            f"distortion.noise 'instance' reads the pixels of all train images before the training, and "
            f"{dataset.name!r} {lacking}; uniform, pair and confusion are possible"
        )


def plain_number(number: float) -> str:
    """Format a number without exponent and without loss, such as `100` or `0.00001`; float() reverses it."""
    return f"{Decimal(repr(float(number))).normalize():f}"
