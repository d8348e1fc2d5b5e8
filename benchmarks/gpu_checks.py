"""The checks of `benchmarks.gpu`: each function tells its rows as soon as it has them. `--small` is for a CPU."""

import collections
import copy
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autodo.augment.apply_draws import apply_draws
from autodo.augment.operations import NAMES
from autodo.augment.policies import build_policy
from autodo.augment.policy_file import PolicyFile
from autodo.bilevel.frozen import frozen_copy
from autodo.bilevel.hypergradient import hessian_matvec, implicit_objective
from autodo.bilevel.inverse_hessian import conjugate_gradient
from autodo.config.policy import FilePolicy, PolicyConfig, RandAugment, TrivialAugment
from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.distributed.batch_norm import WholeBatchNorm2d
from autodo.distributed.process_group import TorchProcessGroup
from autodo.losses import LOSSES
from autodo.models import build
from autodo.objectives.meta import losses_along
from autodo.points.table_storage import TableStorage
from autodo.results.provenance import device_name
from autodo.training.trainer import Trainer
from benchmarks.outer_phase import METHODS, NETWORKS, MeasuredNetwork, elapsed, made_up, outer_pass
from benchmarks.table import Row, record_rows

IMAGES_A_SECOND_GOAL = 8_000
TINY = MeasuredNetwork("cpu", 1, 12, 3, 16, 4)


class Setting(NamedTuple):
    """Device of the checks, their size and the folder of Fashion-MNIST."""

    name: str
    small: bool = False
    data_dir: Path | None = None

    @property
    def device(self) -> torch.device:
        return torch.device(self.name)

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def network(self, name: str) -> tuple[str, MeasuredNetwork]:
        """The network and its images, or small ones in its place."""
        return ("small-cnn", TINY) if self.small else (name, NETWORKS[name])


def run(names: Sequence[str], setting: Setting) -> None:
    """Runs the checks of these names."""
    for name in names:
        CHECKS[name](setting)


# ----- the machine


def device(setting: Setting) -> None:
    """Versions, and one training step of every kind of method that computes unusually."""
    where = setting.device
    about = f"{device_name(where)}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    if setting.is_cuda:
        about += f", cuDNN {torch.backends.cudnn.version()}"
    record_rows(Row(about, _gigabytes(setting), "GB"))
    for what, each in zip(("convolutions", "products"), _precisions(), strict=True):
        record_rows(Row(f"TF32 in {what} (1: yes)", float(each.fp32_precision == "tf32"), ""))
    for method in ("baseline", "autodo-aws", "autodo-exact-ws", "meta-weight-net", "l2rw", "sop", "cutmix"):
        training = trainer_of(method, "small-cnn", TINY, setting)
        losses = [row["train_loss"] for row in training]
        record_rows(Row(f"{method}: epochs without a finite loss", float(np.sum(~np.isfinite(losses))), "", at_most=0))


