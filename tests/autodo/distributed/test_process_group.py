"""Several processes that train one run, against a single process."""

import io
import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data import load
from autodo.distributed.batch_norm import WholeBatchNorm2d, share_statistics
from autodo.seeds import derive
from autodo.training import checkpoint as checkpoints
from tests.autodo.distributed import group_jobs as jobs

TIMINGS = {"seconds", "inner_seconds", "outer_seconds", "eval_seconds", "images_per_second", "peak_memory_bytes"}
# 45 train and 11 val points: of two workers the one has 23 and 6, the other 22 and 5.
UNEVEN = {
    "dataset.subsample": 56,
    "training.batch_size": 15,
    "training.weight_decay": 0.02,
    "training.epochs": 2,
    "training.warmup_epochs": 0,
}
SHORT = {
    "dataset.subsample": 301,
    "training.epochs": 4,
    "training.warmup_epochs": 1,
    "outer.start_share": 0.3,
    "outer.every": 1,
}
# One batch of all points and nothing random, so the sharding makes no difference.
FULL_BATCH = {
    **SHORT,
    "training.batch_size": 1000,
    "training.lr": 0.5,
    "augmentation.crop_padding": 0,
    "augmentation.flip": False,
    "augmentation.erase_probability": 0,
}
OBJECTIVES_WITHOUT_CHANCE = [
    *("class-balanced", "ldam-drw", "elr", "sop", "pencil", "joint-optimization", "glc", "forward-correction"),
    *("finetune-head-on-val", "val-only"),
]


# A method, and settings after a comma.
MIXTURE = "autodo-aw, points.mixture=3, points.covariance=full"


def config_of(method: str, overrides: dict, split: str = "paper") -> RunConfig:
    name, *settings = method.split(", ")
    given = {**overrides, **dict(setting.split("=") for setting in settings)}
    return build_run("digits", name, distortion=DistortionConfig(noise_ratio=0.3), split=split, overrides=given)


def untimed(table: pa.Table) -> pa.Table:
    return table.drop_columns([name for name in table.column_names if name in TIMINGS | {"finished_at", "device"}])


# Every method with either split and either number of workers, but not with all combinations.
FEW = [
    ("baseline", "paper", 2),
    ("baseline", "union", 3),
    ("ldam-drw", "paper", 3),
    ("autodo-shared", "union", 2),
    ("autodo-shared", "paper", 3),
    (MIXTURE, "union", 2),
    (MIXTURE, "paper", 3),
    ("autodo-aws", "union", 3),
    ("autodo-aws", "paper", 2),
    ("autodo-exact-ws", "union", 2),
    ("autodo-exact-ws", "paper", 3),
    ("autodo-exact-aws", "union", 3),
    ("autodo-exact-aws", "paper", 2),
    ("autodo-aws+class-balanced", "paper", 2),
    ("autodo-exact-ws+logit-adjustment", "union", 3),
]
METHODS = ["baseline", "ldam-drw", "autodo-shared", "autodo-aws", "autodo-exact-ws", "autodo-exact-aws"]
REST = [case for case in itertools.product(METHODS, ("paper", "union"), (2, 3)) if case not in FEW]


@pytest.mark.parametrize(
    ("method", "split", "size"),
    [*FEW, *(pytest.param(*case, marks=[pytest.mark.slow, pytest.mark.long]) for case in REST)],
)
def test_workers_take_the_same_steps_as_one_process(pool, method, split, size):
    config = config_of(method, UNEVEN, split)
    ours, recordings = zip(*pool.each(size, jobs.one_epoch, config), strict=True)
    alone, replayed = jobs.one_epoch(config, replay=list(recordings))
    assert len(replayed) == len(recordings[0])
    (inner, *_) = zip(*recordings, strict=True)
    for parts in zip(*inner, strict=True):
        assert sum(len(mine) for mine, _ in parts) == parts[0][1]
    if (split, size) in {("paper", 2), ("union", 3)}:
        assert len({len(mine) for parts in zip(*inner, strict=True) for mine, _ in parts}) > 1, "uneven parts"
    for name, whole in alone.items():
        for worker in ours:
            if name == "positions" or whole.numel() == 0:
                continue
            mine = whole[worker["positions"]] if "lambda" in name else whole
            if (name.startswith("gradient of") and name != "gradient of lambda") or "running" in name:
                assert mine.abs().max() > 0
            tolerance = 1e-6 if name == "loss" else 1e-10  # the sum of losses is kept in float32
            assert (worker[name] - mine).abs().max() <= tolerance * max(whole.abs().max(), 1e-3), name
    if alone["lambda"].shape[1]:
        assert sorted(np.concatenate([worker["positions"] for worker in ours])) == alone["positions"].tolist()
        assert (alone["gradient of lambda"][:45] > 0).any(1).all()


