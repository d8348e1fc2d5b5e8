"""Synthetic points tables."""

from typing import Any

import numpy as np
import pyarrow as pa

from autodo.results import records

NAMES = ("cat", "dog", "bird")


def points_table(probabilities: np.ndarray, given: Any, clean: Any = None, **columns: Any) -> pa.Table:
    """The table of a network with these probabilities [N, C]; columns that are not given were not learned."""
    given = np.asarray(given)
    kept = min(probabilities.shape[1], records.TOP_CLASSES)
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :kept]
    rows = np.arange(len(given))
    values = dict.fromkeys(records.SCHEMAS["points"].names, [None] * len(given)) | {
        "run_id": ["run"] * len(given),
        "index": rows * 10,
        "label": given,
        "clean_label": given if clean is None else np.asarray(clean),
        "prediction": probabilities.argmax(1),
        "loss": -np.log(probabilities[rows, given]),
        "top_classes": top.tolist(),
        "top_probabilities": np.take_along_axis(probabilities, top, 1).tolist(),
    }
    schema = records.SCHEMAS["points"]
    return pa.table({name: pa.array(value, schema.field(name).type) for name, value in (values | columns).items()})


def random_table(n: int = 200, classes: int = 5, seed: int = 0, **columns: Any) -> pa.Table:
    """The table of a fairly good network; a fifth of the labels are wrong."""
    draw = np.random.default_rng(seed)
    clean = draw.integers(classes, size=n)
    given = np.where(draw.random(n) < 0.2, draw.integers(classes, size=n), clean)
    logits = draw.normal(size=(n, classes)) + 2.0 * (np.arange(classes) == clean[:, None])
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return points_table(probabilities, given, clean, **columns)


def learned(n: int, classes: int, seed: int = 1) -> dict[str, Any]:
    """Random weights and soft labels."""
    draw = np.random.default_rng(seed)
    return {"weight": draw.random(n), "soft_label": draw.dirichlet(np.ones(classes), n).tolist()}
