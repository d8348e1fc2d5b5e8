"""What defines a run: frozen pydantic models, and the run id.

Importing this module imports neither torch nor ray, so that planning a grid takes no time.
"""

import hashlib
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import from_json

from autodo.config.defaults import with_added, without_added
from autodo.config.objective import FinetuneConfig, InnerImages, ObjectiveConfig
from autodo.config.policy import PolicyConfig, SearchedPolicy
from autodo.config.validation import Frozen, parse_model
from autodo.errors import ConfigError
from autodo.io.storage import check_uri, is_uri, without_secrets

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Part = Literal["augment", "weight", "soft-label"]
LossName = Literal["cross-entropy", "kl", "symmetric-kl"]
SolverName = Literal["identity", "neumann", "conjugate-gradient", "exact"]
WarpName = Literal["fused", "kornia"]
SplitName = Literal["paper", "union", "test-as-val"]
Minority = Literal["total", "total-proportional", "class"]
LambdaStorage = Literal["device", "host", "file"]
"""Where lambda lies during a training. No part of a RunConfig: it changes no result."""


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
        return f"{_plain(self.imbalance_ratio)}-{_plain(self.noise_ratio) if self.noise_ratio else '0.0'}"


class MethodConfig(Frozen):
    """How the train loss is built; a `configs/methods/*.yaml` gives the rest of a method's settings."""

    name: str
    loss: LossName = "cross-entropy"
    """Between the prediction and the per-point target, for methods that learn lambda."""
    images: InnerImages = "train"
    """What the inner problem is trained on; `train+val` is the union split, whatever the split says."""


class ModelConfig(Frozen):
    """The task model: an encoder and a linear head."""

    name: str

    @field_validator("name")
    @classmethod
    def _one_spelling(cls, name: str) -> str:
        return name.lower().replace("_", "-")


class AugmentationConfig(Frozen):
    """Standard augmentation: crop, flip, erase."""

    resized_crop: tuple[float, float] | None = None
    """Least and largest share of an image's area that is cut out at random and resized, of streamed images; None: the
    centre, as where nothing is drawn."""
    crop_padding: Annotated[int, Field(ge=0)] = 4
    """Zero pixels added on each side before a random crop back to the image's size."""
    flip: bool = True
    erase_probability: Annotated[float, Field(ge=0, le=1)] = 0.5

    @field_validator("resized_crop", mode="before")
    @classmethod
    def _two_shares(cls, given: Any) -> Any:
        if given is None:
            return given
        values = list(given) if isinstance(given, list | tuple) else []
        numbers = [value for value in values if type(value) in (int, float)]
        if not (len(values) == len(numbers) == 2 and 0 < numbers[0] <= numbers[1] <= 1):
            told = list(given) if isinstance(given, tuple) else given
            raise ValueError(
                "two numbers are needed, the smallest and the largest share of an image's area that is cut out, "
                f"0 < smallest <= largest <= 1, such as [0.08, 1.0], or null for the centre; not {told!r}"
            )
        return given


