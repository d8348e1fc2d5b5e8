"""What a process that trains sets, and what it gives back between runs."""

import os
from pathlib import Path

import pytest
import torch

from orchestration.execution.device import chosen_device
from orchestration.execution.on_workers import backend
from orchestration.execution.options import ExecutionOptions
from orchestration.execution.process import free_gpu_memory, prepare_process
from orchestration.store.store import Store

COMPILING = "TORCHINDUCTOR_COMPILE_THREADS"


@pytest.mark.parametrize(("before", "after"), [(None, "3"), ("1", "1")])
def test_no_more_processes_compile_than_a_run_has_cpus(
    before: str | None, after: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(COMPILING, before or "")
    if before is None:
        del os.environ[COMPILING]
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    prepare_process(Store(tmp_path).create(), ExecutionOptions(cpus=3))
    assert os.environ[COMPILING] == after


@pytest.mark.parametrize("used", [True, False])
def test_memory_goes_back_to_a_gpu_that_is_used(used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))
    free_gpu_memory()
    assert freed == [True] * used


def test_the_chosen_gpu_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)
    assert [chosen_device("cuda:1"), chosen_device("cuda"), chosen_device("cpu")] == ["cuda:1", "cuda", "cpu"]
    assert current == [1, 0]


def test_only_tensors_on_a_gpu_go_through_nccl() -> None:
    assert (backend(0), backend(0.5), backend(1)) == ("gloo", "cpu:gloo,cuda:nccl", "cpu:gloo,cuda:nccl")
