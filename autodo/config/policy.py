"""Settings of augmentation policies: fixed, from a file, searched before a run, or learned within it."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from autodo.config.validation import Count, Frozen, Share

OperationSet = Literal["paper", "original"]
Implementation = Annotated[Literal["own", "kornia"], Field(exclude_if=lambda given: given == "own")]
"""Implementation of the differentiable operations of a search. The presets have `kornia`; `own` is that of earlier
searches, whose ids stay valid. They agree to half a level of 255."""

Factors = Annotated[Literal["around-1", "from-0.1"], Field(exclude_if=lambda given: given == "around-1")]
"""Factors of Color and Sharpness at a level in [0, 1]; 1 is the unchanged image. `around-1` (the paper): 1 + 0.9 level
or 1 - 0.9 level. `from-0.1` (the published code): 0.1 + 1.8 level."""


class RandAugment(Frozen):
    """Operations drawn uniformly with replacement, with one magnitude scale for all (Cubuk et al., 2020)."""

    kind: Literal["randaugment"] = "randaugment"
    operations: OperationSet = "paper"
    """`paper`: the 11 operations of AutoDO's appendix; `original`: the 14 of RandAugment."""
    draws: Count
    """N, operations per image."""
    magnitude: Annotated[float, Field(ge=0, le=30)]
    """M, in thirtieths of the range of an operation."""
    fixed: bool = False
    """True: every magnitude is M/30 (the original). False: it is U(0, 1) M/30 (AutoDO's appendix)."""
    factors: Factors = "around-1"

    @model_validator(mode="after")
    def _factors_are_of_the_paper(self) -> "RandAugment":
        if self.operations == "original" and self.factors != "around-1":
            raise ValueError(f"factors {self.factors!r} needs operations 'paper', not 'original'")
        return self


class Colour(Frozen):
    """RandAugment with the 6 colour operations, which AutoDO applies before its learned affine warp."""

    kind: Literal["colour"] = "colour"
    draws: Count
    magnitude: Annotated[float, Field(ge=0, le=30)]
    factors: Factors = "around-1"


class AutoAugment(Frozen):
    """One of the published tables of 25 sub-policies (Cubuk et al., 2019), as shipped by torchvision."""

    kind: Literal["autoaugment"] = "autoaugment"
    table: Literal["cifar10", "svhn", "imagenet"]


class TrivialAugment(Frozen):
    """One operation, its magnitude drawn uniformly from a wide range (Müller and Hutter, 2021)."""

    kind: Literal["trivialaugment"] = "trivialaugment"


class UniformAugment(Frozen):
    """Operations, probabilities and magnitudes, all drawn uniformly (LingChen et al., 2020)."""

    kind: Literal["uniformaugment"] = "uniformaugment"
    draws: Count = 2


class AdversarialAutoAugment(Frozen):
    """Policies drawn by a controller that learns within the run to raise the train loss (Zhang et al., 2020)."""

    kind: Literal["adversarial"] = "adversarial"
    copies: Annotated[int, Field(ge=2)] = 8
    """M, copies of each image in a batch, each augmented by another policy."""
    lr: PositiveFloat = 3.5e-4
    """Learning rate of the controller, which takes a step after every epoch."""
    entropy: NonNegativeFloat = 1e-5
    """Factor of the entropy of the controller, which it raises besides the train loss."""


class FilePolicy(Frozen):
    """A policy from a file (see `autodo.augment.policy_file`)."""

    kind: Literal["file"] = "file"
    path: str | None = None
    """Path or URI of the JSON file; None once `content` names a policy kept in the store."""
    content: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    """Fingerprint of the policy (`autodo.augment.policy_file.fingerprint`)."""

    @model_validator(mode="after")
    def _has_a_source(self) -> "FilePolicy":
        if self.path is None and self.content is None:
            raise ValueError("path is required: the JSON file of the policy, such as --set policy.path=policy.json")
        return self