class TrainingConfig(Frozen):
    """The inner problem: SGD with Nesterov momentum, cosine schedule with warm-up (paper, appendix A)."""

    epochs: Positive = 200
    batch_size: Positive = 256
    lr: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup_epochs: Annotated[int, Field(ge=0)] = 5
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the encoder, in training, evaluation and outer passes. With `bf16` weights, statistics, features, losses and
    lambda are float32 still."""
    compile: bool = False
    """Train with the network as torch.compile makes it; evaluation and outer passes take it as it is."""

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) must be below epochs ({self.epochs})")
        return self


class PointsConfig(Frozen):
    """The per-point model g(lambda)."""

    learn: Annotated[tuple[Part, ...], Field(min_length=1)]
    shared: bool = False
    """One row of augmentation strengths for all points (the paper's lambda^A_SHA)."""
    label_smoothing: Share = 0.1
    """alpha of the initial soft labels; 0.1 in the paper, 0.05 in its published code."""
    gate_probability: Share = 0.25
    """Initial probability of each augmentation operation; 0.25 in the paper, 0.2 in its published code."""
    warp: WarpName = "fused"
    """What computes the learned augmentation: `fused`, one product of matrices and one sampling, or `kornia`, the same
    warp by kornia.geometry, which takes longer. They agree up to rounding errors."""
    precision: Literal["fp32", "fp16"] = "fp32"
    """`fp16` keeps lambda as differences from its initial value in 16 bits, stochastically rounded."""
    square_average: Literal["element", "part"] = "element"
    """Of RMSprop: one for each value (torch's), or one for each part of a row, which is next to no memory."""

    @field_validator("learn")
    @classmethod
    def _in_order(cls, learn: tuple[Part, ...]) -> tuple[Part, ...]:
        order: tuple[Part, ...] = ("augment", "weight", "soft-label")
        if len(set(learn)) != len(learn):
            raise ValueError(f"names a part twice: {list(learn)}")
        return tuple(part for part in order if part in learn)

    @model_validator(mode="after")
    def _only_augmentation_is_shared(self) -> Self:
        if self.shared and self.learn != ("augment",):
            raise ValueError("shared: true goes with learn: [augment] alone; weights and labels are per point")
        return self


class OuterConfig(Frozen):
    """The outer problem: RMSprop on lambda with the implicit gradient of the validation loss."""

    lr: Annotated[float, Field(gt=0)] = 0.05
    start_share: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """The outer phase starts after this share of the epochs (the paper's E = 50 of 200)."""
    every: Positive = 1
    """From then on, one outer pass for so many epochs, with steps so many times as long; the first one at the start.
    1 is the paper's algorithm, which ends with a pass; with more there is none after the last epoch, because nothing
    is trained after it."""
    schedule: Literal["restart", "shared"] = "shared"
    """Of the steps' length. `restart`: a warm-up and a cosine of its own over the epochs from the outer start on, as in
    the published code. `shared`: the inner schedule, which is nearly over where the outer start is late."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """RMSprop's epsilon. Gradients far below 10 eps give tiny steps, as those of soft labels of 1,000 classes do."""
    solver: SolverName
    iterations: Positive = 20
    """Terms of the Neumann series, or steps of conjugate gradients."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Step of the Neumann series; only for `neumann`."""
    neumann_scale: Literal["sum", "step"] = "step"
    """`sum`: u is the sum of the Neumann series' terms, as in the published code. `step`: the sum times the step, which
    tends to H^-1 v. Another solver than `neumann` has always `step`, which means nothing to it."""
    damping: Annotated[float, Field(ge=0)] = 0.0
    """Added to the Hessian's diagonal, besides the weight decay that is part of the inner problem."""
    val_gradient: Literal["batch", "full"] = "batch"
    """`batch`: a val batch and a solve at every step (the paper). `full`: all of val, one solve per pass."""
    hessian_points: Positive | None = None
    """The solve's Hessian is that of as many inner points, drawn for each pass; None: of all. Only with `full`."""

    @field_validator("neumann_scale")
    @classmethod
    def _read_by_neumann_only(cls, scale: str, given: ValidationInfo) -> str:
        return scale if given.data.get("solver") == "neumann" else "step"

    @model_validator(mode="after")
    def _one_solve_for_many_points(self) -> Self:
        if self.hessian_points is not None and self.val_gradient != "full":
            raise ValueError(
                f"hessian_points ({self.hessian_points}) is read with val_gradient 'full' only: with "
                f"{self.val_gradient!r} every step has the Hessian of its batch"
            )
        return self

    @model_validator(mode="after")
    def _step_is_neumanns(self) -> Self:
        if self.solver == "neumann" and self.step is None:
            raise ValueError("solver 'neumann' needs a step, such as outer.step=0.01")
        if self.solver != "neumann" and self.step is not None:
            raise ValueError(
                f"step ({self.step}) is read by solver 'neumann' only, not by {self.solver!r}: set outer.step=null"
            )
        return self


_METHOD = {"method", "policy", "objective", "finetune", "points", "outer"}
"""Sections of a RunConfig that make a method."""


class RunConfig(Frozen):
    """Everything that changes a run's result, and nothing else."""

    dataset: DatasetConfig
    split: SplitName = "paper"
    """`paper`: train on the distorted train points. `union`: on those and the clean val points. `test-as-val`: as
    `paper`, but the test images are val too, so that lambda and the best epoch are chosen on them: optimistic, to study
    what a better val would give (table 5 of the paper)."""
    distortion: DistortionConfig = DistortionConfig()
    method: MethodConfig
    model: ModelConfig
    augmentation: AugmentationConfig = AugmentationConfig()
    policy: PolicyConfig | None = None
    """Operations that are drawn for each image, after crop and flip."""
    training: TrainingConfig = TrainingConfig()
    objective: ObjectiveConfig | None = None
    """The train loss of methods for imbalance and noise; None is the plain cross-entropy."""
    finetune: FinetuneConfig | None = None
    """A last phase on the val images."""
    points: PointsConfig | None = None
    outer: OuterConfig | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @classmethod
    def from_stored(cls, text: str | bytes) -> Self:
        """A configuration that a store has kept as JSON, perhaps before some settings were there.

        Unlike `model_validate_json` it takes what is missing for the old default, not for the present one.

        Raises:
            ValueError: if it is not JSON (pydantic's ValidationError is one too, where it is no configuration).
        """
        content = from_json(text)
        return cls.model_validate(with_added(content) if isinstance(content, dict) else content)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.augmentation.resized_crop is not None and not self.dataset.streams:
            raise ValueError(
                "augmentation.resized_crop cuts out of whole files: it is for images that are streamed, which those "
                f"of {self.dataset.name!r} are not (dataset.stream=true streams a 'folder')"
            )
        if (self.points is None) != (self.outer is None):
            raise ValueError("points and outer go together: a method learns lambda with both or with neither")
        soft = self.points is not None and "soft-label" in self.points.learn
        if self.method.loss != "cross-entropy" and not soft:
            raise ValueError(f"method.loss {self.method.loss!r} needs soft labels: points.learn has none")
        if self.points is not None:
            for name in ("objective", "finetune"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} goes with methods that learn nothing per point: points.learn is set")
            if self.method.images == "val":
                raise ValueError("method.images 'val' leaves no train point to learn lambda of")
        plain = self.training.precision == "fp32" and not self.training.compile
        if self.objective is not None and self.objective.differentiates_forwards and not plain:
            raise ValueError(
                f"objective {self.objective.kind!r} differentiates forwards through the network, which torch does with "
                "training.precision=fp32 and training.compile=false only"
            )
        if self.split == "test-as-val" and (self.method.images != "train" or self.finetune is not None):
            what = "finetune" if self.finetune is not None else f"method.images {self.method.images!r}"
            raise ValueError(f"{what} trains on val, which with split 'test-as-val' is the test images")
        if self.finetune is not None and self.training.warmup_epochs >= self.finetune_start:
            raise ValueError(
                f"finetune.share ({self.finetune.share}) leaves {self.finetune_start} epochs before the last phase, "
                f"no more than training.warmup_epochs ({self.training.warmup_epochs})"
            )
        return self

    @property
    def cosine_scale(self) -> float | None:
        """Scale of the cosines that the head gives as logits; None for the plain linear head."""
        return None if self.objective is None else self.objective.cosine_scale

    @property
    def trains_on_train(self) -> bool:
        """Whether the distorted train points are part of the inner problem."""
        return self.method.images != "val"

    @property
    def trains_on_val(self) -> bool:
        """Whether the clean val points are part of the inner problem."""
        return self.split == "union" or self.method.images != "train"

    @property
    def search_id(self) -> str | None:
        """Name of the policy that a search finds for this run, as a hash of all that the search depends on.

        None if the run needs no search. Runs that differ in nothing that the search reads share a policy.
        """
        if not isinstance(self.policy, SearchedPolicy):
            return None
        digits = fingerprint(self, include={"dataset", "distortion", "augmentation", "policy", "seed"})
        return f"{self.policy.search.algorithm}-{digits}"

    @property
    def outer_start(self) -> int:
        """First epoch, counted from 0, that ends with an outer pass."""
        return self.training.epochs if self.outer is None else round(self.outer.start_share * self.training.epochs)

    def has_outer_pass(self, epoch: int) -> bool:
        """Whether the epoch, counted from 0, ends with an outer pass."""
        if self.outer is None or epoch < self.outer_start:
            return False
        last = epoch == self.training.epochs - 1
        return self.outer.every == 1 or (not last and (epoch - self.outer_start) % self.outer.every == 0)

    @property
    def finetune_start(self) -> int:
        """First epoch, counted from 0, that trains the head alone; where the schedule of the whole network ends."""
        epochs = self.training.epochs
        return epochs if self.finetune is None else epochs - max(1, round(self.finetune.share * epochs))

    @property
    def run_id(self) -> str:
        """`<dataset>_ir<IR>_nr<NR>_<method>_s<seed>_<8 hex>`: the same config has the same id anywhere."""
        d = self.distortion
        return (
            f"{self.dataset.label}_ir{_plain(d.imbalance_ratio)}_nr{_plain(d.noise_ratio)}_{self.method.name}"
            f"_s{self.seed}_{fingerprint(self)}"
        )

    @property
    def recipe_id(self) -> str:
        """Hash of what a fair comparison holds fixed: all but distortion, split, method and seed."""
        return fingerprint(self, exclude={"split", "distortion", "seed", *_METHOD})

    @property
    def variant_id(self) -> str:
        """Hash of the method's own settings: tells a method from the same method with overrides."""
        return fingerprint(self, include=_METHOD)

    @property
    def identity(self) -> dict[str, str | int | float]:
        """The columns that say which run a row of Parquet belongs to."""
        return {
            "run_id": self.run_id,
            "dataset": self.dataset.label,
            "split": self.split,
            "method": self.method.name,
            "model": self.model.name,
            "imbalance_ratio": self.distortion.imbalance_ratio,
            "noise_ratio": self.distortion.noise_ratio,
            "seed": self.seed,
            "recipe_id": self.recipe_id,
            "variant_id": self.variant_id,
        }


def _plain(number: float) -> str:
    """A number without exponent and without loss: `100`, `33.3333333`, `0.00001`; float() of it is the number again."""
    return f"{Decimal(repr(float(number))).normalize():f}"


def fingerprint(config: BaseModel, **fields: Any) -> str:
    """First 8 hex digits of the sha256 of the canonical JSON (sorted keys, no spaces)."""
    content = without_added(config.model_dump(mode="json", **fields))
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]
