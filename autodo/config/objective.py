"""Settings of the train losses for imbalance and label noise, and of the last phase on val."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, SerializeAsAny, WrapValidator, model_validator

from autodo import plugins
from autodo.config.validation import Count, Frozen, MoreMembers, Share, parse_model
from autodo.errors import ConfigError

InnerImages = Literal["train", "val", "train+val"]


class _Objective(Frozen):
    takes_copies: ClassVar[bool] = False
    """Whether several copies of an image may be in a batch: only if the loss treats each image by itself."""
    combines_with_points: ClassVar[bool] = False
    """Whether the loss is v_y loss(q, f + shift), of which outer passes have the residual and the Hessian."""

    @property
    def cosine_scale(self) -> float | None:
        """Scale of a cosine head's logits; None for the plain linear head."""
        return None

    @property
    def differentiates_forwards(self) -> bool:
        """Whether a step takes forward-mode derivatives of the network."""
        return False

    @property
    def estimates_labels(self) -> bool:
        """Whether the posterior of clean labels is estimated in training, with the predictions of train and val."""
        return False

    def early_stages(self, epochs: int) -> tuple[int, float] | None:
        """First epoch of the last stage, counted from 0, and the factor of the learning rate until then.

        None for methods that follow the learning rate of the run.
        """
        return None

    def first_training(self, epochs: int) -> int:
        """Epochs of a first training, on the train points alone, whose network is not the classifier.

        The network then begins again; each of the two trainings has the whole schedule of the learning rate.
        """
        return 0


class ObjectiveSettings(_Objective):
    """Base of the settings of a train loss from a plug-in; a subclass has `kind: Literal["NAME"] = "NAME"`."""

    code: str | None = None
    """Code of the plug-in (`autodo.plugins`), which AutoDO sets."""


class _UsesValGradient(_Objective):
    @property
    def differentiates_forwards(self) -> bool:
        return True


class _UsesClassCounts(_Objective):
    oracle: bool = False
    """Count the clean labels, which no user has, instead of the observed ones; for study."""


class _LearnsLabels(_Objective):
    label_start: Share = 70 / 320
    """Share of the epochs after which labels are learned: 70 of 320 in both papers (section 4)."""
    last_start: Share = 200 / 320
    """Share of the epochs after which labels are kept: 200 of 320 in both papers (section 4)."""
    early_lr: PositiveFloat
    """Learning rate before the last stage, as a factor of `training.lr`, which is that of the last stage."""

    def stage_starts(self, epochs: int) -> tuple[int, int]:
        """First epochs, counted from 0, in which labels are learned, and in which they are kept."""
        return round(self.label_start * epochs), round(self.last_start * epochs)

    def early_stages(self, epochs: int) -> tuple[int, float] | None:
        return self.stage_starts(epochs)[1], self.early_lr

    @model_validator(mode="after")
    def _stages_follow_each_other(self) -> Self:
        if self.label_start >= self.last_start:
            raise ValueError(f"label_start ({self.label_start}) must be below last_start ({self.last_start})")
        return self


class _Margins(_Objective):
    max_margin: PositiveFloat = 0.5
    scale: PositiveFloat = 30.0
    """Scale of the cosine head's logits."""
    deferred_share: Share = 0.2
    """Last share of the epochs, in which rare classes weigh more: 40 of 200 in LDAM-DRW."""

    @property
    def cosine_scale(self) -> float | None:
        return self.scale

    def deferred_start(self, epochs: int) -> int:
        """First epoch, counted from 0, in which rare classes weigh more."""
        return round((1 - self.deferred_share) * epochs)


class _CorrectsLoss(_Objective):
    first_share: Share = 0.5
    """Share of the epochs in which the noise matrix is prepared: half, as both papers train two networks alike."""
    oracle: bool = False
    """Take the noise matrix from the clean labels, which no user has, without a first training; for study."""

    def first_training(self, epochs: int) -> int:
        return 0 if self.oracle else min(max(1, round(self.first_share * epochs)), max(1, epochs - 1))


class LabelSmoothing(_Objective):
    """Cross-entropy with smoothed labels (Szegedy et al., 2016)."""

    takes_copies: ClassVar[bool] = True
    kind: Literal["label-smoothing"] = "label-smoothing"
    smoothing: Share = 0.1


class Mixup(_Objective):
    """Convex combinations of two images and their labels (Zhang et al., 2018)."""

    kind: Literal["mixup"] = "mixup"
    alpha: PositiveFloat = 0.2
    """Parameter of Beta(alpha, alpha). The paper has 0.2 for ImageNet, where above 0.4 underfits, and 1 for CIFAR."""


