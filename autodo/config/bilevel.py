"""Settings of methods that learn hyperparameters per point (lambda): the per-point model and the outer problem."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)

from autodo.config.validation import Count, Frozen, Share

Part = Literal["augment", "weight", "soft-label"]
LossName = Literal["cross-entropy", "kl", "symmetric-kl"]
SolverName = Literal["identity", "neumann", "conjugate-gradient", "quasi-newton", "fisher", "exact"]
WarpName = Literal["fused", "kornia"]
CovarianceName = Literal["diagonal", "full"]
LambdaStorage = Literal["device", "host", "file"]
"""Where lambda is kept during training. Not part of a RunConfig, because it changes no result."""


class PointsConfig(Frozen):
    """The per-point model g(lambda)."""

    learn: Annotated[tuple[Part, ...], Field(min_length=1)]
    soft_label: Literal["learned", "posterior"] = "learned"
    """Soft labels of train points: `learned` by the hypergradient; or the `posterior` of the clean label in closed
    form, estimated before each outer pass with a solved head, and the observed label until then. Val points keep
    theirs."""
    shared: bool = False
    """One row of augmentation strengths for all points (lambda^A_SHA in the paper)."""
    label_smoothing: Share = 0.1
    """Smoothing of the initial soft labels; 0.1 in the paper, 0.05 in its published code."""
    gate_probability: Share = 0.25
    """Initial probability of each augmentation operation; 0.25 in the paper, 0.2 in its published code."""
    gate_temperature: PositiveFloat = 0.5
    """Temperature of the relaxed gate, which gives its derivative; 1 in the published code, not stated in the paper."""
    warp: WarpName = "fused"
    """Implementation of the learned augmentation: `fused` (one matrix product and one sampling) or `kornia`
    (kornia.geometry, slower). They agree up to rounding errors."""
    covariance: CovarianceName = "diagonal"
    """Covariance of the magnitudes of the seven operations, in each row of strengths. `diagonal`: independent (the
    paper's experiments). `full`: their 21 correlations are learned too, from 0 on."""
    mixture: Count | None = None
    """Number K of rows of strengths that all points share. Each point learns K logits; its strengths are the mean of
    the rows weighted by the softmax of the logits. None: each point has a row of strengths of its own."""
    precision: Literal["fp32", "fp16"] = "fp32"
    """`fp16` stores differences from the initial lambda in 16 bits, stochastically rounded."""
    square_average: Literal["element", "part"] = "element"
    """Mean of squares in RMSprop: one per value, as in torch, or one per part of a row, to save memory."""

    @field_validator("learn")
    @classmethod
    def _in_fixed_order(cls, learn: tuple[Part, ...]) -> tuple[Part, ...]:
        order: tuple[Part, ...] = ("augment", "weight", "soft-label")
        if len(set(learn)) != len(learn):
            raise ValueError(f"{list(learn)} names a part twice")
        return tuple(part for part in order if part in learn)

    @model_validator(mode="after")
    def _posterior_is_beside_a_learned_part(self) -> Self:
        if self.soft_label == "posterior" and ("soft-label" not in self.learn or len(self.learn) == 1):
            raise ValueError(
                "soft_label 'posterior' is for learn: [weight, soft-label], [augment, soft-label] or all three, "
                f"not {list(self.learn)}"
            )
        return self

    @property
    def columns(self) -> tuple[Part, ...]:
        """Parts of lambda that outer passes move."""
        return tuple(part for part in self.learn if part != "soft-label" or self.soft_label == "learned")

    @model_validator(mode="after")
    def _only_augmentation_is_shared(self) -> Self:
        if self.shared and self.learn != ("augment",):
            raise ValueError("shared: true needs learn: [augment]; weights and soft labels are per point")
        return self

    @model_validator(mode="after")
    def _strengths_are_learned(self) -> Self:
        if self.shared and self.mixture is not None:
            raise ValueError(f"mixture ({self.mixture}) needs shared: false; shared: true is a mixture of 1 row")
        if "augment" not in self.learn:
            for name, given in (("mixture", self.mixture), ("covariance", self.covariance)):
                if given not in (None, "diagonal"):
                    raise ValueError(f"{name} ({given}) needs 'augment' in learn; {list(self.learn)} has no strengths")
        return self


class OuterConfig(Frozen):
    """The outer problem: RMSprop on lambda with the implicit gradient of the validation loss."""

    lr: PositiveFloat = 0.05
    start_share: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of the epochs before the outer phase starts (E = 50 of 200 in the paper)."""
    every: Count = 1
    """Epochs per outer pass in the outer phase; steps are longer by this factor. 1 is the algorithm of the paper, which
    ends with a pass; otherwise the last epoch has none, because no training follows."""
    schedule: Literal["restart", "shared"] = "shared"
    """Schedule of `lr`. `restart`: warm-up and cosine over the epochs of the outer phase, as in the published code.
    `shared`: the schedule of the inner problem, which is nearly over if the outer phase starts late."""
    eps: PositiveFloat = 1e-8
    """epsilon of RMSprop. Gradients far below 10 eps give tiny steps, such as those of soft labels of 1,000 classes."""
    solver: SolverName
    """How u = H^-1 v is computed. `identity`: u = v, as in DARTS. `neumann`: a truncated series (the paper).
    `conjugate-gradient`: with the Gauss-Newton part of H. `quasi-newton`: the L-BFGS inverse of H. `fisher`: conjugate
    gradients with the empirical Fisher information in place of H. `exact`: a dense solve, for small layers."""
    iterations: NonNegativeInt = 20
    """Terms of the Neumann series after the first (T in the paper; 0 is the identity), or steps of conjugate gradients
    or L-BFGS."""
    step: PositiveFloat | None = None
    """Step of the Neumann series; required by `neumann`, and None for other solvers."""
    neumann_scale: Literal["sum", "step"] = "step"
    """`sum`: u is the sum of the terms of the Neumann series, as in the published code. `step`: the sum times `step`,
    which tends to H^-1 v. Always `step` for other solvers, which ignore it."""
    batch_size: Count | None = None
    """Size of the train and val batches of an outer pass; None: `training.batch_size`. The published code has 128 for
    ImageNet."""
    damping: NonNegativeFloat = 0.0
    """Added to the diagonal of the Hessian, in addition to the weight decay of the inner problem."""
    val_gradient: Literal["batch", "full"] = "batch"
    """`batch`: a val batch and a solve at each step (the paper). `full`: all of val and one solve per pass."""
    inner: Literal["training", "head"] = "training"
    """Inner problem that is differentiated implicitly. `training`: the train loss in the weight of the last layer (the
    paper). `head`: the problem whose solution the head is with `head.solve=passes`, in weight and bias. It is convex,
    and for constant features the gradient is exact (docs/how-to/features.md)."""
    hessian_points: Count | None = None
    """Number of inner points in the Hessian of a solve, drawn for each pass; None: all. Only with `full`."""

    @field_validator("neumann_scale")
    @classmethod
    def _is_step_without_neumann(cls, scale: str, given: ValidationInfo) -> str:
        return scale if given.data.get("solver") == "neumann" else "step"

    @model_validator(mode="after")
    def _hessian_points_need_full(self) -> Self:
        if self.hessian_points is not None and self.val_gradient != "full":
            raise ValueError(
                f"hessian_points ({self.hessian_points}) needs val_gradient 'full'; with {self.val_gradient!r} "
                "each step uses the Hessian of its batch"
            )
        return self

    @model_validator(mode="after")
    def _solved_heads_need_full(self) -> Self:
        if self.inner == "head" and (self.val_gradient, self.solver) != ("full", "conjugate-gradient"):
            raise ValueError(
                "inner 'head' needs val_gradient 'full' and solver 'conjugate-gradient', not "
                f"{self.val_gradient!r} and {self.solver!r}"
            )
        return self

    @model_validator(mode="after")
    def _solver_can_start(self) -> Self:
        if self.iterations == 0 and self.solver != "neumann":
            raise ValueError(f"iterations (0) is only for solver 'neumann'; {self.solver!r} needs at least 1")
        if self.solver == "fisher" and self.damping == 0:
            raise ValueError(
                "solver 'fisher' needs a damping above 0, such as outer.damping=0.01: the empirical Fisher information "
                "has no more directions than points"
            )
        return self

    @model_validator(mode="after")
    def _step_needs_neumann(self) -> Self:
        if self.solver == "neumann" and self.step is None:
            raise ValueError("solver 'neumann' needs a step, such as outer.step=0.01")
        if self.solver != "neumann" and self.step is not None:
            raise ValueError(
                f"step ({self.step}) is only for solver 'neumann', not for {self.solver!r}: set outer.step=null"
            )
        return self
