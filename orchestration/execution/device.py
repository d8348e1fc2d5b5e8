"""The device that a person chooses for this process."""

import re

from autodo.errors import ConfigError


def chosen_device(name: str) -> str:
    """Device that `--device` names, made the current one; `auto` is a GPU if there is one.

    Raises:
        ConfigError: if it is unknown, or torch cannot use it.
    """
    from autodo.api.run import default_device

    known = "auto, cpu, cuda, cuda:<n>"
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name):
        # Other devices of torch, such as `meta` and `mps`, are untested.
        raise ConfigError(f"--device {name!r}: is not one of {known}")
    if name == "auto":
        return default_device()
    if name != "cpu":
        _check_gpu(name)
        _make_current(name)
    return name


def _make_current(name: str) -> None:
    """Let memory, streams and kernels that name no GPU use this one, and not the first."""
    import torch

    torch.cuda.set_device(int(name.partition(":")[2] or 0))


def _check_gpu(name: str) -> None:
    """Raises ConfigError unless torch can use this GPU."""
    import torch

    remedy = "give --device cpu, or leave it out"
    if not torch.cuda.is_available():
        why = (
            "torch finds no GPU here (does nvidia-smi?)"
            if torch.version.cuda or torch.version.hip
            else f"torch {torch.__version__} is built without CUDA"
        )
        raise ConfigError(f"--device {name!r}: {why}; {remedy}")
    count = torch.cuda.device_count()
    if int(name.partition(":")[2] or 0) >= count:
        there = "there is 1 GPU, cuda:0" if count == 1 else f"there are {count} GPUs, cuda:0 to cuda:{count - 1}"
        raise ConfigError(f"--device {name!r}: {there}")
    try:
        torch.zeros(1, device=name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name!r}: cannot be used: {str(error).splitlines()[0]}; {remedy}") from None
