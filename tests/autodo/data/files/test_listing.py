import pytest

from autodo.config.dataset import DatasetConfig
from autodo.data import load, pin_content, shared_listing
from autodo.data.files.listing import SUFFIXES, FileList, list_csv, list_folder, list_images
from autodo.data.readers import sources
from autodo.data.stream.pool import WORKERS_VARIABLE
from autodo.errors import DataError


def test_hidden_files_and_other_files_are_ignored(tmp_path, write_classes, write_image):
    write_classes(tmp_path, cat=1, dog=1)
    (tmp_path / "cat" / "notes.txt").write_text("tabby")
    (tmp_path / "README.md").write_text("pets")
    write_image(tmp_path / "cat" / ".hidden.png")
    write_image(tmp_path / ".cache" / "a.png")
    expected = FileList(["cat/00.png", "dog/00.png"], ["cat", "dog"])
    assert list_folder(tmp_path) == {"train": expected, "val": FileList([], []), "test": FileList([], [])}


@pytest.mark.parametrize("suffix", ["jpg", "JPG", "jpeg", "png", "bmp", "webp", "gif", "tif", "tiff"])
def test_suffixes(suffix, tmp_path, write_classes, write_image):
    write_image(tmp_path / "cat" / f"a.{suffix}")
    assert len(list_folder(tmp_path)["train"].names) == 1


@pytest.mark.parametrize("name", ["valid", "tset"])
def test_misspelled_set(name, tmp_path, write_classes):
    write_classes(tmp_path / "train", cat=1)
    write_classes(tmp_path / name, cat=1)
    with pytest.raises(
        DataError, match=rf"/{name}: beside .*/train only 'val' and 'test' .*; did you mean '(val|test)'"
    ):
        list_folder(tmp_path)


def test_class_folder_without_images(tmp_path, write_classes):
    write_classes(tmp_path, cat=1)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "a.heic").touch()
    with pytest.raises(DataError, match=r"/dog: a class folder without images \(.jpg .*\); fill it or remove it"):
        list_folder(tmp_path)


def test_folder_in_a_class_folder(tmp_path, write_classes):
    write_classes(tmp_path / "cat", tabby=1)
    with pytest.raises(DataError, match=r"/cat/tabby: a folder in a class folder; move its images up"):
        list_folder(tmp_path)


@pytest.fixture
def pets(tmp_path, write_classes, write_csv):
    write_classes(tmp_path, cat=2, dog=2)

    def write(*rows, header=("path", "label", "split"), **kwargs):
        return write_csv(tmp_path / "list.csv", header, *rows, **kwargs)

    return write


def test_csv_with_byte_order_mark_blank_lines_spaces_and_absolute_paths(tmp_path, pets):
    path = pets(
        ("cat/00.png", " cat "),
        (),
        (str(tmp_path / "dog/00.png"), "Dög"),
        header=("path", " label"),
        encoding="utf-8-sig",
    )
    assert list_csv(path)["train"] == FileList(["cat/00.png", "dog/00.png"], ["cat", "Dög"])


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (("file", "label"), r"line 1: the header is 'file,label'; path,label is needed, and split and"),
        (("path;label",), r"line 1: the header is 'path;label'; path,label is"),
        (("path", "label", "splits"), r"line 1: unknown column 'splits'; did you mean 'split'\?; known: path, label"),
        (("path", "label", "label"), r"line 1: the header is 'path,label,label'"),
        ((), r"line 1: the header is ''"),
    ],
)
def test_csv_header(header, match, pets):
    with pytest.raises(DataError, match=match):
        list_csv(pets(header=header))


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (
            [("cat/00.png", "cat", ""), ("cat/99.png", "cat", "")],
            r"list.csv: line 3: cat/99.png: no such file; paths are",
        ),
        ([("x.png", "a", ""), ("y.png", "a", "")], r"line 2: x.png: no such file \(one of 2 such rows\)"),
        ([("cat/00.png", "cat", "dev")], r"line 2: split is 'dev'; train, val, test or nothing is possible"),
        ([("cat/00.png", "", "")], r"line 2: label is empty"),
        ([("", "cat", "")], r"line 2: path is empty"),
        ([("cat/00.png", "cat")], r"line 2: 2 values, but the header has 3"),
        ([("cat/00.png", "cat", "", "")], r"line 2: 4 values, but the header has 3"),
        ([("cat/00.png", "cat", ""), ("./dog/../cat/00.png", "dog", "test")], r"line 3: \S+ stands in line 2 already"),
    ],
)
def test_csv_row(rows, match, pets):
    with pytest.raises(DataError, match=match):
        list_csv(pets(*rows))


