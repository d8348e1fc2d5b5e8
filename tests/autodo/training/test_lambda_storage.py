"""Runs with every storage of lambda: equal results, also after a kill."""

import multiprocessing
import signal

import pytest
import torch

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.data import load, prepare
from autodo.points.row_store import StagedStore
from autodo.points.table_storage import TableStorage
from autodo.training import checkpoint as checkpoints
from autodo.training.trainer import Trainer
from tests.autodo.distributed import group_jobs as jobs
from tests.autodo.training.killed_training import MOMENTS, train_until

SHORT = {
    "training.epochs": 6,
    "training.warmup_epochs": 1,
    "outer.start_share": 0.3,
    "outer.every": 1,
    "dataset.subsample": 300,
}
TIMINGS = {"seconds", "inner_seconds", "outer_seconds", "eval_seconds", "images_per_second", "peak_memory_bytes"}
HALF = {"points.precision": "fp16"}


def short_run(method: str = "autodo-exact-aws", **overrides) -> RunConfig:
    distortion = DistortionConfig(imbalance_ratio=10, noise_ratio=0.2)
    return build_run("digits", method, distortion=distortion, overrides={**SHORT, **overrides})


def start(config: RunConfig, **options) -> Trainer:
    return Trainer(config, prepare(load(config.dataset), config), **options)


def tables(training: Trainer) -> dict:
    """Tables of a finished run, without measured times."""
    list(training)
    outcome = training.outcome()
    kept = {kind: getattr(outcome, kind) for kind in ("results", "epochs", "predictions", "points")}
    return {
        kind: table.drop_columns([name for name in table.column_names if name in TIMINGS | {"finished_at"}])
        for kind, table in kept.items()
    }


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        ("autodo-aws", {}),
        ("autodo-exact-ws", {}),
        ("autodo-shared", {}),
        ("autodo-aw", {"points.mixture": 3, "points.covariance": "full"}),
        ("baseline", {}),
        ("autodo-exact-aws", HALF),
        ("autodo-exact-aws", {"points.square_average": "part"}),
    ],
    ids=str,
)
def test_storage_changes_no_bit_of_the_result(method, overrides, tmp_path):
    config = short_run(method, **overrides, **{"training.epochs": 4})
    device, host, file = (
        tables(start(config, storage=storage))
        for storage in (TableStorage(), TableStorage("host"), TableStorage("file", tmp_path))
    )
    assert device == host == file
    assert list(tmp_path.iterdir()) == [], "the file has no name"


def test_staged_rows_change_no_bit_of_the_result():
    """Uses the order of operations of a GPU."""
    config = short_run()
    there = start(config, storage=TableStorage("host"))
    table = there.points.table
    table._store = StagedStore(table._store.columns, {}, "cpu")
    assert tables(there) == tables(start(config))
    assert there.points.table.values.shape == (there.loaders.train_size, 25)


@pytest.mark.parametrize(
    ("overrides", "moment"),
    [
        (HALF, MOMENTS[1]),
        pytest.param({}, MOMENTS[0], marks=pytest.mark.slow),
        pytest.param({}, MOMENTS[2], marks=pytest.mark.slow),
        pytest.param(HALF, MOMENTS[0], marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param({}, MOMENTS[1], marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param(HALF, MOMENTS[2], marks=[pytest.mark.slow, pytest.mark.long]),
    ],
    ids=str,
)
def test_a_killed_run_resumes_bit_for_bit(moment, overrides, tmp_path):
    config, path, scratch = short_run(**overrides), tmp_path / "run" / "checkpoint.pt", tmp_path / "scratch"
    scratch.mkdir()
    arguments = (moment, config, path, scratch)
    process = multiprocessing.get_context("spawn").Process(target=train_until, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list(scratch.iterdir()) == [], "the mapped file is gone"
    left = [file.name for file in path.parent.iterdir() if file.name.startswith(".")]
    assert bool(left) == (moment == "in the midst of a part")

    continued = start(config, checkpoint=path, storage=TableStorage("file", scratch))
    assert continued.state.epoch == config.outer_start + 1
    assert continued.points.table.steps > 0
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []
    assert tables(continued) == tables(start(config))


@pytest.mark.parametrize(("before", "after"), [("device", "file"), ("file", "device"), ("file", "host")])
def test_a_checkpoint_resumes_with_another_storage(before, after, tmp_path):
    config, path = short_run("autodo-exact-ws"), tmp_path / "checkpoint.pt"
    first = start(config, checkpoint=path, storage=TableStorage(before))
    for row in first:
        if row["epoch"] == config.outer_start:
            break
    assert [file.name for file in checkpoints.files(path)] == (
        ["checkpoint.pt"] if before == "device" else ["checkpoint.part-3-0-of-1.pt", "checkpoint.pt"]
    )
    continued = start(config, checkpoint=path, storage=TableStorage(after))
    assert continued.state.epoch == config.outer_start + 1
    assert torch.equal(continued.points.table.values, first.points.table.values)
    assert tables(continued) == tables(start(config))


def test_rows_in_files_of_workers_are_read_by_other_numbers_of_workers(pool, tmp_path):
    config, path = short_run("autodo-exact-ws"), tmp_path / "checkpoint.pt"
    in_files = pool.each(2, jobs.run, config, path, 4, TableStorage("file", tmp_path))
    plain = pool.each(2, jobs.run, config, None, 4)
    for ours, theirs in zip(in_files, plain, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in jobs.TABLE)
    written = in_order(in_files)
    assert written["square_average"].abs().max() > 0
    for read_by in (1, 3):
        found = in_order(pool.each(read_by, jobs.restored, config, path, TableStorage("file", tmp_path)))
        assert all(torch.equal(written[name], found[name]) for name in jobs.TABLE)


def in_order(states: list[dict]) -> dict:
    order = torch.cat([torch.from_numpy(state["positions"]) for state in states]).argsort()
    return {name: torch.cat([state[name] for state in states])[order] for name in jobs.TABLE}


def test_precision_and_square_average_change_the_run_id_unless_default():
    plain = short_run()
    assert short_run(**{"points.precision": "fp32", "points.square_average": "element"}).run_id == plain.run_id
    others = {short_run(**HALF).run_id, short_run(**{"points.square_average": "part"}).run_id}
    assert len(others | {plain.run_id}) == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:.*deterministic")
@pytest.mark.parametrize("storage", ["host", "file"])
def test_tables_on_the_host_give_the_same_rows_on_a_gpu(storage, monkeypatch, request):
    config = short_run("autodo-exact-aws")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    request.addfinalizer(lambda: torch.use_deterministic_algorithms(False))
    torch.use_deterministic_algorithms(True, warn_only=True)
    on_device, apart = (start(config, device="cuda", storage=TableStorage(kind)) for kind in ("device", storage))
    for training in (on_device, apart):
        list(training)
    torch.testing.assert_close(apart.points.table.values, on_device.points.table.values)
    assert not any(column.is_cuda for column in apart.points.table._store.columns.values())
