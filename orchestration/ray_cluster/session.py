"""Ray for the length of a launch, started and ended while this process does other work.

Ray's start is waiting for its processes, so Tune and the modules of the report are imported meanwhile; Ray's end is
waiting again, so the report is written meanwhile.
"""

import contextlib
import importlib
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from orchestration.ray_cluster import cluster as clusters
from orchestration.ray_cluster.cluster import Cluster
from orchestration.store.scratch import scratch_directory, sweep

_TUNE = "orchestration.launch"
_REPORT = ("scipy.stats", "reports.write", "reports.formats.terminal")


class Session:
    """Ray, until `end`."""

    def __init__(self, running: contextlib.ExitStack, thread: ThreadPoolExecutor) -> None:
        self._running, self._thread = running, thread
        self._ending: Future[None] | None = None
        self.end_seconds = 0.0
        """Duration of Ray's end."""

    def end(self) -> None:
        """Start to end Ray; `wait` waits for it."""
        if self._ending is None:
            self._ending = self._thread.submit(self._end)

    def _end(self) -> None:
        begun = time.monotonic()
        self._running.close()
        self.end_seconds = time.monotonic() - begun

    def wait(self) -> None:
        """End Ray and wait until it has ended."""
        self.end()
        assert self._ending is not None
        # A second Ctrl-C must not leave half of Ray's processes behind.
        with clusters.on_signal(signal.SIGINT, signal.SIG_IGN):
            self._ending.result()


@contextlib.contextmanager
def starting_ray(cluster: Cluster) -> Iterator[Session]:
    """Start Ray while Tune is imported; where Tune has been imported before, the launch itself starts Ray.

    Raises:
        ConfigError: if the cluster cannot be joined.
    """
    with ThreadPoolExecutor(1) as importing, ThreadPoolExecutor(1) as ending, contextlib.ExitStack() as running:
        session = Session(running, ending)
        if _TUNE not in sys.modules:
            tune = importing.submit(importlib.import_module, _TUNE)
            for name in _REPORT:
                importing.submit(importlib.import_module, name)
            # Directly in /tmp: a socket's path in it must stay below about 100 characters, and TMPDIR can be long.
            sweep(Path("/tmp"))
            scratch = running.enter_context(scratch_directory(Path("/tmp")))
            running.enter_context(clusters.running_ray(cluster, scratch))
            tune.result()
        try:
            yield session
        finally:
            session.wait()
