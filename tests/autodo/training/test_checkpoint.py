"""A checkpoint of several files, also after kills."""

import contextlib

import pytest
import torch

from autodo.testing.process_groups import FakeGroup
from autodo.training import checkpoint

RUN = "digits_x"
POSITIONS = [torch.tensor([0, 2, 5]), torch.tensor([1, 3, 4])]


def rows(rank: int, epoch: int) -> dict:
    return {"values": POSITIONS[rank][:, None] + 100.0 * epoch, "steps": epoch}


def save(path, epoch: int, died_before: str | None = None) -> None:
    """Saves as two processes do, the second one first, up to the step `died_before`."""
    with contextlib.suppress(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        checkpoint.save(path, RUN, {"epoch": epoch}, rows(1, epoch), POSITIONS[1], FakeGroup(1, 2))
        if died_before == "the other part":
            return
        first = FakeGroup(0, 2)
        if died_before == "the file":
            patch.setattr(first, "all_true", _die)
        elif died_before == "old parts are deleted":
            patch.setattr(checkpoint, "files", _die)
        checkpoint.save(path, RUN, {"epoch": epoch}, rows(0, epoch), POSITIONS[0], first)


def _die(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("died_before", "epoch"), [("the other part", 3), ("the file", 3), ("old parts are deleted", 4), (None, 4)]
)
def test_a_kill_at_any_moment_leaves_the_old_checkpoint_or_the_new(died_before, epoch, tmp_path):
    path = tmp_path / "checkpoint.pt"
    save(path, 3)
    save(path, 4, died_before)
    loaded = checkpoint.load(path, RUN, torch.arange(6))
    assert loaded is not None
    assert loaded["epoch"] == loaded["points"]["steps"] == epoch
    assert loaded["points"]["values"][:, 0].tolist() == [100 * epoch + point for point in range(6)]
    save(path, 5)
    assert [file.name for file in checkpoint.files(path)] == [
        "checkpoint.part-5-0-of-2.pt",
        "checkpoint.part-5-1-of-2.pt",
        "checkpoint.pt",
    ], "what the kill left behind is gone"


def test_any_rows_can_be_read_and_one_process_writes_one_file(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save(path, 3)
    loaded = checkpoint.load(path, RUN, torch.tensor([2, 3]))
    assert loaded is not None
    assert loaded["points"]["values"][:, 0].tolist() == [302, 303]
    whole = checkpoint.load(path, RUN, torch.arange(6))
    assert whole is not None
    checkpoint.save(path, RUN, {"epoch": 3}, whole["points"], torch.arange(6))
    assert checkpoint.files(path) == [path]
    again = checkpoint.load(path, RUN, torch.tensor([5]))
    assert again is not None
    assert again["points"]["values"].tolist() == [[305]]


@pytest.mark.parametrize("damage", ["missing", "truncated", "of another epoch", "of another run"])
def test_a_wrong_part_makes_the_checkpoint_unusable(damage, tmp_path, caplog):
    path = tmp_path / "checkpoint.pt"
    save(path, 3)
    file = tmp_path / "checkpoint.part-3-1-of-2.pt"
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:100])
    else:
        content = torch.load(file, weights_only=True)
        content["state"]["epoch"] += damage == "of another epoch"
        content["run_id"] += "y" if damage == "of another run" else ""
        torch.save(content, file)
    assert checkpoint.load(path, RUN, torch.arange(6)) is None
    assert str(path) in caplog.text


def test_missing_points_make_the_checkpoint_unusable(tmp_path, caplog):
    path = tmp_path / "checkpoint.pt"
    save(path, 3)
    assert checkpoint.load(path, RUN, torch.arange(7)) is None
    assert "lacks 1 of 7 points" in caplog.text


def test_deleting_a_checkpoint_leaves_its_neighbours(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save(path, 3)
    others = [tmp_path / "config.json", tmp_path / "checkpoint.part-of-mine.pt", tmp_path / "other.part-3-0-of-2.pt"]
    for other in others:
        other.write_text("{}")
    checkpoint.delete(path)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    checkpoint.delete(path)
    assert checkpoint.files(tmp_path / "nowhere" / "checkpoint.pt") == []