def test_csv_with_the_true_class_of_each_train_image(pets):
    header = ("path", "label", "split", "clean_label")
    images = [("cat/00.png", "dog", "", "cat"), ("cat/01.png", "cat", "train", "cat")]
    listing = list_csv(pets(*images, ("dog/00.png", "dog", "val", ""), header=header))
    assert listing["train"] == FileList(["cat/00.png", "cat/01.png"], ["dog", "cat"], ["cat", "cat"])
    assert listing["val"] == FileList(["dog/00.png"], ["dog"], ["dog"])
    for row, match in (
        (("dog/00.png", "dog", "", ""), r"line 4: clean_label is empty; fill it in for all train images or remove the"),
        (
            ("dog/00.png", "dog", "val", "cat"),
            r"line 4: clean_label is 'cat' and label is 'dog', but labels of val are",
        ),
    ):
        with pytest.raises(DataError, match=match):
            list_csv(pets(*images, row, header=header))


def test_csv_that_is_not_text(pets):
    path = pets()
    path.write_bytes(b"path,label\n\xff\xfe\x00,a\n")
    with pytest.raises(DataError, match=r"list.csv: not UTF-8 text; save it as CSV in UTF-8"):
        list_csv(path)
    path.write_bytes(b'path,label\n"cat/00.png"x,cat\n')
    with pytest.raises(DataError, match=r"list.csv: line 2: not CSV: .*; correct the line"):
        list_csv(path)


def slowly_listed(root, part):
    """(name below the root, class) of ROOT/<part>/<class>/*, one Path for each."""
    found = []
    for folder in sorted(path for path in (root / part).iterdir() if path.is_dir() and path.name[0] != "."):
        images = [file for file in folder.iterdir() if file.name[0] != "." and file.suffix.lower() in SUFFIXES]
        found += [(str(file.relative_to(root)), folder.name) for file in sorted(images, key=lambda file: file.name)]
    return found


def test_the_order_of_points_is_that_of_the_names(tmp_path):
    """Run ids and checkpoints depend on it."""
    names = ["b.JPEG", "B.jpeg", "a10.png", "a2.png", "a-1.jpg", "é.jpg", "日.webp", " x.bmp", "notes.txt", ".a.jpg"]
    for part, classes in {"train": ["n2", "N10", "n1", "ö", "a b", ".git"], "test": ["n1"]}.items():
        for number, folder in enumerate(classes):
            (tmp_path / part / folder).mkdir(parents=True)
            for name in names[number % 3 :]:
                (tmp_path / part / folder / name).touch()
    (tmp_path / "train" / "linked").symlink_to(tmp_path / "train" / "n1")
    (tmp_path / "train" / "n2" / "0.png").symlink_to(tmp_path / "train" / "n1" / "a2.png")
    listing = list_folder(tmp_path)
    for part in ("train", "test"):
        assert list(zip(listing[part].names, listing[part].labels, strict=True)) == slowly_listed(tmp_path, part)
    assert len(listing["train"].names) == 9 + 7 + 6 + 8 + 7 + 6
    below = [name.removeprefix("train/") for name in listing["train"].names]
    assert list_folder(tmp_path / "train")["train"] == FileList(below, listing["train"].labels)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [(False, ("3cb603df66dbe16f", "0f9c01bda458aa8e")), (True, ("1c6c4a38097634e0", "2a485d605b3f7aa8"))],
)
def test_fingerprints_are_those_that_run_ids_have_been_made_of(stream, expected, tmp_path):
    """Those of the version that listed with a Path for each file."""
    for number in range(12):
        file = tmp_path / ("train" if number < 9 else "val") / f"c{number % 3}" / f"{number}.PNG"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(number))
    rows = [
        "path,label,split",
        "./train/c1/1.PNG,cat,",
        "train//c2/2.PNG,dog,test",
        f"{tmp_path}/val/c0/9.PNG,dog,train",
    ]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    for path, content in zip((tmp_path, tmp_path / "list.csv"), expected, strict=True):
        config = DatasetConfig(name="folder", path=str(path), image_size=8, stream=stream)
        assert pin_content(config).content == content


def test_files_are_listed_once_for_their_fingerprint_and_the_load_after_it(tmp_path, write_classes, monkeypatch):
    monkeypatch.setenv("AUTODO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(WORKERS_VARIABLE, "0")
    write_classes(tmp_path / "images", cat=4, dog=4)
    listed = []
    monkeypatch.setattr(sources, "list_images", lambda path: listed.append(path) or list_images(path))
    config = DatasetConfig(name="folder", path=str(tmp_path / "images"), image_size=8, stream=True)
    with shared_listing():
        pinned = pin_content(config)
        load(pinned)
        assert len(listed) == 1
        load(pinned)
        assert len(listed) == 2
        pin_content(config)
    assert len(listed) == 3
    (tmp_path / "images" / "cat" / "00.png").unlink()
    with pytest.raises(DataError, match="the images have changed since this run was planned"):
        load(pinned)
