import numpy as np
import pytest

from autodo.config.dataset import DatasetConfig
from autodo.config.recipes import build_run
from autodo.data import load, pin_content, prepare
from autodo.errors import DataError


def config(path, image_size=4):
    return DatasetConfig(name="folder", path=str(path), image_size=image_size)


def fails(path, match):
    with pytest.raises(DataError, match=match) as error:
        load(config(path))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))


def assert_pixels_match_sources(part, root):
    """`write_classes` gave every file its own colour."""
    from PIL import Image

    for image, source in zip(part.images.read(), part.sources, strict=True):
        assert tuple(image[:, 0, 0]) == Image.open(root / source).getpixel((0, 0))


def test_wrong_class_folders_and_damaged_images_are_named_together(tmp_path, write_classes):
    write_classes(tmp_path / "train", cat=2, dog=2)
    for folder in ("train/bird", "train/cow/calf", "val/fish"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "train/cat/00.png").write_bytes(b"no image")
    expected = [
        f"{tmp_path}/train/bird: a class folder without images (.jpg",
        f"{tmp_path}/train/cow/calf: a folder in a class folder; move",
        f"{tmp_path}/val/fish: a class folder without images (.jpg",
        f"{tmp_path}: 1 of 4 images cannot be read: {tmp_path}/train/cat/00.png (not an image); replace",
    ]
    for look in (load, pin_content):
        with pytest.raises(DataError) as error:
            look(config(tmp_path))
        assert [
            line[: len(start)] for line, start in zip(str(error.value).splitlines(), expected, strict=True)
        ] == expected
    (tmp_path / "train/cat/00.png").unlink()
    with pytest.raises(DataError) as error:
        load(config(tmp_path))
    assert len(str(error.value).splitlines()) == 3


def test_class_folders(tmp_path, write_classes):
    write_classes(tmp_path, dog=10, cat=15)
    dataset = load(config(tmp_path))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.val is None
    assert dataset.train.images.shape == (20, 3, 4, 4)
    assert np.bincount(dataset.test.labels).tolist() == [3, 2]
    assert not set(dataset.train.sources) & set(dataset.test.sources)
    assert {*dataset.train.sources, *dataset.test.sources} >= {"cat/00.png", "dog/09.png"}
    for part in (dataset.train, dataset.test):
        assert [dataset.class_names[label] for label in part.labels] == [s.split("/")[0] for s in part.sources]
        assert_pixels_match_sources(part, tmp_path)


def test_test_set_is_the_same_every_time(tmp_path, write_classes):
    write_classes(tmp_path, dog=10, cat=15)
    assert load(config(tmp_path)).test.sources == load(config(tmp_path)).test.sources


def test_train_val_and_test_folders(tmp_path, write_classes):
    write_classes(tmp_path / "train", cat=4, dog=3)
    write_classes(tmp_path / "val", cat=2, dog=1)
    write_classes(tmp_path / "test", dog=5)
    dataset = load(config(tmp_path))
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [7, 3, 5]
    assert dataset.val.sources == ("val/cat/00.png", "val/cat/01.png", "val/dog/00.png")
    assert dataset.test.labels.tolist() == [1] * 5
    for part in (dataset.train, dataset.val, dataset.test):
        assert_pixels_match_sources(part, tmp_path)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("part", "consequence"), [("val", "without clean images of them"), ("test", "the test errors do not cover them")]
)
def test_a_class_that_val_or_test_lacks_is_named(
    part, consequence, stream, tmp_path, write_classes, caplog, monkeypatch
):
    monkeypatch.setenv("AUTODO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AUTODO_LOADER_WORKERS", "0")
    root = tmp_path / "pets"
    write_classes(root / "train", cat=4, dog=4, **{f"rare{i}": 4 for i in range(6)})
    write_classes(root / part, cat=1, dog=1)
    settings = config(root).model_copy(update={"stream": stream})
    assert len(load(settings).class_names) == 8
    (message,) = caplog.messages
    assert message.startswith(
        f"{root}: {part} has no image of 6 of the 8 classes: 'rare0', 'rare1', 'rare2', 'rare3', 'rare4', ...; "
        f"{consequence}"
    )
    caplog.clear()
    write_classes(root / part, **{f"rare{i}": 1 for i in range(6)})
    load(settings)
    assert caplog.messages == []


def test_train_without_test_gives_a_fifth_of_it(tmp_path, write_classes):
    write_classes(tmp_path / "train", cat=10, dog=10)
    dataset = load(config(tmp_path))
    assert len(dataset.train) == 16
    assert len(dataset.test) == 4
    assert dataset.val is None


def test_class_may_be_called_train(tmp_path, write_classes):
    write_classes(tmp_path, bus=5, train=5)
    assert load(config(tmp_path)).class_names == ("bus", "train")


