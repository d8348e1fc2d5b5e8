"""`AutoDOClassifier`: `autodo.fit` with the interface of scikit-learn."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from autodo.api.fit import fit
from autodo.api.outcome import FitOutcome
from autodo.data.given.labels import label_array, read_labels
from autodo.errors import ConfigError, DataError
from autodo.io.storage import StrPath

if TYPE_CHECKING:
    from torch import nn

_BATCH_SIZE = 256


class AutoDOClassifier(ClassifierMixin, BaseEstimator):
    """A scikit-learn classifier of images whose train labels may be wrong and whose classes may be rare.

    Images are as in `autodo.fit`, without datasets; with `image_shape` a row of numbers for each image too, which
    scikit-learn's own tools need. Labels are whole numbers, booleans or strings, and `predict` returns
    them in their own type.

    All given images are trained on: for an error on new images, hold some out, as `cross_val_score` does.

    Args:
        image_shape: shape of each image, if the images are rows, such as (8, 8) or (3, 32, 32); None otherwise.
        method, model, weights, epochs, image_size, val_share, seed, preset, settings, device, verbose: see
            `autodo.fit`.
        checkpoint: see `autodo.fit`; not for several fits, such as those of a cross-validation.

    Attributes:
        classes_: labels in the order of the columns of `predict_proba`, in the type that they were given in.
        outcome_: the `FitOutcome`, with learned weights, soft labels and the images to check first.
    """

    def __init__(
        self,
        method: str = "autodo",
        *,
        model: "str | nn.Module | None" = None,
        weights: StrPath | None = None,
        epochs: int | None = None,
        image_size: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        val_share: float | None = None,
        seed: int = 0,
        preset: str | None = "auto",
        settings: Mapping[str, Any] | None = None,
        device: str | None = None,
        checkpoint: StrPath | None = None,
        verbose: bool = False,
    ) -> None:
        self.method = method
        self.model = model
        self.weights = weights
        self.epochs = epochs
        self.image_size = image_size
        self.image_shape = image_shape
        self.val_share = val_share
        self.seed = seed
        self.preset = preset
        self.settings = settings
        self.device = device
        self.checkpoint = checkpoint
        self.verbose = verbose

    def fit(self, X: Any, y: Any, *, val: tuple[Any, Any] | None = None) -> Self:
        """Trains on images and labels.

        Args:
            val: pair (images, labels) of the trusted set, whose labels somebody has checked. None splits `val_share` of
                the images off, whose labels are as wrong as the others'.
        Raises:
            ConfigError, DataError, TrainingDiverged: see `autodo.fit`.
        """
        read_labels(y, "y")
        self.classes_, codes = np.unique(label_array(y), return_inverse=True)
        trusted = None
        if val is not None:
            trusted = self._images(val[0]), self._codes(read_labels(val[1], "val"))
        self.outcome_: FitOutcome = fit(
            self._images(X),
            codes,
            val=trusted,
            class_names=[str(label) for label in self.classes_],
            **{name: value for name, value in self.get_params(deep=False).items() if name != "image_shape"},
        )
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Most probable label of each image. Shape: N images -> [N]."""
        probabilities = self.predict_proba(X)
        labels: NDArray[Any] = self.classes_[probabilities.argmax(1)]
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Probability of each label. Shape: N images -> [N, classes], in the order of `classes_`.

        Raises:
            DataError: if images cannot be read. NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        images, colours = self._images(X), self.outcome_.classifier.mean.shape[1] == 3
        shape = tuple(getattr(images, "shape", ()))
        one = isinstance(images, str | bytes | os.PathLike) or not hasattr(images, "__len__")
        if one or (colours and len(shape) == 3 and not {shape[0], shape[-1]}.isdisjoint((3, 4))):
            raise DataError("X: is one image, not several: give a list, or an array [N, ...]")
        # A list, because an array of three gray images could be one image of three channels.
        return self.outcome_.classifier.predict_proba(list(images), batch_size=_BATCH_SIZE)

    def _codes(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        number = {label: i for i, label in enumerate(self.classes_.tolist())}
        unknown = next((label for label in labels.tolist() if label not in number), None)
        if unknown is not None:
            raise DataError(f"val: has the class {unknown!r}, which y does not have; classes: {self.classes_.tolist()}")
        return np.array([number[label] for label in labels.tolist()], np.int64)

    def _images(self, given: Any) -> Any:
        """The images, which `image_shape` makes from rows."""
        if self.image_shape is None:
            return given
        rows, shape = np.asarray(given), tuple(self.image_shape)
        if rows.ndim != 2 or rows.shape[1] != np.prod(shape):
            raise ConfigError(f"image_shape: {shape} does not fit images of the shape {rows.shape}: rows of numbers")
        return rows.reshape(-1, *shape)
