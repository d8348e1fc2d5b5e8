"""Locks on files; `flock` locks belong to open files, so two of one process exclude each other."""

import threading
from pathlib import Path

import pytest

from autodo.io import file_lock as module
from autodo.io.file_lock import file_lock, is_locked, try_lock


def test_a_lock_excludes_others_until_its_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    with path.open("w") as first, path.open("w") as second:
        assert not is_locked(path)
        assert try_lock(first.fileno())
        assert is_locked(path)
        with pytest.raises(BlockingIOError):
            try_lock(second.fileno())
        first.close()
        assert try_lock(second.fileno(), patience=0)
    assert not is_locked(path)


def test_a_block_waits_for_the_lock(tmp_path: Path) -> None:
    events: list[str] = []

    def wait() -> None:
        with file_lock(tmp_path / "lock"):
            events.append("second")

    with file_lock(tmp_path / "lock"):
        thread = threading.Thread(target=wait)
        thread.start()
        events.append("first")
    thread.join()
    assert events == ["first", "second"]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(module.fcntl, "flock", flock)
    with (tmp_path / "lock").open("w") as file:
        assert not try_lock(file.fileno())
        assert not is_locked(tmp_path / "lock")
