"""The result of `autodo.fit`: an `Outcome` whose learned values are in the order of the given images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from autodo.results.outcome import Outcome
from autodo.text import count_of

Floats = NDArray[np.float32]
_HISTORY = (
    *("epoch", "train_loss", "val_loss", "val_error", "test_loss", "test_error", "lr", "outer_phase"),
    *("inner_seconds", "outer_seconds", "eval_seconds"),
)


@dataclass(frozen=True, repr=False)
class FitOutcome(Outcome):
    """Result of `autodo.fit`: what was learned about each given image, and the classifier.

    `classifier` is the trained network, `error` its error on the test images, or None without a test set. The tables of
    `Outcome` are there too.

    Args:
        given: number of given train images; those that were held out as val or test included.
        trains_on_val: whether the val images were trained on.
        notes: what a reader must know of val, test and the errors of the epochs, one sentence each.
    """

    given: int = 0
    trains_on_val: bool = False
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the columns of `soft_labels` and of the classifier's probabilities."""
        return tuple(self.results["class_names"][0].as_py())

    @property
    def weights(self) -> Floats | None:
        """How much each given image counts: small for a label that is probably wrong.

        The loss weight that a method such as `autodo-exact-ws` learns, whose scale is free. A method that learns soft
        labels and no weights, such as `autodo`, has the soft label of the given class, in [0, 1]. None if it learns
        neither.

        Shape:
            [N] in the order of the given images; NaN for those that were held out as val or test.
        """
        if self.points["weight"].null_count == 0:
            return self._in_order(self.points["weight"].to_numpy())
        soft_labels = self._soft_labels()
        if soft_labels is None:
            return None
        return self._in_order(soft_labels[np.arange(len(soft_labels)), self.points["label"].to_numpy()])

    @property
    def soft_labels(self) -> Floats | None:
        """Probability of each class being the true one of each given image; None if the method learns no soft labels.

        Shape:
            [N, C] in the order of the given images; NaN for those that were held out as val or test.
        """
        soft_labels = self._soft_labels()
        return None if soft_labels is None else self._in_order(soft_labels)

    @property
    def suspicious(self) -> pa.Table:
        """Train images ranked by how probably their label is wrong, the worst first; see `suspicious_points`.

        `index` counts the given images; those that were held out as val or test are left out.
        """
        return self.suspicious_points()

    @property
    def history(self) -> pa.Table:
        """One row for each epoch: losses, errors, learning rate and times.

        Methods that solve the head after training, such as the default one, have here the errors of the head as it was
        trained up to that epoch. After few epochs they may be far above `error`, that of the solved head.

        Test columns are null without a test set. With `trains_on_val`, `val_error` is that of images that were trained
        on, which estimates no error on new images.
        """
        return self.epochs.select(_HISTORY)

    def __repr__(self) -> str:
        row = self.results.to_pylist()[0]
        error = "no test error" if self.error is None else f"test error {self.error:.2%} on {row['test_points']} images"
        trained = row["train_points"] + (row["val_points"] if self.trains_on_val else 0)
        head = (
            f"{row['method']} with {row['model']}, trained on {trained} images of {len(self.class_names)} classes for "
            f"{count_of(row['epochs'], 'epoch')}: {error}"
        )
        return "\n".join((head, *self.notes))

    def _soft_labels(self) -> Floats | None:
        """Soft labels in the order of the points table. Shape: [n, C]."""
        column = self.points["soft_label"]
        if column.null_count:
            return None
        values: Floats = pc.list_flatten(column).to_numpy().reshape(len(column), -1)
        return values

    def _in_order(self, values: NDArray[Any]) -> Floats:
        """Values of the rows of the points table in the order of the given images. Shape: [n, ...] -> [N, ...]."""
        result = np.full((self.given, *values.shape[1:]), np.nan, np.float32)
        result[self.points["index"].to_numpy()] = values
        return result