class FastAutoAugmentSearch(Frozen):
    """Fast AutoAugment (Lim et al., 2019): density matching by TPE on cross-validation folds."""

    algorithm: Literal["fast-autoaugment"] = "fast-autoaugment"
    images: Count = 4000
    """Size of the proxy task: a stratified subsample of the run's distorted train points."""
    folds: Count = 5
    held_share: Share = 0.4
    model: str = "wrn-40-2"
    epochs: Count = 200
    batch_size: Count = 128
    lr: PositiveFloat = 0.1
    trials: Count = 200
    """TPE trials per fold."""
    at_once: Count = 4
    """Trials of a fold that are proposed together and may run in parallel."""
    sub_policies: Count = 5
    operations: Count = 2
    copies: Count = 5
    """Augmented copies of a held-out image, which counts as correct if one of them is."""
    keep: Count = 10
    """Best trials of each fold that make up the policy."""


class DadaSearch(Frozen):
    """DADA (Li et al., 2020): differentiable search over pairs of operations, with a one-step unrolled gradient."""

    algorithm: Literal["dada"] = "dada"
    images: Count = 4000
    """Size of the proxy task: half for training, half for the outer gradient."""
    model: str = "wrn-40-2"
    epochs: Count = 20
    batch_size: Count = 128
    lr: PositiveFloat = 0.1
    policy_lr: PositiveFloat = 5e-3
    temperature: PositiveFloat = 0.5
    """Temperature of the relaxed draws."""
    estimator: Literal["relax", "gumbel-softmax"] = "relax"
    """`relax`: unbiased, with a learned control variate. `gumbel-softmax`: straight-through, biased, cheaper."""
    implementation: Implementation = "own"
    keep: Count = 25
    """Sub-policies with the largest weights that make up the policy."""


class FasterAutoAugmentSearch(Frozen):
    """Faster AutoAugment (Hataya et al., 2020): a critic makes augmented images resemble the given ones."""

    algorithm: Literal["faster-autoaugment"] = "faster-autoaugment"
    images: Count = 4000
    model: str = "wrn-40-2"
    epochs: Count = 20
    batch_size: Count = 128
    lr: PositiveFloat = 1e-3
    sub_policies: Count = 10
    operations: Count = 2
    temperature: PositiveFloat = 0.1
    """Temperature of the relaxed gates."""
    operation_temperature: PositiveFloat = 0.05
    """Temperature of the softmax over the operations of a stage; the lower, the closer to one operation."""
    implementation: Implementation = "own"
    penalty: NonNegativeFloat = 10.0
    """Weight of the gradient penalty of the critic."""
    classification: NonNegativeFloat = 0.1
    """Weight of the cross-entropy relative to the distance of the critic."""


class _ProxyTrainings(Frozen):
    images: Count = 4000
    """Size of the proxy task: a stratified subsample of the run's distorted train points."""
    held_share: Share = 0.2
    """Share of the proxy task on which the networks are scored."""
    model: str = "wrn-40-2"
    epochs: Count = 200
    batch_size: Count = 128
    lr: PositiveFloat = 0.1


class PopulationSearch(_ProxyTrainings):
    """Population-based augmentation (Ho et al., 2019): a schedule of policies from population-based training."""

    algorithm: Literal["pba"] = "pba"
    population: Annotated[int, Field(ge=2)] = 16
    perturb_every: Count = 3
    """Epochs between perturbations."""
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    resample: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Probability of drawing a new value instead of moving the old one by 0 to 3."""


class OhlSearch(_ProxyTrainings):
    """OHL-Auto-Aug (Lin et al., 2019): a distribution over pairs of operations, learned by REINFORCE."""

    algorithm: Literal["ohl"] = "ohl"
    trajectories: Annotated[int, Field(ge=2)] = 8
    """Networks that are trained side by side."""
    update_every: Count = 1
    """Epochs between updates of the distribution, after which all continue from the best network."""
    policy_lr: PositiveFloat = 0.05
    stages: Count = 20
    """Most stages of the schedule; a stage has the mean of the distributions in its part of the search."""


SearchConfig = Annotated[
    FastAutoAugmentSearch | DadaSearch | FasterAutoAugmentSearch | PopulationSearch | OhlSearch,
    Field(discriminator="algorithm"),
]


class SearchedPolicy(Frozen):
    """A policy searched before the run, on its own distorted train points."""

    kind: Literal["searched"] = "searched"
    search: SearchConfig


PolicyConfig = Annotated[
    RandAugment
    | Colour
    | AutoAugment
    | TrivialAugment
    | UniformAugment
    | AdversarialAutoAugment
    | FilePolicy
    | SearchedPolicy,
    Field(discriminator="kind"),
]
