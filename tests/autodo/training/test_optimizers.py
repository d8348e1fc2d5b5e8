"""SGD and AdamW against torch's, in their steps and in their state."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from autodo.config.run import TrainingConfig
from autodo.training.optimizers import SGD, AdamW, build_optimizer


def steps(optimizer, parameters: list[nn.Parameter], lr: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for i in range(4):
        if isinstance(optimizer, SGD | AdamW):
            optimizer.lr = lr / (i + 1)
        else:
            optimizer.param_groups[0]["lr"] = lr / (i + 1)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        if i == 2:
            parameters[1].grad = None
        optimizer.step()
        optimizer.zero_grad()
        assert all(parameter.grad is None for parameter in parameters)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 5e-4])
def test_steps_and_state_equal_those_of_torch_bit_for_bit(name: str, momentum: float, weight_decay: float) -> None:
    mine = [nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(7))]
    torchs = copy.deepcopy(mine)
    if name == "sgd":
        kind = SGD
        known = torch.optim.SGD(torchs, lr=0.1, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0)
    else:
        kind = AdamW
        known = torch.optim.AdamW(torchs, lr=0.1, betas=(momentum, 0.999), weight_decay=weight_decay)
    own = kind(mine, lr=0.1, momentum=momentum, weight_decay=weight_decay)
    steps(own, mine, 0.1, seed=0)
    steps(known, torchs, 0.1, seed=0)
    assert all(map(torch.equal, mine, torchs))

    resumed = kind(mine, lr=1.0, momentum=0.5, weight_decay=0.5)
    resumed.load_state_dict(known.state_dict())
    again = kind(torchs, lr=1.0, momentum=0.5, weight_decay=0.5)
    again.load_state_dict(own.state_dict())
    steps(resumed, mine, 0.05, seed=1)
    steps(again, torchs, 0.05, seed=1)
    assert all(map(torch.equal, mine, torchs))
    if momentum:
        own.reset([mine[1]])
        assert [*own.state_dict()["state"]] == [0]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_encoder_has_a_learning_rate_of_its_own(name: str) -> None:
    """As two optimizers with two learning rates."""
    encoder, head = (nn.Parameter(torch.randn(3, 5)) for _ in range(2))
    others = copy.deepcopy([encoder, head])
    settings = TrainingConfig(optimizer=name, lr=0.01, encoder_lr_factor=0.1, weight_decay=0.01)
    both = build_optimizer(settings, [head], [encoder])
    plain = settings.model_copy(update={"encoder_lr_factor": 1.0})
    apart = build_optimizer(plain, [others[0]]), build_optimizer(plain, [others[1]])
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        both.lr = apart[1].lr = 0.01 / (seed + 1)
        apart[0].lr = both.lr * 0.1
        for one, other in zip((encoder, head), others, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        both.step()
        for optimizer in apart:
            optimizer.step()
    assert torch.equal(encoder, others[0])
    assert torch.equal(head, others[1])


def test_a_learning_rate_of_sgd_is_refused_with_adamw() -> None:
    with pytest.raises(ValueError, match=r"lr \(0.1\) is one for sgd: .* at most 0.02, such as 0.001"):
        TrainingConfig(optimizer="adamw")


def test_a_state_of_other_parameters_is_refused() -> None:
    one, two = (SGD([nn.Parameter(torch.zeros(2))] * n, lr=0.1, momentum=0.9, weight_decay=0.0) for n in (1, 2))
    with pytest.raises(ValueError, match="of 2 parameters, and there are 1"):
        one.load_state_dict(two.state_dict())


_TRAINS = """
import sys
from autodo import data
from autodo.config.recipes import build_run
from autodo.training.trainer import Trainer
run = build_run("digits", "autodo-aw", overrides={"training.epochs": 1, "training.warmup_epochs": 0,
                                                  "dataset.subsample": 200, "outer.start_share": 0})
[*Trainer(run, data.prepare(data.load(run.dataset), run))]
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""


def test_a_run_does_not_import_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", _TRAINS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
