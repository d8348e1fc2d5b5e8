"""Synthetic stores with all files that figures need."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from autodo.results import records
from reports.analysis.comparison import named
from reports.figures.points import OPERATIONS
from reports.readers.load import load_results
from tests.reports.conftest import make
from tests.runs import result_row


@dataclasses.dataclass
class Store:
    """A store at `root`, and the columns written for each run, by table and run id."""

    root: Path
    classes: Sequence[str] = tuple(f"class {i}" for i in range(10))
    test_images: int = 200
    train_points: int = 120
    epochs: int = 8
    written: dict[tuple[str, str], dict[str, Any]] = dataclasses.field(default_factory=dict)

    def add(
        self,
        method: str = "baseline",
        distortion: str = "10-0.1",
        seed: int = 0,
        split: str = "paper",
        error: float = 0.3,
        embeddings: bool = False,
        absent: Sequence[int] = (),
        **values: Any,
    ) -> str:
        """Writes a run's files and returns its id.

        Args:
            error: of the last epoch and about that of the predictions.
            embeddings: whether they are kept.
            absent: classes of which the test set has no image.
            values: further columns of results.
        """
        run = make(method, distortion, seed, split=split)
        generator = np.random.default_rng([seed, len(self.written), len(self.classes)])
        classes = len(self.classes)
        present = np.array([c for c in range(classes) if c not in absent])
        label = present[np.arange(self.test_images) % len(present)]
        wrong = generator.random(self.test_images) < error
        prediction = np.where(
            wrong, (label + 1 + generator.integers(0, max(1, classes - 1), len(label))) % classes, label
        )
        accuracy = [
            float((prediction == label)[label == c].mean()) if (label == c).any() else None for c in range(classes)
        ]
        result = {
            **dict.fromkeys(("error_best_val", "error_last", "error_best_test"), float((prediction != label).mean())),
            **{"per_class_accuracy": accuracy, "class_names": list(self.classes)},
            **{"images_per_second": 1000.0 * (seed + 1), "inner_seconds": 10.0, "outer_seconds": 5.0, "device": "cpu"},
            **{"seconds": 16.0, "launch_id": "one", "host": "h", "host_cpus": 2, "slots": 2, "load_average": 1.94},
            **{"resumed": False, "minority_classes": range(classes // 2, classes) if distortion[:2] != "1-" else []},
            **values,
        }
        self._write("results", run.run_id, [result_row(run, **result)])
        outer = run.outer is not None
        rate = np.linspace(0.9, error, self.epochs) + generator.normal(0, 0.01, self.epochs)
        rows = [
            {
                **dict.fromkeys(records.SCHEMAS["epochs"].names),
                **run.identity,
                **{"epoch": epoch, "test_error": float(rate[epoch]), "test_loss": float(2 * rate[epoch])},
                **{"train_loss": float(3 * rate[epoch]), "outer_phase": outer and epoch >= self.epochs // 4},
            }
            for epoch in range(self.epochs)
        ]
        self._write("epochs", run.run_id, rows)
        columns = {"run_id": [run.run_id] * len(label), "index": np.arange(len(label)), "label": label}
        predictions = {**columns, "prediction": prediction, "probability": generator.random(len(label))}
        self._write_columns("predictions", run.run_id, predictions)
        self._write_points(run.run_id, generator, learned=run.points is not None)
        if embeddings:
            centres = np.random.default_rng(0).normal(0, 3, (classes, 16))
            vectors = centres[prediction] + generator.normal(0, 1, (len(label), 16))
            kept = {**columns, "prediction": prediction, "embedding": list(vectors)}
            self._write_columns("embeddings", run.run_id, kept)
        return run.run_id

    def _write_points(self, run_id: str, generator: np.random.Generator, learned: bool) -> None:
        count, classes = self.train_points, len(self.classes)
        clean = generator.integers(0, classes, count)
        label = np.where(generator.random(count) < 0.2, generator.integers(0, classes, count), clean)
        weight = np.where(label == clean, generator.normal(1.3, 0.2, count), generator.normal(0.6, 0.2, count)).clip(0)
        ranges = np.array(list(OPERATIONS.values()))
        columns = {
            **dict.fromkeys(records.SCHEMAS["points"].names, [None] * count),
            **{"run_id": [run_id] * count, "index": np.arange(count), "label": label, "clean_label": clean},
            "weight": weight if learned else [None] * count,
            "gate_probability": list(generator.random((count, 7))) if learned else [None] * count,
            "magnitude": list(ranges * generator.random((count, 7))) if learned else [None] * count,
        }
        self._write_columns("points", run_id, columns)

    def _write(self, kind: records.Kind, run_id: str, rows: list[dict[str, Any]]) -> None:
        (self.root / kind).mkdir(exist_ok=True)
        records.write(kind, records.table(kind, rows), self.path(kind, run_id))

    def _write_columns(self, kind: records.Kind, run_id: str, columns: dict[str, Any]) -> None:
        schema = records.SCHEMAS[kind]
        (self.root / kind).mkdir(exist_ok=True)
        table = pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema)
        records.write(kind, table, self.path(kind, run_id))
        self.written[kind, run_id] = columns

    def path(self, kind: str, run_id: str) -> Path:
        return self.root / kind / f"{run_id}.parquet"

    def runs(self) -> pd.DataFrame:
        """All runs, as `named` gives them."""
        return named(load_results(self.root).frame)