@pytest.mark.parametrize("sizes", [[3, 2], [1, 4]])
def test_distributed_batch_norm_equals_batch_norm_of_the_whole_batch(pool, sizes):
    generator = torch.Generator().manual_seed(0)
    images = 100 + torch.randn(5, 3, 4, 6, generator=generator, dtype=torch.float64)
    images = images.to(memory_format=torch.channels_last)
    weights = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    parts = pool.each(2, jobs.normalise, images, weights, sizes)

    norm = jobs.scaled_norm(images)
    whole = images.clone().requires_grad_()
    result = norm(whole)
    (result * weights).sum().backward()
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(torch.cat([part["result"] for part in parts]), result.detach(), **close)
    torch.testing.assert_close(torch.cat([part["d images"] for part in parts]), whole.grad, **close)
    torch.testing.assert_close(sum(part["d weight"] for part in parts), norm.weight.grad, **close)
    torch.testing.assert_close(sum(part["d bias"] for part in parts), norm.bias.grad, **close)
    for part in parts:
        assert {name for name in part if name in norm.state_dict()} == set(norm.state_dict())
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(part[name], value, **close)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat([part["evaluated"] for part in parts]), norm.eval()(images), **close)


def test_no_layer_on_a_gpu_is_torchs_own_whose_host_waits():
    with FakeTensorMode():
        network = torch.nn.Sequential(*(layer(2, device="cuda") for layer in (torch.nn.BatchNorm2d, torch.nn.PReLU)))
        shared = share_statistics(network, lambda tensor: tensor)
    assert [type(layer) for layer in shared] == [WholeBatchNorm2d, torch.nn.PReLU]


