"""RunConfig: everything that changes the result of a run, and the run id that hashes it.

Importing this module imports neither torch nor ray, so that planning a grid is fast.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, field_validator, model_validator
from pydantic_core import from_json

from autodo import plugins
from autodo.config.bilevel import LossName, OuterConfig, PointsConfig
from autodo.config.dataset import FEATURES, DatasetConfig, DistortionConfig, check_readable, plain_number
from autodo.config.defaults import METHOD_KEYS, with_added, without_added
from autodo.config.head import HeadConfig
from autodo.config.model import ModelConfig
from autodo.config.objective import (
    FinetuneConfig,
    InnerImages,
    ObjectiveConfig,
    kinds_with_copies,
    kinds_with_points,
)
from autodo.config.pixels import check_features, computes_features_once
from autodo.config.policy import AdversarialAutoAugment, PolicyConfig, SearchedPolicy
from autodo.config.validation import Count, Frozen

SplitName = Literal["paper", "union", "oversplit", "test-as-val"]
ScheduleName = Literal["to-zero", "published"]
BorderName = Literal["zeros", "edge"]


class MethodConfig(Frozen):
    """Name of the method, its loss, and the images it trains on; its other settings are sections of their own."""

    name: str
    loss: LossName = "cross-entropy"
    """Loss between prediction and per-point target; for methods that learn lambda."""
    undistorted_loss: LossName | None = None
    """Loss if the distortion is 1-0.0; None: `loss`. The published code has the symmetric KL only for distorted data,
    and otherwise `kl`."""
    images: InnerImages = "train"
    """Images of the inner problem; `train+val` means the union split, whatever `split` is."""


class AugmentationConfig(Frozen):
    """Standard augmentation: crop, flip, erase."""

    order: Literal["erase-last", "warp-last"] = "erase-last"
    """`erase-last`: crop, flip, policy, learned warp, normalise, erase. `warp-last` (the published code): policy, crop,
    flip, normalise, erase, learned warp."""
    border: BorderName = "zeros"
    """Pixels that move in from outside in crops, operations of policies and the learned warp: `zeros`, or `edge`, the
    nearest pixel of the image (the published code). The differentiable operations of a search always move in zeros."""
    resized_crop: tuple[float, float] | None = None
    """Smallest and largest share of the image area that a random crop of a streamed image takes before resizing; None:
    the centre crop of evaluation."""
    crop_padding: NonNegativeInt = 4
    """Pixels added on each side, by `border`, before a random crop back to the original size."""
    flip: bool = True
    erase_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    erase_area: Annotated[float, Field(gt=0.02, le=1)] = 0.4
    """Largest share of the image that is erased; the smallest is 0.02. The published code has 0.33."""

    @field_validator("resized_crop", mode="before")
    @classmethod
    def _two_shares(cls, given: Any) -> Any:
        numbers = isinstance(given, list | tuple) and all(type(value) in (int, float) for value in given)
        if given is not None and not (numbers and len(given) == 2 and 0 < given[0] <= given[1] <= 1):
            raise ValueError(
                "must be two numbers, the smallest and largest share of the image area to crop, "
                f"0 < smallest <= largest <= 1, such as [0.08, 1.0], or null for the centre; not {given!r}"
            )
        return given


LARGEST_ADAMW_LR = 0.02


class TrainingConfig(Frozen):
    """The inner problem: SGD with Nesterov momentum, cosine schedule with warm-up (paper, appendix A), or AdamW."""

    epochs: Count = 200
    batch_size: Count = 256
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`sgd` with Nesterov momentum, or `adamw`, with the same schedule."""
    lr: PositiveFloat = 0.1
    encoder_lr_factor: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Learning rate of the encoder as a factor of `lr`, that of the head; about 0.1 for pretrained encoders."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of `sgd`; beta1 of `adamw`, whose beta2 is 0.999."""
    weight_decay: NonNegativeFloat = 1e-4
    """Added to the gradient as weight_decay times the weights; with `adamw` it shrinks the weights by themselves."""
    warmup_epochs: NonNegativeInt = 5
    schedule: ScheduleName = "to-zero"
    """Schedule of the learning rate; also of the outer one. `to-zero`: linear warm-up from 0, then half a cosine to 0
    over the remaining epochs. `published` (the published code): half a cosine to lr/1000 over all epochs, whose first
    `warmup_epochs` are replaced by a linear warm-up from lr/10 to lr."""
    last_batch: Literal["even", "drop"] = "even"
    """`even`: batches whose sizes differ by at most one. `drop` (the published code): batches of exactly `batch_size`;
    the remaining points of each epoch, other ones each time, are left out of it, in both loops and in val batches of
    outer passes. Points that do not fill a batch are one batch."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the encoder in training, evaluation and outer passes. With `bf16`, weights, statistics, features,
    losses and lambda stay float32."""
    compile: bool = False
    """Train with torch.compile; evaluation and outer passes use the network uncompiled."""
    selection: Literal["best-val", "last"] = "best-val"
    """Epoch of the classifier: that of the lowest val error, or the last. A method that trains on val cannot choose by
    its error."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of an exponential moving average of the weights, such as 0.999; null: no average. Evaluation, the
    choice of the epoch and the saved classifier use the averaged weights; training and outer passes do not."""

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) must be below epochs ({self.epochs})")
        return self

    @model_validator(mode="after")
    def _lr_fits_the_optimizer(self) -> Self:
        if self.optimizer == "adamw" and self.lr > LARGEST_ADAMW_LR:
            raise ValueError(
                f"lr ({self.lr}) is one for sgd: a step of adamw moves every weight by about lr; give at most "
                f"{LARGEST_ADAMW_LR}, such as 0.001"
            )
        return self


