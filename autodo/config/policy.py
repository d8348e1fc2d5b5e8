"""Which augmentation policy a run uses: a distribution over sequences of (operation, probability, magnitude)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, model_validator

from autodo.config.validation import Frozen

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
OperationSet = Literal["paper", "original"]
Implementation = Annotated[Literal["own", "kornia"], Field(exclude_if=lambda given: given == "own")]
"""Implementation of a search's differentiable operations: `kornia` in the presets; older searches have `own`, and keep
their ids. The two agree within half a level of 255."""


class RandAugment(Frozen):
    """Operations drawn uniformly with replacement, all of one magnitude scale (Cubuk et al., 2020)."""

    kind: Literal["randaugment"] = "randaugment"
    operations: OperationSet = "paper"
    """`paper`: the 11 of AutoDO's appendix; `original`: RandAugment's 14."""
    draws: Annotated[int, Field(ge=1)]
    """N, operations an image."""
    magnitude: Annotated[float, Field(ge=0, le=30)]
    """M: M/30 of an operation's range."""
    fixed: bool = False
    """True: every magnitude is M/30 (the original). False: U(0, 1) M/30 (AutoDO's appendix)."""


class Colour(Frozen):
    """AutoDO's operations that are not learned, before the learned affine warp; RandAugment with the 6 colour ones."""

    kind: Literal["colour"] = "colour"
    draws: Annotated[int, Field(ge=1)]
    magnitude: Annotated[float, Field(ge=0, le=30)]


class AutoAugment(Frozen):
    """One of the published tables of 25 sub-policies (Cubuk et al., 2019), as torchvision ships them."""

    kind: Literal["autoaugment"] = "autoaugment"
    table: Literal["cifar10", "svhn", "imagenet"]


class TrivialAugment(Frozen):
    """One operation of a uniformly drawn magnitude from wide ranges (Müller and Hutter, 2021)."""

    kind: Literal["trivialaugment"] = "trivialaugment"


class UniformAugment(Frozen):
    """Operations, their probabilities and magnitudes drawn uniformly (LingChen et al., 2020)."""

    kind: Literal["uniformaugment"] = "uniformaugment"
    draws: Annotated[int, Field(ge=1)] = 2


class FilePolicy(Frozen):
    """A policy from a file: a published one, or a person's own (see `autodo.augment.policy_file`)."""

    kind: Literal["file"] = "file"
    path: str | None = None
    """Path or URI of the JSON file. None once `content` names a policy that the store keeps."""
    content: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    """Fingerprint of the policy, from `autodo.augment.policy_file.fingerprint`."""

    @model_validator(mode="after")
    def _one_is_given(self) -> "FilePolicy":
        if self.path is None and self.content is None:
            raise ValueError("path is needed: the JSON file of the policy, such as --set policy.path=policy.json")
        return self


class FastAutoAugmentSearch(Frozen):
    """Fast AutoAugment (Lim et al., 2019): density matching by TPE on cross-validation folds."""

    algorithm: Literal["fast-autoaugment"] = "fast-autoaugment"
    images: Positive = 4000
    """Train images that the search uses: a stratified subsample of the run's distorted train points."""
    folds: Positive = 5
    held_share: Share = 0.4
    model: str = "wrn-40-2"
    epochs: Positive = 200
    batch_size: Positive = 128
    lr: Annotated[float, Field(gt=0)] = 0.1
    trials: Positive = 200
    """TPE trials a fold."""
    at_once: Positive = 4
    """Trials of a fold that are asked for together, and so may run in parallel."""
    sub_policies: Positive = 5
    operations: Positive = 2
    copies: Positive = 5
    """Augmented copies of a held-out image; it counts as recognised if one of them is."""
    keep: Positive = 10
    """Best trials of a fold that the policy is made of."""