class CutMix(_Objective):
    """A rectangle pasted from another image, with labels mixed by area (Yun et al., 2019)."""

    kind: Literal["cutmix"] = "cutmix"
    alpha: PositiveFloat = 1.0
    """Parameter of Beta(alpha, alpha), from which the share of the image that stays is drawn."""


class ClassBalanced(_UsesClassCounts):
    """Cross-entropy weighted by the inverse effective number of images of the class (Cui et al., 2019)."""

    takes_copies: ClassVar[bool] = True
    combines_with_points: ClassVar[bool] = True
    kind: Literal["class-balanced"] = "class-balanced"
    beta: Share = 0.9999


class LDAM(_UsesClassCounts, _Margins):
    """Label-distribution-aware margins on a cosine head, reweighted late (Cao et al., 2019)."""

    takes_copies: ClassVar[bool] = True
    kind: Literal["ldam-drw"] = "ldam-drw"
    beta: Share = 0.9999
    """beta of the class-balanced weights in the last epochs."""


class LabelPosterior(_Margins):
    """Margins and late weights of LDAM-DRW for the posterior of the clean label, which is estimated with val."""

    kind: Literal["label-posterior"] = "label-posterior"
    start_epoch: Count = 1
    """First epoch, counted from 0, with the posterior; observed labels before."""
    beta: Share = 0.7
    """Decay of the running predictions, as in ELR."""
    temperature: PositiveFloat = 3.0
    """Divisor of the logits in the running predictions."""

    @property
    def estimates_labels(self) -> bool:
        return True


class LogitAdjustment(_UsesClassCounts):
    """Cross-entropy of the logits plus tau log(class share) (Menon et al., 2021)."""

    takes_copies: ClassVar[bool] = True
    combines_with_points: ClassVar[bool] = True
    kind: Literal["logit-adjustment"] = "logit-adjustment"
    tau: PositiveFloat = 1.0


class GCE(_Objective):
    """Generalised cross-entropy: cross-entropy for q -> 0, absolute error for q = 1 (Zhang and Sabuncu, 2018)."""

    takes_copies: ClassVar[bool] = True
    kind: Literal["gce"] = "gce"
    q: Annotated[float, Field(gt=0, le=1)] = 0.7


class ELR(_Objective):
    """Early-learning regularisation towards a running prediction for each point (Liu et al., 2020)."""

    kind: Literal["elr"] = "elr"
    strength: PositiveFloat = 3.0
    """lambda in the paper: 3 for CIFAR-10."""
    beta: Share = 0.7
    """Decay of the running predictions: 0.7 for CIFAR-10."""


class SOP(_Objective):
    """Sparse over-parameterisation: label noise of each point as u*u - v*v (Liu et al., 2022)."""

    kind: Literal["sop"] = "sop"
    lr_u: PositiveFloat = 10.0
    lr_v: PositiveFloat = 10.0
    deviation: PositiveFloat = 1e-8
    """Standard deviation of the initial u and v."""


class Pencil(_LearnsLabels):
    """Label distributions as parameters, which descend the train loss by backpropagation (Yi and Wu, 2019)."""

    kind: Literal["pencil"] = "pencil"
    # Section 4, CIFAR-10 with 30% symmetric noise: learning rates 0.03 and 0.2, alpha 0.1, beta 0.8, lambda 300.
    early_lr: PositiveFloat = 0.15
    alpha: NonNegativeFloat = 0.1
    """Factor of the compatibility loss, the cross-entropy of the observed label and the learned one."""
    beta: NonNegativeFloat = 0.8
    """Factor of the entropy of the predictions."""
    lr_labels: PositiveFloat = 300.0
    """Learning rate of the labels, lambda in the paper, for 320 epochs; shorter runs multiply it by 320/epochs."""
    scale: PositiveFloat = 10.0
    """Initial logit of the observed label, K in the paper (section 3)."""


class JointOptimization(_UsesClassCounts, _LearnsLabels):
    """Soft labels that are mean predictions of recent epochs, then a new training with them (Tanaka et al., 2018)."""

    kind: Literal["joint-optimization"] = "joint-optimization"
    # Section 4, CIFAR-10 with symmetric noise: learning rates 0.08 (70% noise) and 0.2, alpha 1.2, beta 0.8.
    early_lr: PositiveFloat = 0.4
    alpha: NonNegativeFloat = 1.2
    """Factor of the divergence between the class shares and the mean prediction."""
    beta: NonNegativeFloat = 0.8
    """Factor of the entropy of the predictions."""
    window: Share = 10 / 320
    """Share of the epochs whose predictions are averaged, at least one epoch: 10 of 320 (section 4)."""


