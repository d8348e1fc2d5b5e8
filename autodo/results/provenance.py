"""Provenance of a result: code version, library versions, device."""

import functools
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from autodo.text import count_of

PACKAGES = ("autodo", "torch", "torchvision", "numpy", "ray")


@functools.cache
def git_sha() -> str | None:
    """Commit of the checkout that this code runs from, `-dirty` if its tracked files changed; None if it has none."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        if git("ls-files", Path(__file__).name) == "":
            return None
        dirty = "-dirty" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "HEAD") + dirty
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the installed libraries that affect a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device, workers: int = 1) -> str:
    """Name of the GPU, or `cpu: <machine type>, <n> threads`, with the number of workers if there are several.

    After that of a GPU, which fp32 operations use TF32, as in `NVIDIA H100, TF32 convolutions`.
    """
    together = f", {workers} workers" if workers > 1 else ""
    if device.type == "cuda":
        backends: Any = torch.backends
        settings = {"convolutions": backends.cudnn.conv, "products": backends.cuda.matmul}
        rounded = [name for name, setting in settings.items() if setting.fp32_precision == "tf32"]
        return torch.cuda.get_device_name(device) + "".join(f", TF32 {name}" for name in rounded) + together
    return f"cpu: {platform.machine()}, {count_of(torch.get_num_threads(), 'thread')}{together}"


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory: of tensors on a GPU since its statistics were reset; of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
