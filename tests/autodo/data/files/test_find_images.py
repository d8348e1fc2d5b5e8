from pathlib import Path

import pytest

from autodo.data.files.find_images import find_images
from autodo.errors import DataError


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.png", "b/1.JPG", "b/deep/3.gif", "b/.hidden.png", "b/.git/4.png", "b/notes.txt", "a.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("b/some.csv").write_text("who,path\nme,2.png\nyou, missing.png \nme,2.png\n\n")
    Path("empty").mkdir()


@pytest.mark.parametrize(
    ("places", "found"),
    [
        (["a.png"], ["a.png"]),
        (["b"], ["b/1.JPG", "b/2.png", "b/deep/3.gif"]),
        (["a.png", "b/", "./a.png"], ["a.png", "b/1.JPG", "b/2.png", "b/deep/3.gif"]),
        (["b/some.csv"], ["b/2.png", "b/missing.png"]),
        (["b/*"], ["b/1.JPG", "b/2.png"]),
        (["**/[23].*"], ["b/2.png", "b/deep/3.gif"]),
        (["b/notes.txt"], ["b/notes.txt"]),
    ],
)
def test_files_folders_globs_and_csv(places: list[str], found: list[str]) -> None:
    assert find_images(places) == found
    assert find_images([str(Path(place).absolute()) for place in places]) == [
        str(Path(name).absolute()) for name in found
    ]


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("nowhere", "nowhere: no such file or folder"),
        ("empty", "empty: no images in it"),
        ("x*.png", r"x\*\.png: nothing has such a name"),
        ("b/*.txt", r"b/\*\.txt: no images in it"),
        ("s3://bucket/photos", "is a URI; copy the images"),
    ],
)
def test_a_place_without_images_is_named(place: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        find_images(["a.png", place])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file\na.png\n", "line 1: the header is 'file'; one column must be named path"),
        ("path,x\n,1\n", "line 2: path is empty"),
        ("path,x\na.png\n", "line 2: 1 values, but the header has 2"),
        ("", "line 1: the header is ''"),
    ],
)
def test_a_csv_without_paths_is_named(text: str, problem: str) -> None:
    Path("bad.csv").write_text(text)
    with pytest.raises(DataError, match=f"bad.csv: {problem}"):
        find_images(["bad.csv"])
