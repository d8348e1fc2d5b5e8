"""No step makes the host wait for a GPU: the waits of a phase do not grow with the number of its steps.

On a CPU nothing waits, so a CPU plays the GPU: what the host draws for itself, and what it makes of that, is in host
memory; all other tensors count as the GPU's.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autodo import progress
from autodo.augment import apply_draws, pipeline
from autodo.augment.policy_file import PolicyFile
from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.objectives import mixing
from autodo.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _only_the_first_step_is_due(monkeypatch):
    """No progress report, which reads the loss, is due during these tests."""
    monkeypatch.setattr(progress, "EVERY_SECONDS", float("inf"))


COPIES = {Tensor.tolist, Tensor.numpy, Tensor.cpu}
# Operators whose result, or the size of it, the host must know.
WAITING = {
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::bincount",
    "aten::repeat_interleave.Tensor",
}
BY_INDEX = {"aten::index.Tensor", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class Waits(TorchDispatchMode):
    """Counts, by name, operations that would make the host wait."""

    def __init__(self, on_host: Iterable[Tensor]) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self._seeds: set[int] = set()  # of the host's generators; an operator is given a copy of them
        # Kept, so that no other tensor gets their addresses.
        self._on_host = {_place(tensor): tensor for tensor in on_host}

    def host_generator(self, generator: torch.Generator) -> torch.Generator:
        """In place of that of `autodo.seeds`."""
        self._seeds.add(2**40 + len(self._seeds))
        return torch.Generator().manual_seed(max(self._seeds))

    def sent(self, tensor: Tensor, device: torch.device) -> Tensor:
        """A copy on the GPU."""
        copy = tensor.clone()
        self._on_host.pop(_place(copy), None)
        return copy

    def is_on_host(self, leaves: list[object]) -> bool:
        drawn = any(leaf.initial_seed() in self._seeds for leaf in leaves if isinstance(leaf, torch.Generator))
        return drawn or any(_place(leaf) in self._on_host for leaf in leaves if isinstance(leaf, Tensor))

    def __torch_dispatch__(self, operator, types, given=(), options=None):
        leaves = tree_leaves((given, options))
        result = operator(*given, **(options or {}))
        name = operator.name()
        if self.is_on_host(leaves):
            self._on_host |= {_place(leaf): leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        elif name in WAITING or (
            name in BY_INDEX
            and any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in given[1])
        ):
            self.seen[name] += 1
        return result


class Copies(TorchFunctionMode):
    """Counts copies to the host in `waits`."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(self, function, types, given=(), options=None):
        if function in COPIES and not self._waits.is_on_host([given[0]]):
            self._waits.seen[function.__name__] += 1
        return function(*given, **(options or {}))


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def waits_of(phase: Callable[[], object], on_host: Iterable[Tensor] = ()) -> Counter[str]:
    waits = Waits(on_host)
    with ExitStack() as stack:
        for module in (pipeline, mixing):
            stack.enter_context(mock.patch.object(module, "host_generator", waits.host_generator))
        stack.enter_context(mock.patch.object(apply_draws, "sent", waits.sent))
        stack.enter_context(waits)
        stack.enter_context(Copies(waits))
        phase()
    return waits.seen


def training_of(method: str, split: str, batch_size: int) -> Trainer:
    overrides = {
        "training.epochs": 4,
        "training.warmup_epochs": 1,
        "training.batch_size": batch_size,
        "training.ema": 0.9,
        "outer.start_share": 0.0,
        "dataset.subsample": 300,
        "policy.content": "0" * 16,
    }
    config = build_run("digits", method, distortion=DistortionConfig(noise_ratio=0.1), split=split, overrides=overrides)
    found = PolicyFile.model_validate({"sub_policies": [[["Rotate", 0.5, 0.4], ["Contrast", 0.5, 0.5]]]})
    data = prepare(load(config.dataset), config)
    return Trainer(config, data, policy=config.policy and found, on_progress=lambda progress: None)


def test_waits_are_counted():
    numbers = torch.arange(6)
    assert waits_of(lambda: float(numbers.sum())) == {"aten::_local_scalar_dense": 1}
    assert waits_of(lambda: numbers[numbers > 2]) == {"aten::index.Tensor": 1}
    assert waits_of(lambda: numbers.clone().__setitem__(numbers > 2, numbers[:3])) == {"aten::index_put_": 1}
    assert waits_of(lambda: torch.where(numbers > 2)) == {"aten::nonzero": 1}
    assert waits_of(numbers.tolist) == {"tolist": 1}
    assert waits_of(lambda: numbers[numbers[:3]]) == {}
    # What the host drew for itself it may look at, and the GPU's numbers that it was sent to it may not.
    drawn = mixing.draw_beta
    assert waits_of(lambda: drawn(1.0, torch.Generator())) == {}
    images = torch.zeros(4, 1, 5, 5, dtype=torch.uint8)
    rotate = training_of("randaugment", "paper", 30).policy
    assert waits_of(lambda: pipeline.apply_draws(images, rotate.draw(4, torch.Generator()))) == {"tolist": 1}


METHODS = [
    "baseline",
    "autodo-aws",
    "autodo-exact-aws",
    "autodo-exact-ws",
    "autodo-shared",
    "randaugment",
    "uniformaugment",
    "fast-autoaugment-published",
    "mixup",
    "cutmix",
    "ldam-drw",
    "elr",
    "sop",
    "pencil",
    "joint-optimization",
    "glc",
    "co-teaching",
    "meta-weight-net",
    "finetune-head-on-val",
]


@pytest.mark.parametrize(
    ("method", "split"),
    [(method, "paper") for method in METHODS]
    + [(method, "union") for method in METHODS if method.startswith("autodo")],
)
def test_the_waits_of_a_phase_do_not_depend_on_the_number_of_its_steps(method, split):
    few, many = (waits_of_phases(training_of(method, split, batch_size)) for batch_size in (100, 20))
    assert few == many
    learns = training_of(method, split, 100).points.learned
    # The points of its batches, if rows are prefetched, and its mean loss; after an outer pass the sum of its updates.
    at_most = {"inner": 2 if learns else 1, "finetune": 1, "outer": 3}
    assert all(sum(seen.values()) <= at_most[phase] for phase, seen in many.items())


def waits_of_phases(training: Trainer) -> dict[str, Counter[str]]:
    training.inner.run(0)
    # torch's Adam counts its steps in host memory.
    adam = getattr(training.inner.objective, "optimizer", None)
    counts = [state["step"] for state in adam.state.values()] if isinstance(adam, torch.optim.Adam) else []
    waits = {"inner": waits_of(partial(training.inner.run, 1), counts)}
    if training.outer is not None:
        val = training.evaluator.evaluate(training.loaders.val)
        waits["outer"] = waits_of(partial(training.outer.run, 1, val))
    if training.finetune is not None:
        waits["finetune"] = waits_of(partial(training.finetune.run, 3))
    return waits
