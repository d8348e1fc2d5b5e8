"""Settings of a head that is solved: a linear classifier of the frozen encoder's features."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from autodo.config.validation import Count, Frozen

BalanceName = Literal["shift", "weights", "loss", "none"]


class HeadConfig(Frozen):
    """A linear head with the lowest cross-entropy of the features, in place of the one that was trained."""

    solve: Literal["final", "passes"] = "final"
    """`final`: after the last epoch; the solved head is that of the classifier. `passes`: also before each outer pass,
    or every few epochs if the method has none; the network trains on from the solved head."""
    every: Count | None = None
    """Epochs between the solves of `passes`, if the method has no outer passes; None: 2."""
    start_share: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the epochs before the first solve of `passes`, if the method has no outer passes; None: 0.25. A head
    that is solved for features that have hardly learned has large weights, which spoil the training."""
    labels: Literal["observed", "learned", "posterior"] = "observed"
    """Labels of the train points: as observed; the soft labels and loss weights that the method has learned; or the
    posterior of the clean label, which is estimated with the clean val images (docs/explanation/method.md), first by
    the train loss if it does so."""
    images: Literal["inner", "val"] = "inner"
    """Images whose features are used: those that the encoder was trained on, or the val images alone."""
    balance: BalanceName = "shift"
    """`shift`: log(share of the class) is added to the logits during the solve (logit adjustment). `weights`: each
    class has the same total weight. `loss`: as in training, the shift of `logit-adjustment` and the class weights of
    `class-balanced`. `none`: neither."""
    rounds: NonNegativeInt = 2
    """Times that the posterior is computed, each time from a new solve."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Parts of the points; each part has its posterior from a head that is solved on the others, so that a head with
    many weights for few points does not confirm the labels it was solved with."""
    weight_decay: PositiveFloat | Literal["held-out", "training"] = "held-out"
    """Weight decay of the solve. `held-out`: chosen for each solve by the loss of points that are left out, one part of
    `folds`, from 1e-4 on upwards: few points with wrong labels need more. `training`: `training.weight_decay`."""
    tolerance: PositiveFloat = 1e-3
    """Largest absolute value of the gradient at the solution, as a share of that at a head of zeros."""
    max_iterations: Count = 200
    """Iterations of L-BFGS, if it does not reach the tolerance before."""

    @model_validator(mode="after")
    def _times_need_passes(self) -> Self:
        for name in ("every", "start_share"):
            if self.solve != "passes" and getattr(self, name) is not None:
                raise ValueError(f"{name} ({getattr(self, name)}) is only for solve 'passes', not for {self.solve!r}")
        return self
