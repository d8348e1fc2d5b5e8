"""Errors on the images that no run has used, of a classifier that a real run has kept."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from autodo.api.run import fit_run
from autodo.config.recipes import build_run
from autodo.data import load
from benchmarks import unused_images
from orchestration.store.store import Store

SMALL = {"dataset.subsample": 300, "model.name": "small-cnn", "training.epochs": 2, "training.warmup_epochs": 1}


def test_a_kept_classifier_is_judged_by_all_images_that_its_run_did_not_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build_run("digits", "baseline", overrides=SMALL)
    outcome = fit_run(run, device="cpu")
    Store(tmp_path / "store").create().save(outcome, run.run_id, keep_model=True)
    out = tmp_path / "out.parquet"
    monkeypatch.setattr(sys, "argv", ["unused_images", str(tmp_path / "store"), str(out)])
    unused_images.main()

    whole = load(run.dataset.model_copy(update={"subsample": None})).train
    rest = np.delete(np.arange(len(whole)), load(run.dataset).train.index)
    names = np.array(outcome.classifier.class_names)[whole.labels[rest]]
    wrong = outcome.classifier.predict(whole.images.read(rest).transpose(0, 2, 3, 1)) != names
    assert len(rest) == len(whole) - 300
    assert pd.read_parquet(out)["error_unused"].item() == pytest.approx(wrong.mean())

    (tmp_path / "store" / "runs" / run.run_id / "model.pt").unlink()  # a second evaluation would fail
    unused_images.main()
    assert len(pd.read_parquet(out)) == 1
