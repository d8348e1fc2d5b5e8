"""The outcome of a finished run: four tables and a classifier."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autodo.augment import affine
from autodo.config.recipes import used_plugins
from autodo.config.run import RunConfig
from autodo.data import DataSplits, TrainSet
from autodo.data.images.image_set import Integers
from autodo.evaluation import Evaluation, Scores, group_errors, per_class_accuracy
from autodo.points.model import PointModel, PointView
from autodo.results import records
from autodo.results.classifier import Classifier
from autodo.results.model_card import run_record
from autodo.results.provenance import git_sha, versions


class BestEpoch(NamedTuple):
    """The epoch of lowest val error so far: its weights and its predictions of the test images, on the CPU.

    Shape:
        predictions [T] int64, probabilities [T].
    """

    epoch: int
    val_error: float
    val_loss: float
    predictions: Tensor
    probabilities: Tensor
    encoder: dict[str, Tensor]
    head: dict[str, Tensor]

    @classmethod
    def copy_of(cls, epoch: int, val: Scores, test: Scores, encoder: nn.Module, head: nn.Module) -> Self:
        """A copy of the state after this epoch."""
        predictions, probabilities = test.predictions.cpu(), test.probabilities.cpu()
        return cls(epoch, val.error, val.loss, predictions, probabilities, _copied(encoder), _copied(head))


@dataclass(frozen=True)
class Outcome:
    """Tables of `records.SCHEMAS`, and the classifier of the epoch of lowest val error.

    `embeddings` is None unless they were asked for. `.to_pandas()` makes a data frame of a table.
    """

    results: pa.Table
    epochs: pa.Table
    predictions: pa.Table
    points: pa.Table
    classifier: Classifier
    embeddings: pa.Table | None = None

    @property
    def error(self) -> float | None:
        """Test error, in [0, 1], at the epoch of lowest val error; None if there were no test images."""
        error: float | None = self.results["error_best_val"][0].as_py()
        return error

    def suspicious_points(self) -> pa.Table:
        """Train points ranked by the loss of the given label: the label that is most probably wrong comes first.

        This order measured best; it is that of `autodo inspect` (docs/how-to/find-label-errors.md).

        Returns:
            columns `index`, `source`, `given` and `predicted` (names of classes), `loss`.
        """
        names = self.results["class_names"][0].values
        points = self.points.sort_by([("loss", "descending")])
        columns = {name: points[name] for name in ("index", "source")}
        columns |= {"given": names.take(points["label"]), "predicted": names.take(points["prediction"])}
        return pa.table({**columns, "loss": points["loss"]})


def build_outcome(
    config: RunConfig,
    data: DataSplits,
    history: list[dict[str, Any]],
    best: BestEpoch,
    points: pa.Table,
    embeddings: pa.Table | None,
    device: str,
    classifier: Classifier,
    seconds_after: float = 0.0,
) -> Outcome:
    """The outcome of a run from its history and its best epoch.

    Args:
        history: rows of the epochs table.
        points, embeddings: from `points_table` and `embeddings_table`.
        device: name of the device.
        seconds_after: time of training after the last epoch.
    """
    row = _result_row(config, data, history, best, device, seconds_after)
    counts = np.bincount(data.train.labels, minlength=len(data.class_names))
    classifier.run = run_record(config, row, best.val_error, dict(zip(data.class_names, counts.tolist(), strict=True)))
    return Outcome(
        results=records.table("results", [row]),
        epochs=records.table("epochs", history),
        predictions=_predictions(config, data, best),
        points=points,
        classifier=classifier,
        embeddings=embeddings,
    )


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}


def _result_row(
    config: RunConfig,
    data: DataSplits,
    history: list[dict[str, Any]],
    best: BestEpoch,
    device: str,
    seconds_after: float,
) -> dict[str, Any]:
    test_labels = torch.from_numpy(data.test.labels)
    classes = len(data.class_names)
    minority_error, majority_error = group_errors(best.predictions, test_labels, data.minority)
    test_errors = [row["test_error"] for row in history]
    wrong = int((best.predictions != test_labels).sum())
    inner_seconds = sum(row["inner_seconds"] for row in history)
    images_seen = sum(row["images_per_second"] * row["inner_seconds"] for row in history)
    return {
        **config.identity,
        "error_best_val": 1 - (len(test_labels) - wrong) / len(test_labels) if len(test_labels) else None,
        "error_last": history[-1]["test_error"],
        "error_best_test": None if None in test_errors else min(test_errors),
        "best_val_epoch": best.epoch,
        "minority_error": minority_error,
        "majority_error": majority_error,
        "minority_classes": list(data.minority),
        "per_class_accuracy": per_class_accuracy(best.predictions, test_labels, classes),
        "class_names": list(data.class_names),
        "train_points": len(data.train.labels),
        "val_points": len(data.val.labels),
        "test_points": len(data.test.labels),
        "wrong_labels": int((data.train.labels != data.train.clean_labels).sum()),
        "epochs": len(history),
        "seconds": seconds_after
        + sum(row["inner_seconds"] + row["outer_seconds"] + row["eval_seconds"] for row in history),
        "inner_seconds": inner_seconds,
        "outer_seconds": sum(row["outer_seconds"] for row in history),
        "images_per_second": images_seen / inner_seconds,
        "peak_memory_bytes": max(row["peak_memory_bytes"] for row in history),
        "device": device,
        **dict.fromkeys(records.CONDITIONS),
        "git_sha": git_sha(),
        "versions": list({**versions(), **{one.source: one.version for one in used_plugins(config)}}.items()),
        "finished_at": datetime.now(UTC),
        "config": config.model_dump_json(),
    }


def _predictions(config: RunConfig, data: DataSplits, best: BestEpoch) -> pa.Table:
    count = len(data.test.labels)
    columns = {
        "run_id": np.full(count, config.run_id, dtype=object),
        "index": np.arange(count),
        "label": data.test.labels,
        "prediction": best.predictions.numpy(),
        "probability": best.probabilities.numpy(),
    }
    return _columns("predictions", columns)


def embeddings_table(
    config: RunConfig, data: DataSplits, best: BestEpoch, embeddings: NDArray[np.floating[Any]]
) -> pa.Table:
    """The embeddings table of the test images.

    Args:
        embeddings: outputs of the encoder of the best epoch.
    Shape:
        embeddings [T, D].
    """
    columns = {
        "run_id": np.full(len(embeddings), config.run_id, dtype=object),
        "index": np.arange(len(embeddings)),
        "label": data.test.labels,
        "prediction": best.predictions.numpy(),
        "embedding": _per_row(torch.from_numpy(embeddings).float()),
    }
    return _columns("embeddings", columns)


def points_table(
    config: RunConfig,
    given: TrainSet,
    positions: Integers,
    evaluation: Evaluation,
    points: PointModel,
    view: PointView,
    posterior: Tensor | None = None,
) -> pa.Table:
    """The points table of a process's train points, without thumbnails.

    Args:
        positions: positions of the points in `given`.
        evaluation: outputs for the points after the last epoch, with their observed labels.
        view: lambda of the points at the end.
        posterior: posterior of the clean label, which is then the soft label in the table.
    Shape:
        positions [n] int64, posterior [n, C].
    """
    count = len(positions)

    def learned(part: str, values: Tensor) -> Any:
        return _per_row(values) if part in points.learned else [None] * count

    scores = evaluation.scores()
    top_classes, top_probabilities = evaluation.top(records.TOP_CLASSES)
    augment = torch.empty(0, affine.COLUMNS) if view.augment is None else view.augment
    columns = {
        "run_id": np.full(count, config.run_id, dtype=object),
        "index": given.index[positions],
        "source": [given.sources[i] for i in positions] if given.sources is not None else [None] * count,
        "label": given.labels[positions],
        "clean_label": given.clean_labels[positions],
        "weight": learned("weight", view.weights),
        "soft_label": learned("soft-label", view.log_targets.exp()) if posterior is None else _per_row(posterior),
        "prediction": scores.predictions.cpu().numpy(),
        "loss": scores.losses.cpu().numpy(),
        "top_classes": _per_row(top_classes.to(torch.int16)),
        "top_probabilities": _per_row(top_probabilities),
        "gate_probability": learned("augment", affine.gate_probability(augment)),
        "magnitude": learned("augment", affine.magnitude_deviation(augment)),
        "thumbnail": [None] * count,
    }
    return _columns("points", columns)


def merged(parts: Sequence[tuple[Integers, pa.Table]]) -> pa.Table:
    """One table in order of the positions, from tables that each have increasing positions of their rows."""
    if len(parts) == 1:
        return parts[0][1]
    positions = np.concatenate([positions for positions, _ in parts])
    return pa.concat_tables([rows for _, rows in parts]).take(np.argsort(positions))


def _per_row(values: Tensor) -> Any:
    """A column of numbers or of lists, made without a Python object per row. Shape: [n] or [n, K]."""
    array = values.detach().cpu().contiguous().numpy()
    if array.ndim == 1:
        return array
    ends = np.arange(len(array) + 1) * array.shape[1]
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), array.reshape(-1))


def _columns(kind: records.Kind, columns: dict[str, Any]) -> pa.Table:
    schema = records.SCHEMAS[kind]
    return pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema=schema)