def test_home_is_expanded(tmp_path, write_classes, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_classes(tmp_path / "pets", cat=5, dog=5)
    assert len(load(config("~/pets")).train) == 8


def test_csv(tmp_path, write_classes, write_csv):
    write_classes(tmp_path / "files", cat=5, dog=5)
    rows = [(f"files/{name}/0{i}.png", name) for name in ("cat", "dog") for i in range(5)]
    dataset = load(config(write_csv(tmp_path / "list.csv", ("path", "label"), *rows)))
    assert len(dataset.train) == 8
    assert len(dataset.test) == 2
    assert set(dataset.train.sources) < {path for path, _ in rows}
    assert_pixels_match_sources(dataset.train, tmp_path)


def test_csv_with_splits(tmp_path, write_classes, write_csv):
    write_classes(tmp_path, cat=5, dog=5)
    splits = ("train", "", "val", "test", "train")
    rows = [(f"{name}/0{i}.png", name, splits[i]) for name in ("cat", "dog") for i in range(5)]
    dataset = load(config(write_csv(tmp_path / "list.csv", ("path", "label", "split"), *rows)))
    assert dataset.train.sources == tuple(f"{name}/0{i}.png" for name in ("cat", "dog") for i in (0, 1, 4))
    assert dataset.val.sources == ("cat/02.png", "dog/02.png")
    assert dataset.test.sources == ("cat/03.png", "dog/03.png")


def test_one_class(tmp_path, write_classes):
    write_classes(tmp_path, cat=5)
    fails(tmp_path, "only one class, 'cat'; a classifier needs at least two")


def test_empty_folder(tmp_path):
    fails(tmp_path, r"no images to train on; put them in one folder per class")


def test_images_without_class_folders(tmp_path, write_image):
    write_image(tmp_path / "a.png")
    fails(tmp_path, r"no images to train on; put them in one folder per class")


def test_no_such_path(tmp_path):
    fails(tmp_path / "nothing", "no such directory or file; dataset.path is")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("own_test", [False, True])
def test_true_classes_judge_and_are_not_trained_on(stream, own_test, tmp_path, write_classes, write_csv):
    write_classes(tmp_path, cat=20, dog=20)
    header = ("path", "label", "clean_label", "split")
    rows = [(f"{c}/{i:02d}.png", "dog" if i % 4 == 0 else c, c, "") for c in ("cat", "dog") for i in range(20)]
    if own_test:
        rows = [(*row[:3], "test") if row[1] == row[2] and row[0][4:] > "12" else row for row in rows]
    path = write_csv(tmp_path / "list.csv", header, *rows)
    run = build_run("folder", "baseline", overrides={"dataset.path": str(path), "dataset.stream": stream})
    splits = prepare(load(run.dataset), run)

    given = {row[0]: row[1] for row in rows}
    names = splits.class_names
    for part in (splits.train, splits.val):
        assert [names[label] for label in part.labels] == [given[source] for source in part.sources]
    for labels, sources in (
        (splits.train.clean_labels, splits.train.sources),
        (splits.test.labels, splits.test.sources),
    ):
        assert [names[label] for label in labels] == [source[:3] for source in sources]
    wrong = sum(given[source] != source[:3] for source in splits.train.sources)
    assert (splits.train.labels != splits.train.clean_labels).sum() == wrong > 0


def test_true_classes_are_part_of_the_fingerprint_and_are_classes_of_train(tmp_path, write_classes, write_csv):
    write_classes(tmp_path, cat=4, dog=4)
    plain = [(f"{c}/{i:02d}.png", c) for c in ("cat", "dog") for i in range(4)]

    def listed(rows, *more):
        return write_csv(tmp_path / "list.csv", ("path", "label", *more), *rows)

    for stream in (False, True):
        contents = set()
        for rows, more in (
            (plain, ()),
            ([(*row, row[1]) for row in plain], ("clean_label",)),
            ([(*row, "cat") for row in plain], ("clean_label",)),
        ):
            settings = config(listed(rows, *more)).model_copy(update={"stream": stream})
            contents.add(pin_content(settings).content)
        assert len(contents) == 3
    path = listed([(*row, "bird") for row in plain], "clean_label")
    fails(path, "clean_label 'bird' is the label of no train image; classes of train: cat, dog")


def test_neither_folder_nor_csv(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"PK")
    fails(tmp_path / "images.zip", "neither a directory nor a .csv file; .*, or the directory of their tar shards")


@pytest.mark.parametrize("part", ["val", "test"])
def test_class_that_train_does_not_have(part, tmp_path, write_classes):
    write_classes(tmp_path / "train", cat=4, dog=4)
    write_classes(tmp_path / part, dgo=1)
    fails(tmp_path, rf"{part} has the class 'dgo', which train does not have; .* classes of train: cat, dog$")


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_images_of_a_class(count, tmp_path, write_classes):
    write_classes(tmp_path, cat=9, dog=count)
    fails(tmp_path, rf"class 'dog' has too few images for the split: {count}, but at least 3 are needed")


def test_two_images_of_a_class_are_enough_with_a_trusted_val_set(tmp_path, write_classes):
    write_classes(tmp_path / "train", cat=9, dog=2)
    write_classes(tmp_path / "val", cat=1)
    assert np.bincount(load(config(tmp_path)).train.labels).tolist() == [8, 1]
