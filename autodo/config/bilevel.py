"""What a method learns per point (lambda), and how: the per-point model and the outer problem."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from autodo.config.validation import Frozen

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Part = Literal["augment", "weight", "soft-label"]
LossName = Literal["cross-entropy", "kl", "symmetric-kl"]
SolverName = Literal["identity", "neumann", "conjugate-gradient", "exact"]
WarpName = Literal["fused", "kornia"]
LambdaStorage = Literal["device", "host", "file"]
"""Where lambda is kept during training. Not part of a RunConfig, because it changes no result."""


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
