"""What runs that were disturbed are compared with."""

import re
from pathlib import Path

from autodo.config.run import RunConfig
from autodo.results import records
from orchestration.execution.execute import execute
from orchestration.execution.options import ExecutionOptions
from orchestration.grid.keep import Keep
from orchestration.store.store import Store

TIMES = {"seconds", "inner_seconds", "outer_seconds", "eval_seconds", "images_per_second", "finished_at"}
TABLES: tuple[records.Kind, ...] = ("results", "epochs", "predictions", "points")
TIMES |= {"peak_memory_bytes", "device", "git_sha", *records.CONDITIONS}


def metrics(store: Store, run_id: str) -> list[object]:
    """All that a run measured but how long it took, where, and by which commit."""
    tables = [store.paths.table(kind, run_id).read_parquet() for kind in TABLES]
    return [table.drop_columns([name for name in table.column_names if name in TIMES]).to_pylist() for table in tables]


def alone(runs: list[RunConfig], folder: Path, keep: tuple[Keep, ...] = ()) -> Store:
    """The same runs in this process, one after another, undisturbed."""
    import torch

    store, threads = Store(folder).create(), torch.get_num_threads()
    torch.set_num_threads(1)  # as many as a run has on Ray: sums of several threads round otherwise
    try:
        for run in runs:
            list(execute(run, store, ExecutionOptions(keep=keep)))
    finally:
        torch.set_num_threads(threads)
    return store


def check_no_epoch_was_lost(log: str) -> int:
    """Every attempt begins where the one before was at its last checkpoint; returns the number of attempts."""
    expected, attempts = 0, 0
    for line in log.splitlines():
        if match := re.search(r"from epoch (\d+) of", line):
            # A kill between the checkpoint and its line in the log leaves the checkpoint one ahead.
            assert int(match[1]) in (expected, expected + 1), line
            expected, attempts = int(match[1]), attempts + 1
        elif match := re.search(r" epoch (\d+): train loss", line):
            expected = int(match[1]) + 1
    return attempts
