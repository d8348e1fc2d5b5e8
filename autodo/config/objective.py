"""How methods for imbalance and noise train: their train loss, which images they see, and a last phase on val."""

from typing import Annotated, Literal

from pydantic import Field

from autodo.config.validation import Frozen

InnerImages = Literal["train", "val", "train+val"]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]


class _Objective(Frozen):
    @property
    def cosine_scale(self) -> float | None:
        """Scale of the cosines that the head gives as logits; None for the plain linear head."""
        return None

    @property
    def differentiates_forwards(self) -> bool:
        """Whether its steps take forward-mode derivatives of the network."""
        return False


class _AlongVal(_Objective):
    @property
    def differentiates_forwards(self) -> bool:
        return True


class _CountsClasses(_Objective):
    oracle: bool = False
    """True: the class counts are those of the clean labels, which no user has; for study. False: of the given ones."""


class LabelSmoothing(_Objective):
    """Cross-entropy with smoothed labels (Szegedy et al., 2016)."""

    kind: Literal["label-smoothing"] = "label-smoothing"
    smoothing: Share = 0.1


class Mixup(_Objective):
    """Convex combinations of two images and of their labels (Zhang et al., 2018)."""

    kind: Literal["mixup"] = "mixup"
    alpha: Positive = 0.2
    """Of Beta(alpha, alpha). The paper's value for ImageNet, where it found more than 0.4 to underfit; 1 for CIFAR."""


class CutMix(_Objective):
    """A rectangle of another image is pasted, and the labels are mixed by area (Yun et al., 2019)."""

    kind: Literal["cutmix"] = "cutmix"
    alpha: Positive = 1.0
    """Of Beta(alpha, alpha), the share of the image that stays."""


class ClassBalanced(_CountsClasses):
    """Cross-entropy weighted by the inverse effective number of a class's images (Cui et al., 2019)."""

    kind: Literal["class-balanced"] = "class-balanced"
    beta: Share = 0.9999


class LDAM(_CountsClasses):
    """Label-distribution-aware margins on a cosine head, reweighted late (Cao et al., 2019)."""

    kind: Literal["ldam-drw"] = "ldam-drw"
    max_margin: Positive = 0.5
    scale: Positive = 30.0
    beta: Share = 0.9999
    """Of the class-balanced weights of the last epochs."""
    deferred_share: Share = 0.2
    """Share of the epochs, the last ones, that are reweighted: 40 of the paper's 200."""

    @property
    def cosine_scale(self) -> float | None:
        return self.scale


class LogitAdjustment(_CountsClasses):
    """Cross-entropy of logits that the class shares are added to (Menon et al., 2021)."""

    kind: Literal["logit-adjustment"] = "logit-adjustment"
    tau: Positive = 1.0


class GCE(_Objective):
    """Generalised cross-entropy, from cross-entropy (q to 0) to absolute error (q = 1) (Zhang and Sabuncu, 2018)."""

    kind: Literal["gce"] = "gce"
    q: Annotated[float, Field(gt=0, le=1)] = 0.7


class ELR(_Objective):
    """Early-learning regularisation towards each point's running prediction (Liu et al., 2020)."""

    kind: Literal["elr"] = "elr"
    strength: Positive = 3.0
    """lambda: 3 for CIFAR-10."""
    beta: Share = 0.7
    """Memory of the running predictions: 0.7 for CIFAR-10."""


class SOP(_Objective):
    """Sparse over-parameterisation: each point's label noise as u*u - v*v (Liu et al., 2022)."""

    kind: Literal["sop"] = "sop"
    lr_u: Positive = 10.0
    lr_v: Positive = 10.0
    deviation: Positive = 1e-8
    """Of the normal distribution that u and v begin from."""


class MetaWeightNet(_AlongVal):
    """A small network from a point's loss to its weight, learned from val (Shu et al., 2019)."""

    kind: Literal["meta-weight-net"] = "meta-weight-net"
    lr: Positive = 1e-3
    """Of Adam."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    hidden: Annotated[int, Field(ge=1)] = 100


class L2RW(_AlongVal):
    """Weights of each batch's points by the agreement of their gradients with val's (Ren et al., 2018)."""

    kind: Literal["l2rw"] = "l2rw"


ObjectiveConfig = Annotated[
    LabelSmoothing | Mixup | CutMix | ClassBalanced | LDAM | LogitAdjustment | GCE | ELR | SOP | MetaWeightNet | L2RW,
    Field(discriminator="kind"),
]


class FinetuneConfig(Frozen):
    """The last epochs train the head, and only it, on the val images."""

    share: Share = 0.1
    """Share of the epochs; at least one."""
    lr: Positive | None = None
    """At the start of the phase, from where a cosine goes to 0; None is `training.lr`."""
    class_balanced: bool = False
    """Every class is drawn equally often (Kang et al., 2020); the images of a class at random, with replacement."""
