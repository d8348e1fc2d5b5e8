import pytest

from autodo.data.listing import Item, list_csv, list_folder
from autodo.errors import DataError


def test_hidden_files_and_other_files_are_ignored(tmp_path, write_classes, write_image):
    write_classes(tmp_path, cat=1, dog=1)
    (tmp_path / "cat" / "notes.txt").write_text("tabby")
    (tmp_path / "README.md").write_text("pets")
    write_image(tmp_path / "cat" / ".hidden.png")
    write_image(tmp_path / ".cache" / "a.png")
    expected = [Item(tmp_path / name / "00.png", name) for name in ("cat", "dog")]
    assert list_folder(tmp_path) == {"train": expected, "val": [], "test": []}


@pytest.mark.parametrize("suffix", ["jpg", "JPG", "jpeg", "png", "bmp", "webp", "gif", "tif", "tiff"])
def test_suffixes(suffix, tmp_path, write_classes, write_image):
    write_image(tmp_path / "cat" / f"a.{suffix}")
    assert len(list_folder(tmp_path)["train"]) == 1


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
    assert list_csv(path)["train"] == [Item(tmp_path / "cat/00.png", "cat"), Item(tmp_path / "dog/00.png", "Dög")]


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (("file", "label"), r"line 1: the header is 'file,label'; path,label or path,label,split is needed"),
        (("path;label",), r"line 1: the header is 'path;label'; path,label or"),
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


def test_csv_that_is_not_text(pets):
    path = pets()
    path.write_bytes(b"path,label\n\xff\xfe\x00,a\n")
    with pytest.raises(DataError, match=r"list.csv: not UTF-8 text; save it as CSV in UTF-8"):
        list_csv(path)
    path.write_bytes(b'path,label\n"cat/00.png"x,cat\n')
    with pytest.raises(DataError, match=r"list.csv: line 2: not CSV: .*; correct the line"):
        list_csv(path)