class GLC(_CorrectsLoss):
    """Gold loss correction: a noise matrix of mean predictions on val (Hendrycks et al., 2018)."""

    kind: Literal["glc"] = "glc"


class ForwardCorrection(_CorrectsLoss):
    """Cross-entropy of predictions times a noise matrix, from the confusion on val (Patrini et al., 2017)."""

    kind: Literal["forward-correction"] = "forward-correction"


class CoTeaching(_Objective):
    """Two networks, each of which learns from the points with a small loss in the other (Han et al., 2018)."""

    kind: Literal["co-teaching"] = "co-teaching"
    forget_rate: Share | None = None
    """Share of the train points that are left out of a batch, tau in the paper. None: the share of wrong labels, which
    the paper's experiments know too, and no user does."""
    gradual: Share = 10 / 200
    """Share of the epochs in which the rate rises to `forget_rate`, at least one epoch: 10 of 200 (section 4)."""


class MetaWeightNet(_UsesValGradient):
    """A small network that maps the loss of a point to its weight, learned from val (Shu et al., 2019)."""

    kind: Literal["meta-weight-net"] = "meta-weight-net"
    lr: PositiveFloat = 1e-3
    """Learning rate of Adam."""
    weight_decay: NonNegativeFloat = 1e-4
    hidden: Count = 100


class L2RW(_UsesValGradient):
    """Weights by how well the gradient of a point agrees with that of val, for each batch (Ren et al., 2018)."""

    kind: Literal["l2rw"] = "l2rw"


def _from_plugins(given: Any, built_in: Callable[[Any], Any]) -> Any:
    """Validate the settings of a train loss from a plug-in; leave the others to pydantic."""
    try:
        more = plugins.names("objective", _BUILT_IN)
        section = given.model_dump() if isinstance(given, ObjectiveSettings) else given
        # Stored settings have a code, also where the plug-in is missing.
        if not isinstance(section, Mapping) or not (section.get("kind") in more or section.get("code")):
            return built_in(given)
        loaded = plugins.get("objective", str(section.get("kind")))
        full = {**section, "code": section.get("code") or loaded.code}
        settings = parse_model(loaded.plugin.settings, full, loaded.plugin.name)
    except ConfigError as error:
        raise ValueError("; ".join(str(error).splitlines())) from None
    return settings


ObjectiveConfig = Annotated[
    LabelSmoothing
    | Mixup
    | CutMix
    | ClassBalanced
    | LDAM
    | LabelPosterior
    | LogitAdjustment
    | GCE
    | ELR
    | SOP
    | Pencil
    | JointOptimization
    | GLC
    | ForwardCorrection
    | CoTeaching
    | MetaWeightNet
    | L2RW,
    Field(discriminator="kind"),
    SerializeAsAny(),
    WrapValidator(_from_plugins),
    MoreMembers(lambda: [loaded.plugin.settings for loaded in plugins.all_of("objective")]),
]
_BUILT_IN: dict[str, type[_Objective]] = {
    member.model_fields["kind"].default: member for member in get_args(get_args(ObjectiveConfig)[0])
}
"""Settings of the train losses by `kind`, without those of plug-ins."""


def kinds_with_copies() -> list[str]:
    """Train losses that `policy.kind` adversarial combines with."""
    return _kinds(lambda member: member.takes_copies)


def kinds_with_points() -> list[str]:
    """Train losses that `points.learn` combines with."""
    return _kinds(lambda member: member.combines_with_points)


def _kinds(chosen: Callable[[type[_Objective]], bool]) -> list[str]:
    return [kind for kind, member in objective_kinds().items() if chosen(member)]


def objective_kinds() -> dict[str, type[_Objective]]:
    """Settings of all train losses by `kind`, those of plug-ins included."""
    plugins.names("objective", _BUILT_IN)
    return {**_BUILT_IN, **{loaded.plugin.name: loaded.plugin.settings for loaded in plugins.all_of("objective")}}


class FinetuneConfig(Frozen):
    """A last phase that trains only the head, on the val images."""

    share: Share = 0.1
    """Share of the epochs, at least one epoch."""
    lr: PositiveFloat | None = None
    """Learning rate at the start of the phase, with a cosine decay to 0; None: `training.lr`."""
    class_balanced: bool = False
    """Draw every class equally often, and its images with replacement (Kang et al., 2020)."""