def _gigabytes(setting: Setting) -> float:
    if setting.is_cuda:
        return torch.cuda.get_device_properties(setting.device).total_memory / 1e9
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def cuda_tests(setting: Setting) -> None:
    """The tests that a machine without GPU skips."""
    files = ["tests/autodo/training/test_lambda_storage.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "on_a_gpu", *files]
    project = Path(__file__).parents[1]
    given = os.environ | {"AUTODO_TEST_GPU": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=project, env=given, check=False)
    print(done.stdout[-2000:])
    record_rows(Row("tests that need a GPU: exit code of pytest", float(done.returncode), "", at_most=0))


# ----- numbers


def policies(setting: Setting) -> None:
    """Every operation, on the device, beside PIL image by image."""
    from autodo.testing import pil_policy  # its photographs need scikit-learn

    single = PolicyFile(sub_policies=tuple(((name, 1.0, level),) for name in _in_files() for level in (0.2, 0.9)))
    kinds: dict[str, tuple[PolicyConfig, PolicyFile | None]] = {
        "each by itself": (FilePolicy(path="some.json"), single),
        "RandAugment, original": (RandAugment(operations="original", draws=2, magnitude=9, fixed=True), None),
        "RandAugment, paper": (RandAugment(draws=3, magnitude=15), None),
        "TrivialAugment": (TrivialAugment(), None),
    }
    for channels in (1, 3):
        images = pil_policy.photographs(32, 32, channels)
        for name, (config, found) in kinds.items():
            different, seen = 0, set[int]()
            for seed in range(2 if setting.small else 20):
                draws = build_policy(config, found).draw(len(images), torch.Generator().manual_seed(seed))
                ours = apply_draws(images.to(setting.device), draws).cpu()
                different += int((ours != pil_policy.apply(images, draws)).flatten(1).any(1).sum())
                seen |= set(draws.operation.flatten().tolist())
            what = f"policy engine, {name}, {channels} channels: images unlike PIL's ({len(seen)} operations)"
            record_rows(Row(what, float(different), "", at_most=0))


def _in_files() -> list[Any]:
    from autodo.augment.policy_file import OPERATION_NAMES

    assert set(OPERATION_NAMES) <= set(NAMES)
    return list(OPERATION_NAMES)


def batch_norm(setting: Setting) -> None:
    """Batch norm over all processes, of one process, beside torch's own."""
    shape = (8, 4, 6, 6) if setting.small else (256, 160, 32, 32)
    generator = torch.Generator().manual_seed(0)
    images, weights = (torch.randn(shape, generator=generator).to(setting.device) for _ in range(2))
    for dtype, most in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        given = (1 + images).to(dtype).to(memory_format=torch.channels_last)
        found, norms = [], []
        for whole in (False, True):
            norm: nn.Module = nn.BatchNorm2d(shape[1]).to(setting.device)
            if whole:
                assert isinstance(norm, nn.BatchNorm2d)
                norm = WholeBatchNorm2d(norm, lambda tensor: tensor)
            leaf = given.clone().requires_grad_()
            result = norm(leaf)
            (result * weights).sum().backward()
            assert leaf.grad is not None
            found.append((result.float(), leaf.grad.float()))
            norms.append((norm, leaf))
        for what, plain, ours in zip(("result", "gradient"), *found, strict=True):
            record_rows(Row(f"batch norm over all, {dtype}: {what} off by", relative(ours, plain), "", at_most=most))
        seconds = [
            middle_seconds(partial(_there_and_back, norm, leaf, weights), setting.device) for norm, leaf in norms
        ]
        record_rows(Row(f"batch norm over all, {dtype}: time over torch's", seconds[1] / seconds[0], "x"))


def _there_and_back(norm: nn.Module, leaf: Tensor, weights: Tensor) -> None:
    (norm(leaf) * weights).sum().backward()


def gradients(setting: Setting) -> None:
    """Hypergradient and forward-mode derivatives on the device, beside float64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    for name in ("small-cnn",) if setting.small else ("small-cnn", "wrn-16-2", "resnet-18"):
        side = 64 if name == "resnet-18" else 16
        networks = build(name, in_channels=3, image_size=side, classes=10)
        pixels = torch.randn(32, 3, side, side, generator=generator)
        labels = torch.arange(32) % 10
        where = torch.device("cpu"), torch.float64
        exact = _hypergradient(networks, pixels, *where), _along(networks, pixels, labels, *where)
        for strict, most in ((True, 1e-3), (False, 3e-2)):
            with tf32(not strict):
                here = setting.device, torch.float32
                found = _hypergradient(networks, pixels, *here), _along(networks, pixels, labels, *here)
            kind = "fp32" if strict else "TF32 allowed"
            for what, ours, right in zip(("hypergradient", "forward mode"), found, exact, strict=True):
                record_rows(Row(f"{what}, {name}, {kind}: off by", relative(ours, right), "", at_most=most))


def _hypergradient(
    networks: tuple[nn.Module, nn.Linear], pixels: Tensor, where: torch.device, dtype: torch.dtype
) -> Tensor:
    """Hypergradient of an arbitrary val gradient in pixels and weights, by Gauss-Newton and conjugate gradients."""
    encoder = frozen_copy(copy.deepcopy(networks[0]).to(where, dtype))
    head = copy.deepcopy(networks[1]).to(where, dtype)
    given = pixels.to(where, dtype).requires_grad_()
    weights = torch.linspace(0.5, 2, len(pixels)).to(where, dtype).requires_grad_()
    features = encoder(given)
    logits, loss = head(features), LOSSES["symmetric-kl"]
    targets = torch.linspace(-1, 1, logits.numel()).view_as(logits).to(where, dtype).log_softmax(1)
    with torch.no_grad():
        matvec = hessian_matvec(loss, logits, features, weights, None, damping=0.1)
        gradient = torch.linspace(-1, 1, head.weight.numel()).view_as(head.weight).to(where, dtype)
        u = conjugate_gradient(matvec, gradient, iterations=20)
    objective = implicit_objective(loss, logits, features, weights, targets, u)
    found = torch.autograd.grad(objective, [given, weights])
    return torch.cat([(part / part.norm()).flatten() for part in found])


def _along(
    networks: tuple[nn.Module, nn.Linear], pixels: Tensor, labels: Tensor, where: torch.device, dtype: torch.dtype
) -> Tensor:
    """Derivative of each loss along an arbitrary direction, as `meta-weight-net` and `l2rw` take it. Shape: -> [b]."""
    network = nn.Sequential(*(copy.deepcopy(part) for part in networks)).to(where, dtype).train()
    generator = torch.Generator().manual_seed(1)
    direction = {
        name: torch.randn(value.shape, generator=generator).to(where, dtype) * 0.01
        for name, value in network.named_parameters()
    }
    step: Any = SimpleNamespace(pixels=pixels.to(where, dtype), labels=labels.to(where))
    return losses_along(network, direction, step)


def waits(setting: Setting) -> None:
    """Waits of the host for the device, which must not grow with the number of steps."""
    name, network = setting.network("wrn-28-10")
    if not setting.small:
        name, network = "wrn-16-2", network._replace(batches=4)
    for method in ("baseline", "randaugment", "autodo-aws", "autodo-exact-aws", "autodo-exact-ws", "mixup"):
        counts: list[dict[str, int]] = []
        for parts in (1, 4):
            training = trainer_of(method, name, network, setting, {"training.batch_size": network.batch_size // parts})
            training.inner.run(0)
            phases: dict[str, Callable[[], object]] = {"inner": partial(training.inner.run, 1)}
            if training.outer is not None:
                phases["outer"] = partial(outer_pass, training, training.evaluator.evaluate(training.loaders.val))
            counts.append({phase: _waits(function, setting) for phase, function in phases.items()})
        for phase, few in counts[0].items():
            what = f"{method}, {phase}: waits more with 4 times the steps ({few} waits)"
            record_rows(Row(what, counts[1][phase] - few, "", at_most=0))


def _waits(function: Callable[[], object], setting: Setting) -> int:
    if not setting.is_cuda:
        function()
        return 0
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            function()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in seen)


def storage(setting: Setting) -> None:
    """Lambda in pinned host memory and in a file, with streams, beside on the device."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    name, network = setting.network("wrn-28-10")
    if not setting.small:
        name = "small-cnn"
    network = network._replace(batches=8)
    rows: dict[str, Tensor] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("device", "host", "file"):
            place = TableStorage("file", Path(folder)) if kind == "file" else TableStorage(kind)
            training = trainer_of("autodo-exact-ws", name, network, setting, options={"storage": place})
            seconds = elapsed(partial(collections.deque, training, 0), setting.device)
            rows[kind] = torch.as_tensor(training.points.table.values).cpu().clone()
            record_rows(Row(f"lambda kept on {kind}: two epochs", seconds, "s"))
            if kind != "device":
                off = float((rows[kind] - rows["device"]).abs().max())
                record_rows(Row(f"lambda kept on {kind}: rows off by", off, "", at_most=1e-4))
            del training


def repeat(setting: Setting) -> None:
    """Two equal runs, and one that is cut within an epoch and goes on."""
    name = "small-cnn" if setting.small else "wrn-16-2"
    for method in ("baseline", "autodo-exact-ws", "autodo-exact-aws"):
        runs = [trainer_of(method, name, TINY, setting) for _ in range(2)]
        for training in runs:
            collections.deque(training, 0)
        with tempfile.TemporaryDirectory() as folder:
            file = {"checkpoint": Path(folder) / "run.ckpt"}
            cutting = {**file, "checkpoint_steps": 2, "on_checkpoint": _cut}
            cut = trainer_of(method, name, TINY, setting, options=cutting)
            try:
                collections.deque(cut, 0)
            except _Cut:
                cut = trainer_of(method, name, TINY, setting, options=file)
                collections.deque(cut, 0)
            else:
                raise AssertionError("no checkpoint within the epoch")
        for what, other in (("the same run again", runs[1]), ("cut within an epoch and continued", cut)):
            record_rows(Row(f"{method}: {what}: weights off by", _apart(runs[0], other), "", at_most=0))


class _Cut(Exception):
    """Ends a training within an epoch."""


def _cut() -> None:
    raise _Cut


def _apart(one: Trainer, other: Trainer) -> float:
    mine, theirs = (training.model.encoder.state_dict() for training in (one, other))
    return max(float((mine[name].double() - theirs[name].double()).abs().max()) for name in mine)


# ----- several processes


def nccl(setting: Setting) -> None:
    """Every method of a process group, with one process (gloo on a CPU)."""
    import torch.distributed as dist

    where = setting.device
    if setting.is_cuda:
        torch.cuda.set_device(where.index or 0)
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        backend = "cpu:gloo,cuda:nccl" if setting.is_cuda else "gloo"
        dist.init_process_group(backend, init_method=meeting, rank=0, world_size=1)
        try:
            _check_group(TorchProcessGroup(), setting)
        finally:
            dist.destroy_process_group()


def _check_group(group: TorchProcessGroup, setting: Setting) -> None:
    numbers = torch.arange(5.0, device=setting.device)
    big = {"rows": np.zeros((1_000 if setting.small else 25_000, 1_000), np.float32), "name": "x"}
    checks: dict[str, Callable[[], bool]] = {
        "all_reduce": lambda: torch.equal(group.all_reduce(numbers), numbers),
        "broadcast": lambda: torch.equal(group.broadcast(numbers), numbers),
        "all_gather": lambda: torch.equal(group.all_gather(numbers, 5), numbers),
        "all_reduce_max": lambda: group.all_reduce_max(3) == 3,
        "all_true": lambda: group.all_true(True) and not group.all_true(False),
        "broadcast_object": lambda: group.broadcast_object(big)["name"] == "x",
        "gather": lambda: len(group.gather(big)) == 1,
    }
    for name, check in checks.items():
        record_rows(Row(f"process group, {name}: wrong", float(not check()), "", at_most=0))
    if setting.is_cuda:
        torch.cuda.reset_peak_memory_stats(setting.device)
        before = torch.cuda.memory_allocated(setting.device)
        group.broadcast_object(big)
        group.gather(big)
        held = (torch.cuda.max_memory_allocated(setting.device) - before) / 1e6
        record_rows(Row("objects of 100 MB through the group: memory of the GPU", held, "MB", at_most=1))
    _check_ddp(group, setting)
    name, network = setting.network("wrn-28-10")
    if not setting.small:
        name = "wrn-16-2"
    plain = trainer_of("autodo-exact-ws", name, network, setting)
    together = trainer_of("autodo-exact-ws", name, network, setting, options={"group": group})
    seconds = [elapsed(partial(collections.deque, training, 0), setting.device) for training in (plain, together)]
    record_rows(Row("a run in a group of one: time over a plain one", seconds[1] / seconds[0], "x"))


def _check_ddp(group: TorchProcessGroup, setting: Setting) -> None:
    name = "small-cnn" if setting.small else "wrn-16-2"
    parts = [part.to(setting.device) for part in build(name, in_channels=3, image_size=32, classes=10)]
    plain = nn.Sequential(*(copy.deepcopy(part) for part in parts))
    wrapped = group.wrap_ddp(parts[0], parts[1])
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(setting.device)
    labels = torch.arange(64, device=setting.device) % 10
    with tf32(False), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for network in (plain, wrapped):
            F.cross_entropy(network(images), labels).backward()
    # DDP says so where a gradient and its bucket lie differently in memory, as 1x1 convolutions may; it then copies.
    copied = sum("Grad strides" in str(warning.message) for warning in said)
    record_rows(Row("gradients that DDP copies for their strides", float(copied), "", at_most=0))
    found = [torch.cat([_gradient(value).flatten() for value in net.parameters()]) for net in (plain, wrapped)]
    record_rows(
        Row("gradient through DDP and batch norm over all: off by", relative(found[1], found[0]), "", at_most=1e-3)
    )


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


# ----- speed


def speed(setting: Setting) -> None:
    """Images a second of whole training steps, launches, how busy the device is, and memory."""
    name, network = setting.network("wrn-28-10")
    network = network._replace(batches=3 if setting.small else 40)
    kinds: dict[str, dict[str, object]] = {"bf16": {"training.precision": "bf16"}, "fp32": {}}
    if not setting.is_cuda:
        del kinds["bf16"]  # minutes, on a CPU without instructions for it
    for kind, changes in kinds.items():
        training = trainer_of("baseline", name, network, setting, changes)
        _speed_of(training, f"{name}, {kind}", setting, IMAGES_A_SECOND_GOAL if kind == "bf16" else None)
        if setting.is_cuda and kind == "bf16":
            _profile(training, network, f"{name}, {kind}")
        del training


def compiled(setting: Setting) -> None:
    """`speed` under torch.compile; the first epoch compiles."""
    name, network = setting.network("wrn-28-10")
    # The last batch is smaller, as in real sets, so that a compilation for its size is seen.
    network = network._replace(batches=3 if setting.small else 20)
    changes: dict[str, object] = {"training.compile": True}
    if setting.is_cuda:
        changes["training.precision"] = "bf16"
    training = trainer_of("baseline", name, network, setting, changes, fewer=3)
    record_rows(Row("the first compiled epoch", elapsed(partial(training.inner.run, 0), setting.device), "s"))
    _speed_of(training, f"{name}, bf16, compiled", setting, None)


def _speed_of(training: Trainer, what: str, setting: Setting, goal: float | None) -> None:
    training.inner.run(0)
    if setting.is_cuda:
        torch.cuda.reset_peak_memory_stats(setting.device)
    seconds = middle_seconds(partial(training.inner.run, 1), setting.device, 3)
    record_rows(Row(f"{what}: images a second", training.loaders.train.total / seconds, "", at_least=goal))
    if setting.is_cuda:
        record_rows(Row(f"{what}: peak memory", torch.cuda.max_memory_allocated(setting.device) / 1e9, "GB"))


def _profile(training: Trainer, network: MeasuredNetwork, what: str) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiled:
        seconds = elapsed(partial(training.inner.run, 1), training.context.device)
    averages = profiled.key_averages()
    busy = sum(event.self_device_time_total for event in averages if event.device_type.name == "CUDA") / 1e6
    launches = sum(event.count for event in averages if "LaunchKernel" in event.key)
    record_rows(Row(f"{what}: device busy, profiled", busy / seconds, "of the time", at_least=0.95))
    record_rows(Row(f"{what}: launches a step", launches / network.batches, ""))


def outer(setting: Setting) -> None:
    """Time and memory of outer steps over those of plain steps."""
    for wanted in ("wrn-28-10", "resnet-18"):
        name, network = setting.network(wanted)
        base = trainer_of("baseline", name, network, setting)
        base.inner.run(0)
        plain = middle_seconds(partial(base.inner.run, 1), setting.device, 3)
        plain_peak = _peak(partial(base.inner.run, 1), setting)
        del base
        for method, measured in METHODS.items():
            if measured.settings:
                continue  # nearly the same as without, and there is little time
            training = trainer_of(method, name, network, setting)
            training.inner.run(0)
            val = training.evaluator.evaluate(training.loaders.val)
            one_pass = partial(outer_pass, training, val)
            one_pass()
            ratio = middle_seconds(one_pass, setting.device, 3) / plain
            record_rows(
                Row(
                    f"{wanted}, {method}: outer step over a plain one",
                    ratio,
                    "x",
                    at_most=None if setting.small else measured.step,
                )
            )
            if plain_peak:
                peak = _peak(one_pass, setting) / plain_peak
                record_rows(Row(f"{wanted}, {method}: peak memory over a plain step's", peak, "x"))
            del training


def _peak(function: Callable[[], object], setting: Setting) -> float:
    """Peak memory on the device; 0 on a CPU, where it would take a profiler."""
    if not setting.is_cuda:
        return 0.0
    torch.cuda.reset_peak_memory_stats(setting.device)
    function()
    return float(torch.cuda.max_memory_allocated(setting.device))


def run_overrides(setting: Setting) -> dict[str, object]:
    """The real run: WRN-16-4 and 20 epochs."""
    if setting.small:
        return {"training.epochs": 2, "training.warmup_epochs": 1, "dataset.subsample": 300}
    changes: dict[str, object] = {"model.name": "wrn-16-4", "training.epochs": 20, "training.warmup_epochs": 1}
    return {**changes, **({"training.precision": "bf16"} if setting.is_cuda else {})}


def real_run(setting: Setting) -> None:
    """A run on Fashion-MNIST with wrong labels."""
    if setting.data_dir is None:
        raise SystemExit("no --data-dir with Fashion-MNIST was given")
    from autodo.config.dataset import DistortionConfig

    config = build_run(
        "fashion-mnist",
        "autodo-exact-ws",
        distortion=DistortionConfig(noise_ratio=0.1),
        overrides=run_overrides(setting),
    )
    began = time.perf_counter()
    data = prepare(load(config.dataset, data_dir=setting.data_dir), config)
    record_rows(Row("Fashion-MNIST: reading", time.perf_counter() - began, "s"))
    training = Trainer(config, data, device=setting.name)
    what = f"Fashion-MNIST, {config.model.name}, {config.training.epochs} epochs, {config.method.name}"
    began, rows = time.perf_counter(), []
    for row in training:
        rows.append(row)
        print(f"epoch {row['epoch'] + 1}: val error {row['val_error']:.4f}", flush=True)
    record_rows(
        Row(f"{what}: the run", time.perf_counter() - began, "s"),
        Row(f"{what}: images a second, median epoch", statistics.median(r["images_per_second"] for r in rows), ""),
        Row(f"{what}: test error", 100 * rows[-1]["test_error"], "%", at_most=None if setting.small else 15),
        Row(f"{what}: peak memory", rows[-1]["peak_memory_bytes"] / 1e9, "GB"),
        Row(f"{what}: outer passes", float(sum(bool(row["outer_phase"]) for row in rows)), "", at_least=1),
    )


# ----- helpers


def trainer_of(
    method: str,
    name: str,
    network: MeasuredNetwork,
    setting: Setting,
    changes: Mapping[str, object] = {},
    *,
    fewer: int = 0,
    options: Mapping[str, Any] = {},
) -> Trainer:
    """A run of two epochs on made-up images, with an outer pass after the second.

    Args:
        fewer: images that the last batch lacks.
    """
    overrides: dict[str, object] = {
        "model.name": name,
        "training.batch_size": network.batch_size,
        "training.epochs": 2,
        "training.warmup_epochs": 1,
        "outer.start_share": 0.5,
        "outer.every": 1,
        "outer.hessian_points": network.batch_size,
        **changes,
    }
    plain = build_run("fashion-mnist", method, overrides={"training.epochs": 2, "training.warmup_epochs": 1})
    if plain.outer is None:
        overrides = {key: value for key, value in overrides.items() if not key.startswith("outer.")}
    elif plain.outer.hessian_points is None:
        del overrides["outer.hessian_points"]
    config = build_run("fashion-mnist", method, overrides=overrides)
    data = made_up(network, network.batches * network.batch_size - fewer)
    return Trainer(config, data, device=setting.name, **options)


def middle_seconds(function: Callable[[], object], device: torch.device, turns: int = 5) -> float:
    """Median over the turns, after one that warms up."""
    function()
    return statistics.median(elapsed(function, device) for _ in range(turns))


def relative(ours: Tensor, right: Tensor) -> float:
    """|ours - right| / |right|."""
    ours, right = ours.detach().double().cpu(), right.detach().double().cpu()
    return float((ours - right).norm() / right.norm())


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allows or forbids TF32 in convolutions and products."""
    settings = _precisions()
    before = [each.fp32_precision for each in settings]
    for each in settings:
        each.fp32_precision = "tf32" if allowed else "ieee"
    try:
        yield
    finally:
        for each, value in zip(settings, before, strict=True):
            each.fp32_precision = value


def _precisions() -> tuple[Any, Any]:
    """torch's settings for convolutions and for products, each with `fp32_precision`."""
    backends: Any = torch.backends
    return backends.cudnn.conv, backends.cuda.matmul


CHECKS: dict[str, Callable[[Setting], None]] = {
    check.__name__.removeprefix("real_"): check
    for check in (
        device,
        policies,
        batch_norm,
        gradients,
        waits,
        storage,
        nccl,
        repeat,
        speed,
        outer,
        real_run,
        cuda_tests,
        compiled,
    )
}
