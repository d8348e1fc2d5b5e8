"""Memory of tensors and of processes, as measured."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def peak_bytes(function: Callable[[], object], device: torch.device) -> int:
    """Peak bytes of tensors during a call, above those at its start.

    On a CPU, from torch's records of its allocations, scratch space of operations included.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        function()
    assert profiled.profiler is not None
    results = profiled.profiler.kineto_results
    assert results is not None
    changes = sorted(
        ((event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]"),
        key=lambda change: change[0],
    )
    held = np.cumsum([size for _, size in changes])
    return int(held.max())


def resident_mb() -> float:
    """Memory in MB of this process and its children, shared memory counted once, without mapped library files."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    total = 0
    for process in ("self", *children):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total / 1024
