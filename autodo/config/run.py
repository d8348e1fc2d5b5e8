"""What defines a run: frozen pydantic models, and the run id.

Importing this module imports neither torch nor ray, so that planning a grid takes no time.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator
from pydantic_core import from_json

from autodo.config.bilevel import LossName, OuterConfig, PointsConfig
from autodo.config.dataset import DatasetConfig, DistortionConfig, plain_number
from autodo.config.defaults import with_added, without_added
from autodo.config.objective import FinetuneConfig, InnerImages, ObjectiveConfig
from autodo.config.policy import PolicyConfig, SearchedPolicy
from autodo.config.validation import Frozen

Positive = Annotated[int, Field(ge=1)]
SplitName = Literal["paper", "union", "test-as-val"]


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
            f"{self.dataset.label}_ir{plain_number(d.imbalance_ratio)}_nr{plain_number(d.noise_ratio)}_{self.method.name}"
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


def fingerprint(config: BaseModel, **fields: Any) -> str:
    """First 8 hex digits of the sha256 of the canonical JSON (sorted keys, no spaces)."""
    content = without_added(config.model_dump(mode="json", **fields))
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]
