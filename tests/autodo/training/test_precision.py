"""training.precision and training.compile."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from autodo.bilevel.frozen import frozen_copy
from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data import load, prepare
from autodo.errors import ConfigError
from autodo.models import build
from autodo.results.classifier import Classifier
from autodo.results.provenance import device_name
from autodo.training.task_model import set_fp32_precision
from autodo.training.trainer import Trainer

SHORT = {"training.epochs": 4, "training.warmup_epochs": 1, "outer.start_share": 0.25, "dataset.subsample": 500}
METHODS = ["autodo-exact-aws", "mixup", "elr", "sop", "finetune-head-on-val"]
BF16, COMPILE = {"training.precision": "bf16"}, {"training.compile": True}


def run_of(method: str = "autodo-exact-aws", **overrides) -> RunConfig:
    distortion = DistortionConfig(imbalance_ratio=10, noise_ratio=0.1)
    return build_run("digits", method, distortion=distortion, overrides={**SHORT, **overrides})


def start(config: RunConfig, **options) -> Trainer:
    return Trainer(config, prepare(load(config.dataset), config), **options)


def distance(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


def encoder_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    encoder, _ = build(name, in_channels=3, image_size=16, classes=3)
    with torch.no_grad():
        for _ in range(3):
            encoder(torch.randn(8, 3, 16, 16))
    return encoder


@pytest.mark.parametrize("name", ["small-cnn", "wrn-10-1", "resnet-18"])
@pytest.mark.parametrize("kind", ["train", "eval", "frozen"])
def test_an_encoder_in_16_bits_agrees_with_one_in_32_bits(name, kind):
    encoder = encoder_of(name)
    encoder.train(kind == "train")
    images, found = torch.randn(32, 3, 16, 16), []
    for bf16 in (False, True):
        encoder.bf16 = bf16
        given = images.clone().requires_grad_()
        features = (frozen_copy(encoder) if kind == "frozen" else encoder)(given)
        direction = torch.linspace(-1, 1, features.numel()).view_as(features)
        by = [given] if kind == "frozen" else [given, next(encoder.parameters())]
        found.append((features, *torch.autograd.grad((features * direction).sum(), by)))
    for slow, fast in zip(*found, strict=True):
        assert fast.dtype == torch.float32
        # Where pixels are pooled, a gradient goes to the largest of them, which may be another one.
        assert 1e-4 < distance(fast, slow) < (0.15 if name == "small-cnn" else 0.05)


def test_a_frozen_copy_in_16_bits_passes_16_bits_on():
    """If an affine map returned 32 bits, the next convolution would have to convert all images back."""
    encoder, passed = encoder_of("wrn-10-1"), []
    encoder.bf16 = True
    copy = frozen_copy(encoder)
    for module in copy.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, given, result: passed.append(result.dtype))
    copy(torch.randn(2, 3, 16, 16))
    assert passed[-1] == torch.float32, "the average"
    assert set(passed[:-1]) == {torch.bfloat16}


def test_weights_statistics_and_lambda_stay_in_32_bits():
    training = start(run_of(**BF16))
    list(training)
    kept = {
        **training.model.encoder.state_dict(),
        **training.model.head.state_dict(),
        "lambda": training.points.table.values,
    }
    assert {value.dtype for value in kept.values()} == {torch.float32, torch.int64}  # batches are counted
    assert all(value.isfinite().all() for value in kept.values())


def test_the_hypergradient_in_16_bits_has_the_direction_of_that_in_32_bits():
    moved = []
    for bf16 in (False, True):
        training = start(run_of())
        training.inner.run(0)
        training.inner.run(1)
        training.model.encoder.bf16 = bf16
        val = training.evaluator.evaluate(training.loaders.val)
        taken = []
        training.points.table.rmsprop_step = lambda index, gradient, lr, mask, taken=taken: taken.append(gradient)
        training.outer.run(2, val)
        moved.append(torch.cat(taken))
    for columns in (slice(14), slice(14, 15), slice(15, None)):
        slow, fast = (gradient[:, columns].flatten().double() for gradient in moved)
        assert torch.cosine_similarity(fast, slow, dim=0) > 0.99
        assert abs(fast.norm() / slow.norm() - 1) < 0.05


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        *((method, BF16) for method in METHODS),
        pytest.param("autodo-exact-aws", COMPILE, marks=pytest.mark.slow),
        *(pytest.param(method, COMPILE, marks=[pytest.mark.slow, pytest.mark.long]) for method in METHODS[1:]),
    ],
    ids=str,
)
def test_bf16_and_compiled_runs_train_resume_and_are_saved(method, changes, tmp_path):
    plain, whole = start(run_of(method)), start(run_of(method, **changes))
    losses = [[row["val_loss"] for row in training] for training in (plain, whole)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    if changes is COMPILE:
        assert isinstance(whole.model.network, torch._dynamo.OptimizedModule)
    else:
        assert losses[1][-1] != losses[0][-1]
    assert whole.state.state_dict()["encoder"].keys() == plain.state.state_dict()["encoder"].keys()

    path = tmp_path / "checkpoint.pt"
    for _, _ in zip(range(2), start(run_of(method, **changes), checkpoint=path), strict=False):
        pass
    continued = start(run_of(method, **changes), checkpoint=path)
    assert continued.state.epoch == 2
    list(continued)
    for name, value in whole.model.encoder.state_dict().items():
        assert torch.equal(value, continued.model.encoder.state_dict()[name]), name

    whole.outcome().classifier.save(tmp_path / "classifier.pt")
    images = torch.from_numpy(whole.context.data.test.images.read())
    loaded = Classifier.load(tmp_path / "classifier.pt")(images)
    assert torch.equal(loaded, whole.outcome().classifier(images))
    assert torch.allclose(loaded.amax(1), whole.state.best.probabilities, atol=0.02)


@pytest.mark.parametrize("slow", [True, False])
def test_emulated_bf16_is_warned_of(slow, monkeypatch, caplog):
    monkeypatch.setattr("autodo.training.task_model.computes_in_bf16", lambda device: not slow)
    start(run_of())
    assert not caplog.records
    start(run_of(**BF16))
    assert [record.message.split(" here")[0] for record in caplog.records] == slow * [
        "training.precision: bf16 takes many times as long as fp32"
    ]


@pytest.mark.parametrize("method", ["l2rw", "meta-weight-net"])
@pytest.mark.parametrize("changes", [BF16, COMPILE], ids=["bf16", "compiled"])
def test_forward_mode_objectives_are_refused(method, changes):
    with pytest.raises(
        ConfigError, match=rf"objective '{method}' uses forward-mode derivatives, .*training\.compile=false"
    ):
        run_of(method, **changes)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match=r"training\.precision: input should be 'fp32' or 'bf16', not 'fp16'"):
        run_of(**{"training.precision": "fp16"})


@pytest.mark.slow
def test_a_missing_compiler_is_one_line(tmp_path):
    """Runs in another process with an empty compilation cache."""
    environment = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    options = ["--dataset", "digits", "--method", "baseline", "--set", "training.compile=true", "--store"]
    told = subprocess.run(
        [sys.executable, "-c", "from orchestration.cli.app import main; main()", "train", *options, tmp_path / "store"],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert told.returncode != 0
    assert "training.compile: torch cannot compile here: " in told.stderr
    assert "no-such-compiler" in told.stderr
    assert "Traceback" not in told.stderr


def test_tf32_is_set_and_recorded_with_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    settings = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [setting.fp32_precision for setting in settings]
    try:
        settings[0].fp32_precision, settings[1].fp32_precision = "ieee", "tf32"
        assert device_name(torch.device("cuda")) == "H100, TF32 products"
        set_fp32_precision()
        assert device_name(torch.device("cuda"), 2) == "H100, TF32 convolutions, 2 workers"
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value
