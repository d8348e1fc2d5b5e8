"""Runs with known values, as frames and tables."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.results import records
from reports.analysis.comparison import named
from tests.runs import result_row

CONDITIONS = {"launch_id": "one", "host": "host", "host_cpus": 16, "slots": 2, "load_average": 1.5, "resumed": False}
METHODS = {"baseline": 0.20, "randaugment": 0.15, "autodo-a": 0.12, "autodo-aws": 0.08}


def run(dataset: str, method: str, distortion: str = "1-0.0", seed: int = 0, **options: Any) -> RunConfig:
    return build_run(dataset, method, distortion=DistortionConfig.parse(distortion), seed=seed, **options)


def results(
    rows: Iterable[tuple[RunConfig, Mapping[str, Any]]], expected: Iterable[Mapping[str, Any]] = ()
) -> pd.DataFrame:
    """The frame of `named` for such rows; errors that are not given are 0.5."""
    errors = dict.fromkeys(("error_best_val", "error_last", "error_best_test"), 0.5)
    table = records.table("results", [result_row(config, **(errors | dict(values))) for config, values in rows])
    return named(table.to_pandas().sort_values("run_id", ignore_index=True), expected)


def grid(
    datasets: Iterable[str] = ("svhn", "cifar10"),
    distortions: Iterable[str] = ("1-0.0", "10-0.1"),
    methods: Mapping[str, float] = METHODS,
    seeds: int = 4,
    **options: Any,
) -> list[tuple[RunConfig, dict[str, Any]]]:
    """Runs with values drawn around the error of each method."""
    rng = np.random.default_rng(0)
    rows = []
    for dataset in datasets:
        for distortion in distortions:
            for method, error in methods.items():
                for seed in range(seeds):
                    accuracy = 1 - error + 0.02 * rng.standard_normal(10)
                    outer = 900.0 if method.startswith("autodo") else 0.0
                    rows.append(
                        (
                            run(dataset, method, distortion, seed, **options),
                            {
                                "error_best_val": float(1 - accuracy.mean()),
                                "error_last": float(1 - accuracy.mean() + 0.01),
                                "error_best_test": float(1 - accuracy.mean() - 0.01),
                                "majority_error": float(1 - accuracy[:5].mean()),
                                "minority_error": float(1 - accuracy[5:].mean()),
                                "minority_classes": list(range(5, 10)),
                                "per_class_accuracy": accuracy.tolist(),
                                "class_names": [f"class {i}" for i in range(10)],
                                "wrong_labels": 90 if distortion.endswith("0.1") else 0,
                                "epochs": 200,
                                "seconds": 4000.0 + seed,
                                "inner_seconds": 3000.0 + seed,
                                "outer_seconds": outer,
                                "images_per_second": 2000.0 + 10 * seed,
                                "peak_memory_bytes": (3 + seed) * 2**28,
                                "device": "NVIDIA H100 80GB HBM3",
                                **CONDITIONS,
                                "git_sha": "abc",
                                "versions": [("torch", "2.11.0")],
                            },
                        )
                    )
    return rows


def epochs(rows: Iterable[tuple[RunConfig, Mapping[str, Any]]]) -> pd.DataFrame:
    """The epochs of runs; all outer passes of a run take the same time."""
    frames = []
    for config, values in rows:
        count, start = config.training.epochs, config.outer_start
        passes = np.arange(count) >= start
        frames.append(
            pd.DataFrame(
                {
                    "run_id": config.run_id,
                    "outer_phase": passes,
                    "inner_seconds": values["inner_seconds"] / count,
                    "outer_seconds": np.where(passes, values["outer_seconds"] / max(1, count - start), 0.0),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def points(
    label: Iterable[int],
    clean_label: Iterable[int],
    weight: Iterable[float | None] | None = None,
    loss: Iterable[float | None] | None = None,
    soft_label: Iterable[list[float] | None] | None = None,
) -> pa.Table:
    """A table of points with the columns that label repair reads."""
    label = list(label)
    columns: dict[str, Any] = {
        "label": label,
        "clean_label": list(clean_label),
        "weight": [None] * len(label) if weight is None else list(weight),
        "loss": [None] * len(label) if loss is None else list(loss),
        "soft_label": [None] * len(label) if soft_label is None else list(soft_label),
    }
    schema = records.SCHEMAS["points"]
    return pa.table({name: pa.array(values, schema.field(name).type) for name, values in columns.items()})
