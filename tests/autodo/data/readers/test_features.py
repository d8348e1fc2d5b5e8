"""Datasets of features."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autodo.config.dataset import DatasetConfig
from autodo.config.recipes import build_run
from autodo.data import load, pin_content, prepare
from autodo.data.confusable import class_confusion
from autodo.errors import ConfigError, DataError

N, D = 40, 3
VALUES = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
LABELS = np.arange(N) % 4 * 5  # 0, 5, 10, 15: in the order of numbers, not of texts
SPLIT = np.array(["train"] * 24 + ["val"] * 8 + ["test"] * 8)


def config(path: Path, **settings: object) -> DatasetConfig:
    return DatasetConfig(name="features", path=str(path), **settings)


def write_npy(path: Path, values: np.ndarray = VALUES, **columns: np.ndarray) -> Path:
    np.save(path, values)
    for name, column in {"label": LABELS, **columns}.items():
        np.save(path.with_name(f"{path.stem}.{name}.npy"), column)
    return path


def write_parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table({"features": list(VALUES), "label": LABELS, **columns}), path)
    return path


def test_npy_and_parquet_hold_the_same(tmp_path: Path) -> None:
    sources = np.array([f"{i}.jpg" for i in range(N)])
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(VALUES.astype(np.float64).reshape(-1)), D)
    coded = pa.array(SPLIT).dictionary_encode()
    paths = (
        write_npy(tmp_path / "x.npy", VALUES.astype(np.float64), split=SPLIT, source=sources),
        write_parquet(tmp_path / "x.parquet", split=SPLIT, source=sources),
        write_parquet(tmp_path / "y.parquet", features=fixed, split=coded, source=sources),
    )
    for path in paths:
        dataset = load(config(path))
        assert dataset.class_names == ("0", "5", "10", "15")
        assert dataset.val is not None
        parts = (dataset.train, dataset.val, dataset.test)
        assert [len(part) for part in parts] == [24, 8, 8]
        np.testing.assert_array_equal(np.concatenate([part.images.read() for part in parts])[:, :, 0, 0], VALUES)
        np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), np.arange(N) % 4)
        assert dataset.val.sources == tuple(sources[24:32])
    assert len({pin_content(config(path)).content for path in paths}) == 1


def test_a_change_of_any_part_is_another_content(tmp_path: Path) -> None:
    def content(**columns: object) -> str | None:
        return pin_content(config(write_parquet(tmp_path / "x.parquet", **columns))).content

    other = VALUES.copy()
    other[3, 1] += 1e-6
    parts: list[dict[str, object]] = [
        {},
        {"features": list(other)},
        {"label": np.roll(LABELS, 1)},
        {"split": SPLIT},
        {"clean_label": np.roll(LABELS, 1)},
        {"source": [str(i) for i in range(N)]},
    ]
    assert len({content(**part) for part in parts}) == len(parts)
    with pytest.raises(DataError, match=r"x\.parquet: the features have changed since .* start the command again"):
        load(config(tmp_path / "x.parquet", content="0" * 16))


def test_clean_labels_are_only_to_judge_with(tmp_path: Path) -> None:
    clean = [*np.roll(LABELS, 1)[:24].tolist(), *[None] * 16]
    path = write_parquet(tmp_path / "x.parquet", split=SPLIT, clean_label=clean)
    run = build_run("features", "baseline", overrides={"dataset.path": str(path)})
    data = prepare(load(run.dataset), run)
    np.testing.assert_array_equal(data.train.labels, np.arange(24) % 4)
    np.testing.assert_array_equal(data.train.clean_labels, np.roll(np.arange(N) % 4, 1)[:24])


def test_without_sets_a_fifth_is_the_test_set(tmp_path: Path) -> None:
    path = write_npy(tmp_path / "x.npy", label=np.array(["cat", "dog"] * 20))
    dataset = load(config(path))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.val is None
    assert (len(dataset.train), len(dataset.test), dataset.train.sources) == (32, 8, None)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"features": [*VALUES[:-1], VALUES[0] * np.nan]}, r"row 39: a feature is NaN, infinite"),
        ({"features": [VALUES[0, :2], *VALUES[1:]]}, "row 1 has 3 features, and row 0 has 2"),
        ({"features": [*VALUES[:2], None, *VALUES[3:]]}, "row 2: features are missing"),
        ({"features": VALUES[:, 0]}, "column 'features' is float; a list of numbers"),
        ({"label": [None, *LABELS[1:].tolist()]}, "row 0: label is empty"),
        ({"label": LABELS / 2}, "column 'label' is double; whole numbers or text"),
        ({"label": LABELS * 0}, "only one class, '0'"),
        ({"split": ["tran", *SPLIT[1:]]}, "row 0: split is 'tran'; did you mean 'train'"),
        ({"split": ["test"] * N}, "no features to train on"),
        ({"split": SPLIT, "clean_label": np.roll(LABELS, 1)}, "row 24: clean_label is '15' and label is '0'"),
        ({"split": SPLIT, "label": [*[0, 1] * 12, *[2] * 16]}, "val has the class '2', which train does not have"),
    ],
)
def test_unsuitable_rows_are_named(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    path = write_parquet(tmp_path / "x.parquet", **columns)
    with pytest.raises(DataError, match=message) as error:
        load(config(path))
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_unsuitable_files_are_named(tmp_path: Path) -> None:
    def fails(path: Path, message: str) -> None:
        with pytest.raises(DataError, match=message) as error:
            load(config(path))
        assert "\n" not in str(error.value)

    fails(tmp_path / "x.npy", r"x\.npy: no such file; dataset\.path is the file of features")
    fails(tmp_path, "neither a .npy nor a .parquet file")
    np.save(tmp_path / "x.npy", VALUES)
    fails(tmp_path / "x.npy", r"x\.label\.npy: no such file; it holds the label of each row of x\.npy")
    fails(write_npy(tmp_path / "x.npy", label=LABELS[1:]), r"40 rows of features, and 39 of label")
    fails(
        write_npy(tmp_path / "x.npy", label=LABELS / 1.0), r"x\.label\.npy: float64 of shape \[40\]; an array of whole"
    )
    fails(write_npy(tmp_path / "x.npy", VALUES[:, :, None]), r"float32 of shape \[40, 3, 1\]; features are numbers")
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY")
    fails(tmp_path / "x.npy", r"x\.npy: not an array that numpy\.save wrote")
    np.save(tmp_path / "o.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "o.label.npy").write_bytes((tmp_path / "x.label.npy").read_bytes())
    fails(tmp_path / "o.npy", r"o\.npy: not an array that numpy\.save wrote: .*allow_pickle=False")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    fails(tmp_path / "x.parquet", r"x\.parquet: not a Parquet file")
    pq.write_table(pa.table({"feature": [1]}), tmp_path / "x.parquet")
    fails(tmp_path / "x.parquet", r"no column 'features'; .* its columns: feature")


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("randaugment", {}, "policy.kind 'randaugment' needs pixels, and features have none; methods: autodo, "),
        ("autodo-exact-aws", {}, "policy.kind 'colour' needs pixels"),
        ("autodo-exact-aws", {"policy": None}, "'augment' in points.learn needs pixels"),
        ("cutmix", {}, "objective.kind 'cutmix' needs pixels"),
        ("baseline", {"augmentation.flip": True}, r"augmentation.flip \(True\) needs pixels"),
        ("baseline", {"model.name": "resnet-18"}, "model.name 'resnet-18' needs pixels, .*: 'linear' is possible"),
        ("baseline", {"dataset.image_size": 8}, "image_size and stream are for images"),
        ("baseline", {"dataset.path": None}, "path is required: the .npy or .parquet file"),
        ("baseline", {"distortion.noise": "instance", "distortion.noise_ratio": 0.1}, "'features' has none; uniform"),
    ],
)
def test_what_needs_pixels_is_refused(method: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        build_run("features", method, overrides={"dataset.path": "x.npy", **settings})
    assert "\n" not in str(error.value)


def test_classes_are_confused_by_their_features(tmp_path: Path) -> None:
    """Classes 0 and 1 lie together, and 2 far away."""
    generator, labels = np.random.default_rng(0), np.arange(300) % 3
    values = generator.normal(size=(300, D)) + np.array([0, 1, 9])[labels, None]
    path = write_npy(tmp_path / "x.npy", values, label=labels)
    confusion = class_confusion(load(config(path)).train, 3)
    assert confusion[0, 1] > 0.99
    assert confusion[1, 0] > 0.99