class DadaSearch(Frozen):
    """DADA (Li et al., 2020): differentiable search over pairs of operations, with a one-step unrolled gradient."""

    algorithm: Literal["dada"] = "dada"
    images: Positive = 4000
    """Half of them are trained on, half give the outer gradient."""
    model: str = "wrn-40-2"
    epochs: Positive = 20
    batch_size: Positive = 128
    lr: Annotated[float, Field(gt=0)] = 0.1
    policy_lr: Annotated[float, Field(gt=0)] = 5e-3
    temperature: Annotated[float, Field(gt=0)] = 0.5
    """Of the relaxed draws."""
    estimator: Literal["relax", "gumbel-softmax"] = "relax"
    """`relax`: unbiased, with a learned control variate. `gumbel-softmax`: straight-through, biased, cheaper."""
    implementation: Implementation = "own"
    keep: Positive = 25
    """Sub-policies of the largest weights that the policy is made of."""


class FasterAutoAugmentSearch(Frozen):
    """Faster AutoAugment (Hataya et al., 2020): the augmented images are made alike the given ones by a critic."""

    algorithm: Literal["faster-autoaugment"] = "faster-autoaugment"
    images: Positive = 4000
    model: str = "wrn-40-2"
    epochs: Positive = 20
    batch_size: Positive = 128
    lr: Annotated[float, Field(gt=0)] = 1e-3
    sub_policies: Positive = 10
    operations: Positive = 2
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """Of the relaxed gates."""
    operation_temperature: Annotated[float, Field(gt=0)] = 0.05
    """Of the softmax over a stage's operations: the lower, the nearer to one operation."""
    implementation: Implementation = "own"
    penalty: Annotated[float, Field(ge=0)] = 10.0
    """lambda of the critic's gradient penalty."""
    classification: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the cross-entropy beside the critic's distance."""


class PopulationSearch(Frozen):
    """Population-based augmentation (Ho et al., 2019): a schedule of policies from population-based training."""

    algorithm: Literal["pba"] = "pba"
    images: Positive = 4000
    held_share: Share = 0.2
    model: str = "wrn-40-2"
    epochs: Positive = 200
    batch_size: Positive = 128
    lr: Annotated[float, Field(gt=0)] = 0.1
    population: Annotated[int, Field(ge=2)] = 16
    perturb_every: Positive = 3
    """Epochs between two perturbations."""
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    resample: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Probability that a number is drawn anew, not moved by 0 to 3."""


SearchConfig = Annotated[
    FastAutoAugmentSearch | DadaSearch | FasterAutoAugmentSearch | PopulationSearch, Field(discriminator="algorithm")
]


class SearchedPolicy(Frozen):
    """A policy that is searched on the run's own distorted train points before the run."""

    kind: Literal["searched"] = "searched"
    search: SearchConfig


PolicyConfig = Annotated[
    RandAugment | Colour | AutoAugment | TrivialAugment | UniformAugment | FilePolicy | SearchedPolicy,
    Field(discriminator="kind"),
]


def recipe_key(policy: Mapping[str, Any]) -> str:
    """Under which key of a dataset recipe's `policies` the values for a `policy` section stand: kind, or algorithm.

    Those of a search stand there as a whole `policy` section.
    """
    kind = str(policy.get("kind"))
    return str(policy.get("search", {}).get("algorithm")) if kind == "searched" else kind


def fitting(given: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """Of overrides of a `policy` section those that a method's own policy reads, and those that none does.

    A grid gives all of its methods the same overrides: what another kind of policy, or another search, would read is no
    error and is left out.

    Args:
        preset: the `policy` section of the method; empty if it has none.
    """
    if "kind" in given:
        return dict(given)
    kept = known_to(given, "kind", preset.get("kind"), PolicyConfig)
    if isinstance(given.get("search"), Mapping) and "search" in kept and "algorithm" not in given["search"]:
        algorithm = preset.get("search", {}).get("algorithm")
        kept["search"] = known_to(given["search"], "algorithm", algorithm, SearchConfig)
    return kept


def known_to(given: Mapping[str, Any], tag: str, name: Any, union: Any) -> dict[str, Any]:
    """Of the given keys those that the member `name` of a union reads, and those that no member does."""
    models: dict[str, type[BaseModel]] = {m.model_fields[tag].default: m for m in get_args(get_args(union)[0])}
    own = set(models[name].model_fields) if name in models else set()
    others = {field for model in models.values() for field in model.model_fields}
    return {key: value for key, value in given.items() if key in own or key not in others}
