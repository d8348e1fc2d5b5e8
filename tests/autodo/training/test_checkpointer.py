"""When the state of a run is saved, and the words of its errors, without a training."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from autodo.config.recipes import build_run
from autodo.distributed.process_group import SINGLE_PROCESS
from autodo.errors import ImageLost, TrainingDiverged
from autodo.points.table_storage import ON_DEVICE
from autodo.training import checkpoint
from autodo.training.checkpointer import Checkpointer
from autodo.training.context import RunContext


class State(SimpleNamespace):
    def state_dict(self) -> dict:
        return {"epoch": self.epoch, "step": self.step, "points": {}}

    @property
    def step(self) -> int:
        return 0 if self.mid_epoch is None else self.mid_epoch.step


@pytest.fixture
def saved(monkeypatch) -> list:
    """The moments that are saved, while the disk is not full."""
    moments: list = []

    def save(path, run_id, state, *_, **__) -> bool:
        if "full" in moments:
            moments.remove("full")
            return False
        moments.append((state["epoch"], state["step"]))
        return True

    monkeypatch.setattr(checkpoint, "save", save)
    return moments


def checkpointer(**options) -> Checkpointer:
    config = build_run("digits", "baseline", overrides={"training.epochs": 7, "training.warmup_epochs": 0})
    context = RunContext(config, None, torch.device("cpu"), SINGLE_PROCESS)  # type: ignore[arg-type]
    network = torch.nn.Linear(1, 1)
    state = State(epoch=0, mid_epoch=None, model=SimpleNamespace(network=network))
    given = {"path": Path("checkpoint.pt"), "every": 3, "steps": None, "on_checkpoint": lambda: None, **options}
    loaders = SimpleNamespace(shard=SimpleNamespace(positions=np.arange(1)))
    return Checkpointer(context, state, loaders, ON_DEVICE, **given)  # type: ignore[arg-type]


def test_it_saves_every_few_epochs_and_tries_again_after_a_failure(saved):
    ours = checkpointer()
    for ours.state.epoch in range(1, 8):
        if ours.state.epoch == 3:
            saved.append("full")
        ours.epoch_ended()
    assert saved == [(4, 0), (6, 0), (7, 0)], "epoch 3 failed; epoch 7 is the last"


def test_it_saves_every_few_steps_and_after_the_last_one(saved):
    reported = []
    ours = checkpointer(steps=2, on_checkpoint=lambda: reported.append(len(saved)))
    for step in range(1, 6):
        ours.step_ended(step, 5, 0.0, torch.Generator(), torch.zeros(()))
    assert saved == [(0, 2), (0, 4), (0, 5)]
    assert reported == [1, 2, 3]
    assert ours.state.mid_epoch is None


def test_without_a_path_it_saves_nothing(saved):
    ours = checkpointer(path=None, steps=1)
    ours.step_ended(1, 1, 0.0, torch.Generator(), torch.zeros(()))
    ours.state.epoch = 7
    ours.epoch_ended()
    assert saved == []


def test_errors_name_the_resume_point(saved):
    ours = checkpointer(every=1, steps=2)
    with pytest.raises(ImageLost, match=r"^x: the run has no checkpoint"), ours.resume_hint():
        raise ImageLost("x")
    ours.state.epoch = 1
    ours.epoch_ended()
    with pytest.raises(ImageLost, match=r"continues from its checkpoint after epoch 1/7$"), ours.resume_hint():
        raise ImageLost("x")
    ours.step_ended(2, 5, 0.0, torch.Generator(), torch.zeros(()))
    with pytest.raises(ImageLost, match=r"after step 2 of epoch 2/7$"), ours.resume_hint():
        raise ImageLost("x")
    with pytest.raises(TrainingDiverged, match=r"train loss is not finite in epoch 1; the checkpoint has 1"):
        ours.require_finite("train loss", float("nan"))
