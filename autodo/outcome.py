"""What a finished run leaves: four tables and a classifier."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from autodo import records
from autodo.augment import affine
from autodo.classifier import Classifier
from autodo.config import RunConfig
from autodo.data import Prepared
from autodo.evaluate import group_errors, per_class_accuracy
from autodo.points.model import PointModel, PointView
from autodo.provenance import device_name, git_sha, versions


class Best(NamedTuple):
    """The epoch of lowest val error so far, and what the test images were taken for at it.

    Shape:
        predictions [T] int64, probabilities [T], on the CPU.
    """

    epoch: int
    val_error: float
    val_loss: float
    predictions: Tensor
    probabilities: Tensor


@dataclass(frozen=True)
class Outcome:
    """Tables of `records.SCHEMAS`, whose `.to_pandas()` gives data frames, and the network of the last epoch."""

    results: pa.Table
    epochs: pa.Table
    predictions: pa.Table
    points: pa.Table
    classifier: Classifier

    @property
    def error(self) -> float:
        """The headline: test error, in [0, 1], at the epoch of lowest val error."""
        return float(self.results["error_best_val"][0].as_py())

    def suspicious_points(self) -> pa.Table:
        """Train points, the most probably wrong label first: by the loss of the label that was given."""
        return self.points.sort_by([("loss", "descending")])


def identity_columns(config: RunConfig) -> dict[str, Any]:
    """The columns that say which run a row belongs to."""
    return {
        "run_id": config.run_id,
        "dataset": config.dataset.label,
        "split": config.split,
        "method": config.method.name,
        "model": config.model.name,
        "imbalance_ratio": config.distortion.imbalance_ratio,
        "noise_ratio": config.distortion.noise_ratio,
        "seed": config.seed,
        "recipe_id": config.recipe_id,
        "variant_id": config.variant_id,
    }


def build_outcome(
    config: RunConfig,
    data: Prepared,
    history: list[dict[str, Any]],
    best: Best,
    train_losses: Tensor,
    points: PointModel,
    view: PointView,
    classifier: Classifier,
) -> Outcome:
    """The outcome from what a run kept.

    Args:
        history: rows of the epochs table.
        train_losses: cross-entropy of each train point's observed label, unaugmented. Shape: [N].
        view: what lam says of the N train points at the end.
    """
    return Outcome(
        results=records.table("results", [_result_row(config, data, history, best, train_losses)]),
        epochs=records.table("epochs", history),
        predictions=_predictions(config, data, best),
        points=_points(config, data, train_losses, points, view),
        classifier=classifier,
    )


def _result_row(
    config: RunConfig, data: Prepared, history: list[dict[str, Any]], best: Best, train_losses: Tensor
) -> dict[str, Any]:
    test_labels = torch.from_numpy(data.test.labels)
    classes = len(data.class_names)
    minority_error, majority_error = group_errors(best.predictions, test_labels, classes)
    inner_seconds = sum(row["inner_seconds"] for row in history)
    images_seen = sum(row["images_per_second"] * row["inner_seconds"] for row in history)
    return {
        **identity_columns(config),
        "error_best_val": history[best.epoch]["test_error"],
        "error_last": history[-1]["test_error"],
        "error_best_test": min(row["test_error"] for row in history),
        "best_val_epoch": best.epoch,
        "minority_error": minority_error,
        "majority_error": majority_error,
        "per_class_accuracy": per_class_accuracy(best.predictions, test_labels, classes),
        "class_names": list(data.class_names),
        "train_points": len(data.train.labels),
        "val_points": len(data.val.labels),
        "test_points": len(data.test.labels),
        "wrong_labels": int((data.train.labels != data.train.clean_labels).sum()),
        "epochs": len(history),
        "seconds": sum(row["inner_seconds"] + row["outer_seconds"] + row["eval_seconds"] for row in history),
        "inner_seconds": inner_seconds,
        "outer_seconds": sum(row["outer_seconds"] for row in history),
        "images_per_second": images_seen / inner_seconds,
        "peak_memory_bytes": max(row["peak_memory_bytes"] for row in history),
        "device": device_name(train_losses.device),
        "git_sha": git_sha(),
        "versions": list(versions().items()),
        "finished_at": datetime.now(UTC),
        "config": config.model_dump_json(),
    }


def _predictions(config: RunConfig, data: Prepared, best: Best) -> pa.Table:
    count = len(data.test.labels)
    columns = {
        "run_id": np.full(count, config.run_id, dtype=object),
        "index": np.arange(count),
        "label": data.test.labels,
        "prediction": best.predictions.numpy(),
        "probability": best.probabilities.numpy(),
    }
    return _columns("predictions", columns)


def _points(config: RunConfig, data: Prepared, losses: Tensor, points: PointModel, view: PointView) -> pa.Table:
    train = data.train
    count = len(train.labels)

    def learned(part: str, values: Tensor) -> Any:
        return list(values.cpu().numpy()) if part in points.learned else [None] * count

    nothing = losses.new_empty(count)
    augment = view.augment
    columns = {
        "run_id": np.full(count, config.run_id, dtype=object),
        "index": train.index,
        "source": list(train.sources) if train.sources is not None else [None] * count,
        "label": train.labels,
        "clean_label": train.clean_labels,
        "weight": learned("weight", view.weights),
        "soft_label": learned("soft-label", view.log_targets.exp()),
        "loss": losses.cpu().numpy(),
        "gate_probability": learned("augment", nothing if augment is None else affine.gate_probability(augment)),
        "magnitude": learned("augment", nothing if augment is None else affine.magnitude_deviation(augment)),
    }
    return _columns("points", columns)


def _columns(kind: records.Kind, columns: dict[str, Any]) -> pa.Table:
    schema = records.SCHEMAS[kind]
    return pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema=schema)
