"""How methods for imbalance and noise train: their train loss, which images they see, and a last phase on val."""

from typing import Annotated, Literal

from pydantic import Field

from autodo.validation import Frozen

InnerImages = Literal["train", "val", "train+val"]


class LabelSmoothing(Frozen):
    """Cross-entropy with smoothed labels (Szegedy et al., 2016)."""

    kind: Literal["label-smoothing"] = "label-smoothing"
    smoothing: Annotated[float, Field(gt=0, lt=1)] = 0.1


ObjectiveConfig = LabelSmoothing


class FinetuneConfig(Frozen):
    """The last epochs train the head, and only it, on the val images."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the epochs."""
    class_balanced: bool = False