def test_batch_norm_keeps_a_small_variance_beside_a_large_mean():
    """In float32 the mean square of these images minus their squared mean has no correct digit."""
    images = 1000 + torch.randn(8, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    plain, ours = torch.nn.BatchNorm2d(2), WholeBatchNorm2d(torch.nn.BatchNorm2d(2), lambda tensor: tensor)
    torch.testing.assert_close(ours(images), plain(images), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(ours.running_var, plain.running_var, rtol=1e-3, atol=0)


def test_batch_norm_statistics_of_16_bit_images_have_32_bits():
    generator = torch.Generator().manual_seed(0)
    images = (1 + torch.randn(16, 3, 8, 8, generator=generator)).bfloat16().to(memory_format=torch.channels_last)
    weights, found = torch.randn(images.shape, generator=generator), []
    for norm in (torch.nn.BatchNorm2d(3), WholeBatchNorm2d(torch.nn.BatchNorm2d(3), lambda tensor: tensor)):
        given = images.clone().requires_grad_()
        result = norm(given)
        assert result.dtype == torch.bfloat16
        (result * weights).sum().backward()
        found.append((result.float(), given.grad.float(), norm.weight.grad, norm.running_mean, norm.running_var))
    for ours, plain, precision in zip(*reversed(found), [0.01, 0.01, 0.01, 1e-4, 1e-4], strict=True):
        assert (ours - plain).norm() < precision * plain.norm()


@pytest.mark.parametrize(
    ("changes", "job"),
    [
        ({"training.precision": "bf16"}, jobs.run),
        pytest.param({"training.compile": True}, jobs.run_compiled, marks=pytest.mark.slow),
    ],
    ids=["bf16", "compiled"],
)
def test_two_workers_in_16_bits_or_compiled_end_near_a_plain_run(pool, changes, job):
    first, second = pool.each(2, job, config_of("baseline", {**FULL_BATCH, **changes}))
    alone = jobs.run(config_of("baseline", FULL_BATCH))
    for mine, others, whole in zip(first["history"], second["history"], alone["history"], strict=True):
        assert mine["val_loss"] == others["val_loss"] == pytest.approx(whole["val_loss"], rel=0.02)


LIKE_ONE = [
    ("baseline", "paper"),
    ("autodo-exact-ws", "paper"),
    ("autodo-exact-ws", "union"),
    ("ldam-drw", "union"),
    ("sop", "paper"),
    ("elr", "union"),
    ("pencil", "paper"),
    ("joint-optimization", "union"),
    ("forward-correction", "union"),
    ("finetune-head-on-val", "paper"),
    ("val-only", "paper"),
]
LIKE_ONE_TOO = [
    case
    for case in itertools.product(["baseline", "autodo-exact-ws", *OBJECTIVES_WITHOUT_CHANCE], ("paper", "union"))
    if case not in LIKE_ONE
]


@pytest.mark.parametrize(
    ("method", "split"),
    [*LIKE_ONE, *(pytest.param(*case, marks=[pytest.mark.slow, pytest.mark.long]) for case in LIKE_ONE_TOO)],
)
def test_two_workers_end_like_one_process_where_nothing_is_random(pool, method, split):
    config = config_of(method, FULL_BATCH, split)
    first, second = pool.each(2, jobs.run, config)
    alone = jobs.run(config)
    for mine, whole in zip(first["history"], alone["history"], strict=True):
        for column in ("train_loss", "val_loss", "test_loss", "val_error", "test_error"):
            assert mine[column] == pytest.approx(whole[column], rel=1e-3), column
        assert mine["lr"] == whole["lr"]
        assert mine["outer_phase"] == whole["outer_phase"]
    points, expected = (state["tables"]["points"].to_pandas() for state in (first, alone))
    for column in ("index", "label", "clean_label"):
        assert points[column].tolist() == expected[column].tolist()
    assert (points.prediction == expected.prediction).mean() > 0.97
    assert np.allclose(points.loss, expected.loss, rtol=1e-2, atol=1e-3)
    if method.startswith("autodo"):
        # RMSprop moves by the sign of a gradient, which rounding can turn where it is nearly zero.
        assert np.isclose(points.weight, expected.weight, rtol=1e-2).mean() > 0.97
        assert np.isclose(np.stack(points.soft_label), np.stack(expected.soft_label), atol=1e-2).mean() > 0.97
    predictions, expected = (state["tables"]["predictions"].to_pandas() for state in (first, alone))
    assert predictions.label.tolist() == expected.label.tolist()
    assert (predictions.prediction == expected.prediction).mean() > 0.97
    trained_on = second["positions"][second["positions"] < len(points)]
    # Train points that are not trained on are sharded round-robin.
    assert len(second["tables"]["points"]) == (len(points) // 2 if method == "val-only" else len(trained_on))
    assert "embeddings" not in second["tables"]
    kept = first["tables"]["embeddings"].to_pandas()
    assert kept["index"].tolist() == list(range(len(expected)))
    assert kept.label.tolist() == expected.label.tolist()
    assert np.allclose(np.stack(kept.embedding), first["embeddings"], rtol=1e-3, atol=1e-4)
    check_thumbnails(points, config)
    (result,) = first["tables"]["results"].to_pylist()
    assert result["device"].endswith(", 1 thread, 2 workers")
    assert set(first["network"]) == set(alone["network"])


def check_thumbnails(points: pd.DataFrame, config: RunConfig) -> None:
    """Exactly the suspicious points, of both workers, have the thumbnail of their image."""
    trust = [-points.loss]
    if points.weight.notna().all():
        trust += [points.weight, pd.Series([soft[y] for soft, y in zip(points.soft_label, points.label, strict=True)])]
    expected = {row for values in trust for row in values.sort_values(kind="stable").index[:64]}
    assert set(points.index[points.thumbnail.notna()]) == expected
    images = load(config.dataset).train.images.read()
    original = dict(zip(load(config.dataset).train.index, images, strict=True))
    for row in expected:
        with Image.open(io.BytesIO(points.thumbnail[row])) as picture:
            assert (np.asarray(picture) == original[points["index"][row]][0]).all()


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        *(
            (name, {})
            for name in (
                "autodo-shared",
                MIXTURE,
                "autodo-aws",
                "autodo-exact-aws",
                "sop",
                "pencil",
                "glc",
                "co-teaching",
            )
        ),
        *((name, {"training.ema": 0.9}) for name in ("autodo-exact-ws", "joint-optimization")),
        ("logit-adjustment+posterior-head", {"head.solve": "passes", "training.ema": 0.9}),
        (
            "autodo-exact-ws+posterior-head",
            {"points.soft_label": "posterior", "method.loss": "cross-entropy", "training.ema": 0.9},
        ),
        (
            "autodo-exact-ws+logit-adjustment+solved-head",
            {"head.solve": "passes", "head.labels": "learned", "head.balance": "loss", "training.ema": 0.9},
        ),
    ],
)
def test_an_interrupted_run_of_two_workers_resumes_bit_for_bit(pool, method, changes, tmp_path):
    config = config_of(method, {**SHORT, **changes}, "union")
    whole = pool.each(2, jobs.run, config)
    path = tmp_path / "checkpoint.pt"
    pool.each(2, jobs.run, config, path, 3)
    assert len(checkpoints.files(path)) == 3
    continued = pool.each(2, jobs.run, config, path)
    assert [state["began"] for state in continued] == [3, 3]
    for one, other in zip(whole, continued, strict=True):
        for network in ("network", "evaluated"):
            assert all(torch.equal(value, other[network][name]) for name, value in one[network].items())
        assert all(torch.equal(one[name], other[name]) for name in tables_of(one))
        assert one["best"] == other["best"] == whole[0]["best"]
        for name, table in one["tables"].items():
            assert untimed(table).equals(untimed(other["tables"][name])), name
    first, second = whole
    for network in ("network", "evaluated"):
        assert all(torch.equal(value, second[network][name]) for name, value in first[network].items())
    assert torch.equal(first["network"]["head.weight"], first["evaluated"]["head.weight"]) == (not changes)
    assert all(torch.equal(first[name], second[name]) for name in tables_of(first) if name.startswith("shared"))


def tables_of(state: dict) -> list[str]:
    return [name for name in state if name.removeprefix("shared ") in jobs.TABLE]


def table_of(states: list[dict]) -> dict[str, torch.Tensor]:
    """Rows of all workers in order of the points, and the shared rows, which all of them have."""
    shared = {name: states[0][name] for name in tables_of(states[0]) if name.startswith("shared")}
    assert all(torch.equal(value, state[name]) for name, value in shared.items() for state in states)
    order = np.argsort(np.concatenate([state["positions"] for state in states]))
    return {**shared, **{name: torch.cat([state[name] for state in states])[order] for name in jobs.TABLE}}


@pytest.mark.parametrize(
    ("method", "before", "after"),
    [
        ("autodo-exact-ws", 2, 1),
        ("autodo-exact-ws", 1, 2),
        ("autodo-exact-ws", 3, 2),
        ("autodo-shared", 2, 1),
        (MIXTURE, 2, 1),
        pytest.param(MIXTURE, 1, 2, marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param("autodo-shared", 1, 2, marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param("autodo-shared", 3, 2, marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_another_number_of_workers_continues_from_a_checkpoint(pool, method, before, after, tmp_path):
    config = config_of(method, FULL_BATCH, "union")
    path = tmp_path / "checkpoint.pt"
    written = pool.each(before, jobs.run, config, path, 3)
    read = pool.each(after, jobs.restored, config, path)
    assert [state["epoch"] for state in read] == [3] * after
    expected, found = table_of(written), table_of(read)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert len(expected["values"]) == 301
    assert len(expected.get("shared values", ())) == {"autodo-shared": 1, MIXTURE: 3}.get(method, 0)
    squares = [value for name, value in expected.items() if name.endswith("square_average") and value.numel()]
    assert all(value.abs().max() > 0 for value in squares)
    for state in read:
        assert all(torch.equal(value, state["network"][name]) for name, value in written[0]["network"].items())

    done = pool.each(after, jobs.run, config, path)
    assert [state["began"] for state in done] == [3] * after
    assert done[0]["history"][:3] == written[0]["history"]
    assert len(checkpoints.files(path)) == (1 if after == 1 else 1 + after), "no part of an older one is left"


def test_a_checkpoint_that_one_worker_cannot_read_is_used_by_none(pool, tmp_path):
    config = config_of("baseline", FULL_BATCH)
    path = tmp_path / "checkpoint.pt"
    pool.each(2, jobs.run, config, path, 1)
    assert pool.each(2, jobs.restored_at, config, [path, path]) == [1, 1]
    assert pool.each(2, jobs.restored_at, config, [path, tmp_path / "elsewhere.pt"]) == [0, 0]


@pytest.mark.parametrize(
    ("method", "overrides", "what"),
    [
        ("baseline", {"training.lr": 1e30}, "val loss is not finite in epoch 0; there is no checkpoint"),
        ("autodo-aws", {"outer.lr": 1e38}, "sum of lambda is not finite in epoch 1; there is no checkpoint"),
    ],
)
def test_divergence_ends_all_workers_with_one_message(pool, method, overrides, what):
    config = config_of(method, {**FULL_BATCH, "training.warmup_epochs": 0, **overrides})
    first, second = pool.each(2, jobs.diverge, config)
    assert first == second
    assert what in first


def test_every_worker_has_its_own_random_streams(pool):
    config = config_of("baseline", SHORT)
    assert jobs.seeds(config) == [derive(0, "inner", 3), derive(0, "outer", 3)]
    assert len({*jobs.seeds(config), *(seed for seeds in pool.each(2, jobs.seeds, config) for seed in seeds)}) == 6


def test_too_many_workers_are_refused_by_all(pool):
    few = config_of("baseline", {"dataset.subsample": 50, "dataset.val_share": 0.2, "training.batch_size": 2})
    errors = pool.each(3, jobs.refused, few)
    assert (
        errors
        == [
            "workers: 3 are too many, at most 2 can train this run: a batch has 2 of the 40 train points; "
            "raise training.batch_size"
        ]
        * 3
    )
