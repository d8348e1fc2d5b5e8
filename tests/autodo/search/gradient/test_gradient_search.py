"""Both gradient searches on digits: what they give, that they repeat, and that they continue."""

import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from autodo.augment.policy_file import PolicyFile
from autodo.config.run import RunConfig
from autodo.data import load, prepare
from autodo.data.prepare import DataSplits
from autodo.errors import TrainingDiverged
from autodo.search.gradient.dada import Dada
from autodo.search.gradient.differentiable_operations import SEARCHED
from autodo.search.gradient.faster_autoaugment import FasterAutoAugment
from autodo.search.gradient.gradient_search import Build, run_search
from tests.autodo.search.gradient.toys import search_run

ALGORITHMS: dict[str, Build] = {"dada": Dada, "faster-autoaugment": FasterAutoAugment}
EPOCHS = 3
SUB_POLICIES = {"dada": 25, "faster-autoaugment": 10}


@pytest.fixture(scope="module")
def data() -> DataSplits:
    run = run_of("dada")
    return prepare(load(run.dataset), run)


def run_of(algorithm: str) -> RunConfig:
    return search_run(algorithm, images=300, epochs=EPOCHS, batch_size=50, implementation="kornia")  # the presets'


def search(
    algorithm: str, data: DataSplits, checkpoint: Path | None = None, report: Callable[[str], None] = lambda line: None
) -> PolicyFile:
    build = ALGORITHMS[algorithm]
    return run_search(build, run_of(algorithm), data, device="cpu", checkpoint=checkpoint, report=report)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_search_gives_a_policy_and_says_how(algorithm: str, data: DataSplits) -> None:
    lines: list[str] = []
    before = torch.random.get_rng_state()
    found = search(algorithm, data, report=lines.append)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert PolicyFile.model_validate_json(found.model_dump_json(by_alias=True)) == found
    assert len(found.sub_policies) == SUB_POLICIES[algorithm]
    assert {name for steps in found.sub_policies for name, _, _ in steps} <= set(SEARCHED)
    assert len(lines) == EPOCHS
    assert lines[0].startswith(f"{algorithm} search, epoch 1 of {EPOCHS}: ")
    rows = found.provenance["epochs"]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    if algorithm == "dada":  # the other one is a game
        assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert found.provenance["seconds"] == sum(row["seconds"] for row in rows) > 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_cut_and_continued_gives_the_policy_of_an_uninterrupted_search(
    algorithm: str, data: DataSplits, tmp_path: Path
) -> None:
    def cut(line: str) -> None:
        raise KeyboardInterrupt

    whole = search(algorithm, data)
    checkpoint = tmp_path / "search.pt"
    for _ in range(EPOCHS - 1):
        with pytest.raises(KeyboardInterrupt):
            search(algorithm, data, checkpoint, cut)
    lines: list[str] = []
    continued = search(algorithm, data, checkpoint, lines.append)
    assert len(lines) == 1
    assert results(continued) == results(whole)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_damaged_checkpoint_starts_again_with_a_warning(
    algorithm: str, data: DataSplits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = search(algorithm, data, tmp_path / "whole.pt")
    good = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "damaged.pt").write_bytes(good[: len(good) // 2])
    # One that can be read, and does not hold what it should.
    content = torch.load(tmp_path / "whole.pt", weights_only=True)
    del content["state"]["search"]["policy"]["weights"]
    torch.save(content, tmp_path / "other.pt")
    for name in ("damaged.pt", "other.pt"):
        lines: list[str] = []
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            found = search(algorithm, data, tmp_path / name, lines.append)
        assert f"{name} cannot be used" in caplog.text
        assert len(lines) == EPOCHS
        assert results(found) == results(whole)


def test_another_seed_finds_another_policy(data: DataSplits) -> None:
    other = run_of("dada").model_copy(update={"seed": 1})
    found = run_search(Dada, other, data, device="cpu", checkpoint=None, report=lambda line: None)
    assert found.sub_policies != search("dada", data).sub_policies


def test_a_search_that_diverges_says_where(data: DataSplits) -> None:
    run = search_run("dada", images=300, epochs=EPOCHS, batch_size=50, lr=1e30)
    with pytest.raises(TrainingDiverged, match="dada search"):
        run_search(Dada, run, data, device="cpu", checkpoint=None, report=lambda line: None)


def results(found: PolicyFile) -> tuple[object, object, object]:
    """What must repeat bit for bit: all but the seconds."""
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in found.provenance["epochs"]]
    return found.sub_policies, found.provenance["weights"], rows
