"""Data at a URI, on a real S3 server on this machine."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from autodo import data
from autodo.config.dataset import DatasetConfig
from autodo.config.recipes import build_run
from autodo.data.files.remote import cache_dir, local_copy
from autodo.errors import ConfigError, DataError
from autodo.io.storage import Location, locate


@pytest.fixture
def photos(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    """Two classes of 12 images of 8x8 in a bucket, and the same in tmp_path/photos."""
    monkeypatch.setenv("AUTODO_CACHE", str(tmp_path / "cache"))
    place = locate(f"{bucket}/photos")
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            file = tmp_path / "photos" / name / f"{i:02}.png"
            Image.new("L", (8, 8), 100 * k + i).save(file)
            (place / name / file.name).upload(file)
    return place


def config(path: object) -> DatasetConfig:
    return DatasetConfig(name="folder", path=str(path), image_size=8)


def copies() -> set[str]:
    return {path.name for path in (cache_dir() / "data").iterdir() if not path.name.startswith(".")}


def test_images_of_a_bucket_are_those_of_the_folder(photos: Location, tmp_path: Path) -> None:
    remote, local = data.load(config(photos)), data.load(config(tmp_path / "photos"))
    np.testing.assert_array_equal(remote.train.images.read(), local.train.images.read())
    assert remote.train.sources == local.train.sources
    assert data.folder_content(config(photos)) == data.folder_content(config(tmp_path / "photos"))
    assert len(copies()) == 1
    assert not list((cache_dir() / "data").rglob("*.png.*"))


def test_changed_images_are_copied_again(photos: Location) -> None:
    before = data.folder_content(config(photos))
    (photos / "cat" / "00.png").delete()
    assert data.folder_content(config(photos)) != before
    assert len(copies()) == 2


def test_a_csv_brings_the_files_that_it_names(photos: Location, tmp_path: Path) -> None:
    rows = [f"{name}/{i:02}.png,{name}" for name in ("cat", "dog") for i in range(10)]
    (photos / "list.csv").write_text("path,label\n" + "\n".join(rows))
    assert len(data.load(config(f"{photos}/list.csv")).train) == 16
    with local_copy(f"{photos}/list.csv") as path:
        assert len(list(path.parent.rglob("*.png"))) == 20


def test_features_come_with_their_columns(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTODO_CACHE", str(tmp_path / "cache"))
    place, labels = locate(bucket), np.arange(20) % 2
    table = pa.table({"features": [[float(i)] for i in range(20)], "label": labels})
    for name, save in {
        "x.npy": lambda file: np.save(file, np.arange(20.0)[:, None]),
        "x.label.npy": lambda file: np.save(file, labels),
        "x.parquet": lambda file: pq.write_table(table, file),
    }.items():
        save(tmp_path / name)
        (place / name).upload(tmp_path / name)
    contents = {
        data.pin_content(DatasetConfig(name="features", path=f"{folder}/{name}")).content
        for folder in (bucket, tmp_path)
        for name in ("x.npy", "x.parquet")
    }
    assert len(contents) == 1
    with pytest.raises(DataError, match=rf"{bucket}/none\.npy: no such file"):
        data.load(DatasetConfig(name="features", path=f"{bucket}/none.npy"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("cat/99.png,cat", r"photos/list\.csv: line 2: cat/99\.png: no such file"),
        ("../../secret,cat", r"photos/list\.csv: the name '\.\./\.\./secret' in it leads elsewhere|no such file"),
    ],
)
def test_a_csv_that_names_missing_files_is_named_by_its_uri(photos: Location, row: str, message: str) -> None:
    (photos / "list.csv").write_text(f"path,label\n{row}\n")
    with pytest.raises(DataError, match=message) as caught:
        data.load(config(f"{photos}/list.csv"))
    assert str(cache_dir()) not in str(caught.value)


def test_errors_name_the_uri_and_not_the_copy(photos: Location, bucket: str) -> None:
    (photos / "cat" / "00.png").write_text("no image")
    with pytest.raises(DataError, match=rf"^{photos}: 1 of 24 images cannot be read: {photos}/cat/00\.png"):
        data.load(config(photos))
    with pytest.raises(DataError, match=rf"{bucket}/none: no such folder, or nothing in it"):
        data.load(config(f"{bucket}/none"))
    with pytest.raises(DataError, match=rf"{bucket}/none\.csv: no such file"):
        data.load(config(f"{bucket}/none.csv"))


def test_a_name_that_leads_out_of_the_cache_is_refused(photos: Location, bucket: str, tmp_path: Path) -> None:
    import boto3

    client = boto3.client("s3", region_name="us-east-1")
    client.put_object(Bucket=bucket.removeprefix("s3://"), Key="photos/cat/../../x.png", Body=b"x")
    client.close()
    with pytest.raises(DataError, match="leads elsewhere"):
        data.load(config(photos))


def test_named_datasets_are_read_from_a_uri(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTODO_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=rf"{bucket}/data: no such folder"):
        data.load(DatasetConfig(name="mnist"), data_dir=f"{bucket}/data")
    (locate(bucket) / "data" / "readme").write_text("no digits here")
    with pytest.raises(DataError, match=rf"{bucket}/data") as caught:
        data.load(DatasetConfig(name="mnist"), data_dir=f"{bucket}/data", download=True)
    assert str(tmp_path) not in str(caught.value)


def test_processes_of_a_node_copy_once(photos: Location) -> None:
    code = (
        "from autodo.io.object_store import ObjectLocation as O\n"
        "from autodo.data.files.remote import local_copy\n"
        "fetch, n = O.fetch, []\n"
        "O.fetch = lambda self, path: (n.append(1), fetch(self, path))[1]\n"
        f"with local_copy({photos.uri!r}) as path: print(path, len(n), len(list(path.rglob('*.png'))))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=120)[0].split() for process in running]
    assert len({path for path, _, _ in outputs}) == 1
    assert sorted(int(fetched) for _, fetched, _ in outputs) == [0] * 2 + [24]
    assert {images for _, _, images in outputs} == {"24"}


def test_a_cache_that_cannot_be_written_is_one_line(
    photos: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AUTODO_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be copied to .*; AUTODO_CACHE names another folder"):
        data.load(config(photos))


def test_credentials_in_a_recipe_are_refused_and_not_repeated() -> None:
    overrides = {"dataset.path": "s3://AKIA1:c2Vj@bucket/photos", "dataset.image_size": 8}
    with pytest.raises(ConfigError, match="contains credentials") as caught:
        build_run("folder", "baseline", overrides=overrides)
    assert "c2Vj" not in str(caught.value)


def test_a_uri_names_its_runs_as_a_folder_does() -> None:
    assert config("s3://bucket/My%20Photos?region=eu-west-1").label == "folder-my-20photos"
    assert config("s3://bucket/photos").label == config("/x/photos").label


def test_shards_of_a_bucket_are_streamed_from_the_copy(
    photos: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from webdataset import ShardWriter

    monkeypatch.setenv("AUTODO_LOADER_WORKERS", "0")
    with ShardWriter(str(tmp_path / "train-%d.tar"), maxcount=10, verbose=0) as writer:
        for file in sorted((tmp_path / "photos").rglob("*.png")):
            sample = {"__key__": f"{file.parent.name}-{file.stem}", "png": file.read_bytes(), "cls": file.parent.name}
            writer.write(sample)
    shards = photos.parent / "shards"
    for shard in tmp_path.glob("*.tar"):
        (shards / shard.name).upload(shard)
    streamed = config(shards).model_copy(update={"stream": True})
    held = data.load(config(tmp_path / "photos"))
    for _ in range(2):
        dataset = data.load(data.pin_content(streamed))
        np.testing.assert_array_equal(dataset.train.images.read(np.arange(4))[:, :1], held.train.images.read()[:4])
    assert len(copies()) == 1

    (shards / "train-1.tar").write_bytes(b"no tar file")
    with pytest.raises(DataError, match=rf"^{shards}: .* are damaged: train-1.tar \(") as caught:
        data.load(streamed)
    assert str(cache_dir() / "data") not in str(caught.value)
