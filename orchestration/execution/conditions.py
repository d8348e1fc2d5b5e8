"""Conditions under which a run's times were measured, so that a report knows which times compare."""

import os
import socket
from typing import NamedTuple

import pyarrow as pa

from autodo.results import records
from orchestration.execution.options import LaunchInfo


class Conditions(NamedTuple):
    """Columns `records.CONDITIONS` of a run."""

    launch_id: str | None
    host: str
    host_cpus: int | None
    slots: int | None
    load_average: float
    resumed: bool

    @classmethod
    def now(cls, launch: LaunchInfo | None, *, resumed: bool) -> "Conditions":
        """Conditions of this moment on this host.

        Args:
            launch: None for a run outside of a launch.
            resumed: whether the run continues from a checkpoint.
        """
        return cls(
            launch_id=None if launch is None else launch.id,
            host=socket.gethostname(),
            host_cpus=os.cpu_count(),
            slots=None if launch is None else launch.slots,
            load_average=os.getloadavg()[0],
            resumed=resumed,
        )

    def add_to(self, results: pa.Table) -> pa.Table:
        """The row of results with these columns filled in."""
        schema = records.SCHEMAS["results"]
        for name, value in self._asdict().items():
            position = results.schema.get_field_index(name)
            results = results.set_column(position, schema.field(name), pa.array([value], schema.field(name).type))
        return results
