"""Synthetic stores: their tables agree with one another and with the known answers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.results import records
from orchestration.grid.grid import GridConfig
from orchestration.store.store import Store
from orchestration.testing.synthetic_run import BEHAVIOURS, IMAGES, SyntheticRun, class_errors
from orchestration.testing.synthetic_store import most_distorted, paper_grids, runs_of, write_run, write_store
from reports.readers.load import load_epochs, load_results, reduce_runs

EPOCHS = 30


def a_run(method: str, seed: int = 0, dataset: str = "cifar10") -> RunConfig:
    distortion = DistortionConfig.parse("10-0.2")
    return build_run(dataset, method, distortion=distortion, seed=seed, overrides={"training.epochs": EPOCHS})


RUNS = [a_run("baseline"), a_run("autodo-aws"), a_run("autodo-aws", seed=1)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    write_store(root, RUNS)
    return root


def read(store: Path, kind: str, run: RunConfig) -> pd.DataFrame:
    return pd.read_parquet(store / kind / f"{run.run_id}.parquet")


def test_it_is_read_without_warnings(store: Path) -> None:
    results = load_results(store)
    assert results.warnings == ()
    assert results.frame["run_id"].tolist() == sorted(run.run_id for run in RUNS)
    assert set(results.frame["git_sha"]) == {"synthetic"}
    for kind in ("epochs", "predictions", "points"):
        found, warnings = reduce_runs(store, kind, results.frame["run_id"], records.SCHEMAS[kind].names, len)
        assert warnings == ()
        assert len(found) == len(RUNS)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.run_id)
def test_the_tables_of_a_run_agree(store: Path, run: RunConfig) -> None:
    row = load_results(store, [run.run_id]).frame.iloc[0]
    epochs = read(store, "epochs", run)
    predictions = read(store, "predictions", run)
    points = read(store, "points", run)
    wrong = predictions["label"] != predictions["prediction"]
    assert row["error_best_val"] == pytest.approx(wrong.mean())
    assert row["minority_error"] == pytest.approx(wrong[predictions["label"] >= 5].mean())
    assert row["per_class_accuracy"].tolist() == pytest.approx((~wrong).groupby(predictions["label"]).mean().tolist())
    assert row["best_val_epoch"] == epochs["val_error"].idxmin()
    assert row["error_best_val"] == pytest.approx(epochs["test_error"][row["best_val_epoch"]])
    assert row["error_last"] == epochs["test_error"].iloc[-1]
    assert row["error_best_test"] == epochs["test_error"].min()
    assert row["seconds"] == pytest.approx(epochs[["inner_seconds", "outer_seconds", "eval_seconds"]].sum(axis=None))
    assert row["train_points"] == len(points)
    assert row["wrong_labels"] == (points["label"] != points["clean_label"]).sum()
    assert epochs["outer_phase"].sum() == (EPOCHS - run.outer_start)


def test_load_epochs_agrees_with_pandas(store: Path) -> None:
    columns = [name for name in records.SCHEMAS["epochs"].names if name != "per_class_accuracy"]
    frame, warnings = load_epochs(store, [run.run_id for run in RUNS], columns)
    assert warnings == ()
    plain = pd.concat([read(store, "epochs", run) for run in sorted(RUNS, key=lambda run: run.run_id)])
    texts = dict.fromkeys(frame.columns[frame.dtypes == "category"], "str")
    assert {"run_id", "method"} <= texts.keys()
    pd.testing.assert_frame_equal(frame.astype(texts), plain[columns].reset_index(drop=True), check_dtype=False)


def test_the_last_error_is_the_expected_one() -> None:
    expected = class_errors(RUNS[1]).mean()
    errors = [SyntheticRun(a_run("autodo-aws", seed)).test_errors[-1] for seed in range(40)]
    assert np.mean(errors) == pytest.approx(expected, abs=4 * np.std(errors, ddof=1) / np.sqrt(len(errors)))
    assert expected < class_errors(RUNS[0]).mean()


def test_weights_and_soft_labels_repair_the_known_shares(store: Path) -> None:
    points = read(store, "points", RUNS[1])
    wrong = points["label"] != points["clean_label"]
    behaviour = BEHAVIOURS["autodo-aws"]
    assert roc_auc_score(wrong, -points["weight"]) == pytest.approx(
        norm.cdf(behaviour.separation / np.sqrt(2)), abs=0.01
    )
    soft = np.stack(points["soft_label"].tolist())
    assert soft.sum(1) == pytest.approx(1, abs=1e-5)
    repaired = soft.argmax(1)[wrong] == points["clean_label"][wrong]
    assert repaired.mean() == pytest.approx(behaviour.repaired, abs=0.03)
    assert read(store, "points", RUNS[0])["weight"].isna().all()


def test_embeddings_agree_with_the_predictions_and_their_classes_are_clusters(store: Path) -> None:
    (store / "embeddings").mkdir(exist_ok=True)
    write_run(RUNS[1], store, ("embeddings",))
    kept, predictions = read(store, "embeddings", RUNS[1]), read(store, "predictions", RUNS[1])
    columns = ["index", "label", "prediction"]
    pd.testing.assert_frame_equal(kept[columns], predictions[columns])
    vectors, right = np.stack(kept["embedding"].tolist()), kept["label"] == kept["prediction"]
    centres = np.stack([vectors[right & (kept["label"] == c)].mean(axis=0) for c in range(10)])
    nearest = ((vectors[right][:, None] - centres) ** 2).sum(-1).argmin(1)
    assert (nearest == kept["label"][right]).mean() > 0.95


def test_the_most_distorted_cells_are_those_of_most_imbalance_and_then_most_noise() -> None:
    runs = most_distorted(runs_of(paper_grids(384)))
    found = {(run.dataset.name, run.distortion.imbalance_ratio, run.distortion.noise_ratio, run.seed) for run in runs}
    assert found == {("svhn", 100, 0.1, 0), ("cifar10", 10, 0.1, 0), ("cifar100", 10, 0.1, 0)}
    assert len(runs) == 3 * len(BEHAVIOURS)


def test_methods_of_a_seed_share_their_labels(store: Path) -> None:
    columns = ["index", "label", "clean_label"]
    baseline, learned, other_seed = (read(store, "points", run)[columns] for run in RUNS)
    assert baseline.equals(learned)
    assert not baseline.equals(other_seed)


def test_the_same_run_is_written_twice_alike(store: Path, tmp_path: Path) -> None:
    write_store(tmp_path, RUNS[1:2])
    for kind in ("results", "epochs", "predictions", "points"):
        pd.testing.assert_frame_equal(read(tmp_path, kind, RUNS[1]), read(store, kind, RUNS[1]))


def test_the_paper_has_384_runs_and_more_seeds_give_more(tmp_path: Path) -> None:
    grids = paper_grids(384)
    runs = runs_of(grids)
    assert len({run.run_id for run in runs}) == 384
    assert {run.method.name for run in runs} == BEHAVIOURS.keys()
    assert {run.dataset.name for run in runs} <= IMAGES.keys()
    assert len(runs_of(paper_grids(400))) == 480
    write_store(tmp_path, [], grids=grids)
    launched = Store(tmp_path).grids().values()
    assert {run.run_id for run in runs_of(grid for grid in launched if isinstance(grid, GridConfig))} == {
        run.run_id for run in runs
    }