_METHOD_SECTIONS = {"method", "policy", "objective", "finetune", "head", "points", "outer"}


class RunConfig(Frozen):
    """Everything that changes the result of a run, and nothing else."""

    dataset: DatasetConfig
    split: SplitName = "paper"
    """`paper`: train on the distorted train points. `union`: also on the clean val points. `oversplit`: train and val
    are both all train images, so that lambda is learned for all from batches of all; only at distortion 1-0.0 (table 6
    of the paper). `test-as-val`: as `paper`, with the test images as val, so that lambda and the best epoch are chosen
    on them; optimistic, to study what a better val set would give (table 5)."""
    distortion: DistortionConfig = DistortionConfig()
    method: MethodConfig
    model: ModelConfig
    augmentation: AugmentationConfig = AugmentationConfig()
    policy: PolicyConfig | None = None
    """Operations drawn for each image after crop and flip."""
    training: TrainingConfig = TrainingConfig()
    objective: ObjectiveConfig | None = None
    """Train loss of methods for imbalance and noise; None: cross-entropy."""
    finetune: FinetuneConfig | None = None
    """Last phase on the val images."""
    head: HeadConfig | None = None
    """Head that is solved; None: the classifier has the head that was trained."""
    points: PointsConfig | None = None
    outer: OuterConfig | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @classmethod
    def from_stored(cls, text: str | bytes) -> Self:
        """Read a configuration from the JSON in a store.

        A missing setting gets its value from `autodo.config.defaults.ADDED`, not today's default.

        Raises:
            ConfigError: if it needs a plug-in that is not loaded.
            ValueError: if it is not JSON, or not a configuration (pydantic's ValidationError is a ValueError).
        """
        content = from_json(text)
        objective = content.get("objective") if isinstance(content, dict) else None
        if isinstance(objective, dict) and objective.get("code") is not None:
            plugins.get("objective", str(objective.get("kind")))
        return cls.model_validate(with_added(content) if isinstance(content, dict) else content)

    @model_validator(mode="after")
    def _pixels_are_there(self) -> Self:
        settings = self.model_dump()
        if self.dataset.name == FEATURES:
            check_features(settings)
        if self.model.cached_views is not None:
            computes_features_once(settings)
        return self

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        if self.augmentation.resized_crop is not None and not self.dataset.streams:
            raise ValueError(
                f"augmentation.resized_crop needs streamed images, and {self.dataset.name!r} is not streamed "
                "(dataset.stream=true streams a 'folder')"
            )
        plain = self.training.precision == "fp32" and not self.training.compile
        if self.objective is not None and self.objective.differentiates_forwards and not plain:
            raise ValueError(
                f"objective {self.objective.kind!r} uses forward-mode derivatives, which need "
                "training.precision=fp32 and training.compile=false"
            )
        if self.finetune is not None and self.training.warmup_epochs >= self.finetune_start:
            raise ValueError(
                f"finetune.share ({self.finetune.share}) leaves {self.finetune_start} epochs before the last phase; "
                f"training.warmup_epochs ({self.training.warmup_epochs}) must be below that"
            )
        return self

    @model_validator(mode="after")
    def _learned_parts_fit(self) -> Self:
        if (self.points is None) != (self.outer is None):
            raise ValueError("points and outer must be set together: a method that learns lambda needs both")
        soft = self.points is not None and "soft-label" in self.points.learn
        for key in ("loss", "undistorted_loss"):
            loss = getattr(self.method, key)
            if loss not in ("cross-entropy", None) and not soft:
                raise ValueError(f"method.{key} {loss!r} needs 'soft-label' in points.learn")
        if self.points is not None:
            if self.objective is not None and not self.objective.combines_with_points:
                lacking, instead = "closed form of its Hessian", ""
                if self.cosine_scale is not None:
                    lacking = "Hessian of its cosine head and margins"
                    instead = "; without points.learn, head.labels=posterior estimates clean labels"
                raise ValueError(
                    f"objective {self.objective.kind!r} cannot be combined with points.learn: outer passes have no "
                    f"{lacking}; points.learn combines with: {', '.join(kinds_with_points())}{instead}"
                )
            if self.finetune is not None:
                raise ValueError("finetune cannot be combined with points.learn")
            if self.method.images == "val":
                raise ValueError("method.images 'val' leaves no train points to learn lambda for")
            if self.points.soft_label == "posterior":
                self._check_posterior_of_points()
        return self

    @model_validator(mode="after")
    def _split_fits(self) -> Self:
        if self.split == "oversplit":
            check_oversplit(self.distortion)
        check_readable(self.dataset, self.distortion)
        val_is = {"test-as-val": "the test images", "oversplit": "all train images"}.get(self.split)
        trains_on_val = {
            f"method.images {self.method.images!r}": self.method.images != "train",
            "finetune": self.finetune is not None,
            "head.images 'val'": self.head is not None and self.head.images == "val",
        }
        for cause, given in trains_on_val.items():
            if val_is is not None and given:
                raise ValueError(f"{cause} trains on val, which with split {self.split!r} is {val_is}")
        return self

    @model_validator(mode="after")
    def _labels_can_be_estimated(self) -> Self:
        if self.objective is not None and self.objective.estimates_labels and self.inner_images != "train+val":
            raise ValueError(
                f"objective {self.objective.kind!r} estimates clean labels from train and val images in training; it "
                "needs method.images=train+val"
            )
        head = self.head
        if head is None:
            return self
        if head.labels != "observed" and (head.images == "val" or not self.trains_on_train):
            raise ValueError(f"head.labels {head.labels!r} is for train points, and the head is solved on val alone")
        if head.solve == "passes":
            self._check_passes_of_head(head)
        if head.balance == "loss" and self.objective is not None and not self.objective.combines_with_points:
            raise ValueError(
                f"head.balance 'loss' is for the plain train loss and for {', '.join(kinds_with_points())}, not for "
                f"objective {self.objective.kind!r}"
            )
        if head.weight_decay == "training" and self.training.weight_decay == 0:
            raise ValueError("head.weight_decay 'training' needs training.weight_decay above 0; 'held-out' needs none")
        return self

    @model_validator(mode="after")
    def _trains_twice(self) -> Self:
        """Check that a method with a first training has points and epochs for it."""
        epochs = self.finetune_start
        if self.objective is not None and self.objective.first_training(epochs):
            kind = self.objective.kind
            if not self.trains_on_train:
                raise ValueError(f"objective {kind!r} needs method.images 'train' or 'train+val', not 'val'")
            if epochs < 2:
                raise ValueError(f"objective {kind!r} trains two networks in turn, and has {epochs} epoch for both")
        return self

    def _check_posterior_of_points(self) -> None:
        if self.head is None or self.head.labels != "posterior":
            raise ValueError(
                "points.soft_label 'posterior' takes the posterior from a solved head: set head.labels=posterior with "
                "a method that solves the head, such as autodo-exact-ws+posterior-head"
            )
        if {self.method.loss, self.method.undistorted_loss} - {"cross-entropy", None}:
            raise ValueError(
                f"points.soft_label 'posterior' needs method.loss=cross-entropy (and no other undistorted_loss), not "
                f"{self.loss!r}, which is infinite or undefined where a label has probability 0"
            )

    def _check_passes_of_head(self, head: HeadConfig) -> None:
        if self.objective is not None and self.cosine_scale is not None:
            raise ValueError(
                f"head.solve 'passes' writes a plain linear head into the network, and objective "
                f"{self.objective.kind!r} trains a head of cosines: set head.solve=final, or choose an objective with "
                "a plain head, such as logit-adjustment"
            )
        if self.finetune is not None:
            raise ValueError(
                "head.solve 'passes' cannot be combined with finetune, which trains the head in the last phase: set "
                "head.solve=final"
            )
        if self.outer is not None:
            for name, other in (("every", "outer.every"), ("start_share", "outer.start_share")):
                if getattr(head, name) is not None:
                    raise ValueError(
                        f"head.{name} is for methods without outer passes; this one solves the head before each pass, "
                        f"whose times are those of {other}"
                    )

    @model_validator(mode="after")
    def _the_head_solves_the_inner_problem(self) -> Self:
        if self.outer is None or self.outer.inner == "training":
            return self
        needed = {"solve": "passes", "labels": "learned", "images": "inner", "balance": "loss"}
        given = {} if self.head is None else self.head.model_dump()
        wrong = next((name for name, value in needed.items() if given.get(name) != value), None)
        if wrong is not None:
            raise ValueError(
                f"outer.inner 'head' needs a head that is solved for what is learned: set head.{wrong}={needed[wrong]}"
            )
        if {self.method.loss, self.method.undistorted_loss} - {"cross-entropy", "kl", None}:
            raise ValueError(
                f"outer.inner 'head' needs method.loss cross-entropy or kl, which the solved head minimises, not "
                f"{self.loss!r}"
            )
        return self

    @model_validator(mode="after")
    def _copies_fit(self) -> Self:
        if not isinstance(self.policy, AdversarialAutoAugment):
            return self
        if self.points is not None:
            raise ValueError("policy.kind 'adversarial' cannot be combined with points.learn")
        if self.objective is not None and not self.objective.takes_copies:
            raise ValueError(
                f"policy.kind 'adversarial' trains on copies of each image, which objective {self.objective.kind!r} "
                f"cannot; it combines with: {', '.join(kinds_with_copies())}"
            )
        return self

    @property
    def loss(self) -> LossName:
        """Loss between prediction and per-point target, which may depend on the distortion."""
        undistorted = self.distortion.imbalance_ratio == 1 and self.distortion.noise_ratio == 0
        return self.method.undistorted_loss or self.method.loss if undistorted else self.method.loss

    @property
    def cosine_scale(self) -> float | None:
        """Scale of the logits of the cosine head that is trained; None for the plain linear head."""
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
    def inner_images(self) -> InnerImages:
        """Images of the inner problem."""
        return "train+val" if self.trains_on_train and self.trains_on_val else self.method.images

    @property
    def search_id(self) -> str | None:
        """Name of the searched policy, with a hash of all that the search depends on; None if there is no search.

        Runs with the same settings of the search share a policy.
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

    def solves_head(self, epoch: int) -> bool:
        """Whether the network gets a solved head after the epoch, counted from 0, to train on from it."""
        head = self.head
        if head is None or head.solve == "final":
            return False
        if self.outer is not None:
            return self.has_outer_pass(epoch)
        start = round((0.25 if head.start_share is None else head.start_share) * self.training.epochs)
        # No training follows the last epoch.
        return start <= epoch < self.training.epochs - 1 and (epoch - start) % (head.every or 2) == 0

    def estimates_labels(self, epoch: int) -> bool:
        """Whether the soft labels of the points are estimated again after the epoch, counted from 0."""
        return self.points is not None and self.points.soft_label == "posterior" and self.has_outer_pass(epoch)

    @property
    def finetune_start(self) -> int:
        """First epoch, counted from 0, that trains only the head; the schedule of the whole network ends there."""
        epochs = self.training.epochs
        return epochs if self.finetune is None else epochs - max(1, round(self.finetune.share * epochs))

    @property
    def run_id(self) -> str:
        """`<dataset>_ir<IR>_nr<NR>_<method>_s<seed>_<8 hex>`; equal configurations have equal ids."""
        d = self.distortion
        imbalance, noise = d.prefixes
        return (
            f"{self.dataset.label}_ir{imbalance}{plain_number(d.imbalance_ratio)}_nr{noise}{plain_number(d.noise_ratio)}"
            f"_{self.method.name}_s{self.seed}_{fingerprint(self)}"
        )

    @property
    def recipe_id(self) -> str:
        """Hash of everything a fair comparison holds fixed: all but distortion, split, method and seed."""
        others = dict.fromkeys(("split", "distortion", "seed", *_METHOD_SECTIONS), True)
        return fingerprint(self, exclude={**others, **METHOD_KEYS})

    @property
    def variant_id(self) -> str:
        """Hash of the settings of the method, which distinguishes it from the same method with overrides."""
        return fingerprint(self, include={**dict.fromkeys(_METHOD_SECTIONS, True), **METHOD_KEYS})

    @property
    def identity(self) -> dict[str, str | int | float]:
        """Columns that identify the run of a row in Parquet files."""
        return {
            "run_id": self.run_id,
            "dataset": self.dataset.label,
            "split": self.split,
            "method": self.method.name,
            "model": self.model.label,
            "imbalance_ratio": self.distortion.imbalance_ratio,
            "noise_ratio": self.distortion.noise_ratio,
            "seed": self.seed,
            "recipe_id": self.recipe_id,
            "variant_id": self.variant_id,
        }


def check_oversplit(distortion: DistortionConfig) -> None:
    """Raise ValueError unless the train images, which are also val with split `oversplit`, have no distortion."""
    if (distortion.imbalance_ratio, distortion.noise_ratio) != (1, 0):
        raise ValueError(
            f"split 'oversplit' takes val from the train images, which are clean only at distortion 1-0.0, not at "
            f"{distortion}; 'union' trains on a clean val set too"
        )


def fingerprint(config: BaseModel, **fields: Any) -> str:
    """First 8 hex digits of the SHA-256 of the canonical JSON (sorted keys, no spaces)."""
    content = without_added(config.model_dump(mode="json", **fields))
    # Of a section only settings that came later may be included; it is left out if they have their earlier values.
    content = {section: value for section, value in content.items() if value != {}}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]
