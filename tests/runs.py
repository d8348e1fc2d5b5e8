"""Made-up results of runs."""

import datetime
from typing import TYPE_CHECKING, Any

from autodo.config.run import RunConfig
from autodo.results import records

if TYPE_CHECKING:
    from autodo.results.outcome import Outcome


def result_row(run: RunConfig, **values: Any) -> dict[str, Any]:
    """A row of results with the run's identity; columns not given are null."""
    identity = {
        **run.identity,
        "config": run.model_dump_json(),
        "finished_at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    }
    return dict.fromkeys(records.SCHEMAS["results"].names) | identity | values


def outcome(run: RunConfig, **values: Any) -> "Outcome":
    """An outcome with one row of results and nothing else."""
    from autodo.results.outcome import Outcome

    return Outcome(
        results=records.table("results", [result_row(run, **values)]),
        epochs=records.SCHEMAS["epochs"].empty_table(),
        predictions=records.SCHEMAS["predictions"].empty_table(),
        points=records.SCHEMAS["points"].empty_table(),
        classifier=None,  # kept only if asked for
    )
