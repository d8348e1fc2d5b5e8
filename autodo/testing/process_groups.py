"""Process groups for tests: real processes, started once and used for many groups, or a single rank by itself."""

import multiprocessing
import tempfile
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from autodo.distributed.process_group import ProcessGroup

TIMEOUT_SECONDS = 120


class FakeGroup(ProcessGroup):
    """One rank of several, for code that does not communicate."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


class WorkerPool:
    """Up to `most` processes; `run` joins the first of them to a process group for one call."""

    def __init__(self, most: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._calls = 0
        context = multiprocessing.get_context("spawn")
        self._connections: list[Connection] = []
        self._processes = []
        for _ in range(most):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)

    def run(self, size: int, job: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Results of `job(*arguments)` on each of `size` workers, or the exceptions that it raised."""
        self._calls += 1
        meeting = Path(self._folder.name) / f"group-{self._calls}"
        for rank, connection in enumerate(self._connections[:size]):
            connection.send((meeting, rank, size, job, arguments))
        results = []
        for connection in self._connections[:size]:
            assert connection.poll(TIMEOUT_SECONDS), "a worker hangs"
            results.append(connection.recv())
        return results

    def each(self, size: int, job: Callable[..., Any], *arguments: Any) -> list[Any]:
        """`run`, but raises the exception of a worker."""
        results = self.run(size, job, *arguments)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def close(self) -> None:
        for process, connection in zip(self._processes, self._connections, strict=True):
            process.kill()
            process.join()
            process.close()
            connection.close()
        self._folder.cleanup()


def _serve(connection: Connection) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    warnings.simplefilter("error")
    while True:
        meeting, rank, size, job, arguments = connection.recv()
        dist.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=size)
        try:
            result = job(*arguments)
        except BaseException as error:
            error.add_note("".join(traceback.format_exception(error)))
            result = error
        # Before the group is destroyed, which may block if another worker failed.
        connection.send(result)
        dist.destroy_process_group()
