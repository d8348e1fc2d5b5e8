"""Errors that a report can show, and how it names them."""

import json

import pandas as pd

_AT_BEST, _AT_LAST = "at the epoch of lowest val error", "after the last epoch"

METRICS = {
    "error_best_val": "test error {epoch}",
    "error_last": f"test error {_AT_LAST}",
    "error_best_test": "lowest test error over all epochs (optimistic)",
    "minority_error": "test error of the minority classes {epoch}",
}
"""Names of the columns of results; `{epoch}` is the epoch of the classifier (`epoch_of_classifier`)."""


def metric_name(metric: str, runs: pd.DataFrame) -> str:
    """Name of a key of METRICS in a caption about these runs; for `runs`, see `epoch_of_classifier`."""
    solved = metric == "error_last" and runs["config"].map(lambda text: json.loads(text).get("head") is not None).any()
    return METRICS[metric].format(epoch=epoch_of_classifier(runs)) + (" with the trained head" if solved else "")


def epoch_of_classifier(runs: pd.DataFrame) -> str:
    """State of the network that the classifiers of these runs are, for captions.

    Args:
        runs: from `comparison.named`.
    """
    first = runs.drop_duplicates("name")
    states = {str(name): _state(str(config)) for name, config in zip(first["name"], first["config"], strict=True)}
    if len(set(states.values())) == 1:
        return next(iter(states.values()))
    others = {
        state: [name for name, of_name in states.items() if of_name == state]
        for state in dict.fromkeys(states.values())
        if state != _AT_BEST
    }
    parts = [f"{state} ({', '.join(names)})" for state, names in others.items()]
    return ", or ".join([_AT_BEST, *parts] if _AT_BEST in states.values() else parts)


def _state(config: str) -> str:
    values = json.loads(config)
    if values.get("head") is not None:
        return f"{_AT_LAST} with a solved head"
    return _AT_LAST if values.get("training", {}).get("selection") == "last" else _AT_BEST
