import os
import shutil

import pytest

from autodo.config.dataset import DatasetConfig
from autodo.data import folder_content, load, pin_content
from autodo.errors import DataError


def config(path):
    return DatasetConfig(name="folder", path=str(path), image_size=4)


@pytest.fixture
def pets(tmp_path, write_classes):
    """Class folders with a trusted val set."""
    write_classes(tmp_path / "pets" / "train", cat=6, dog=6)
    write_classes(tmp_path / "pets" / "val", cat=3, dog=3)
    return tmp_path / "pets"


def add(pets):
    shutil.copy(pets / "train/cat/00.png", pets / "train/cat/copy.png")


def remove(pets):
    (pets / "train/cat/00.png").unlink()


def rename(pets):
    (pets / "train/cat/00.png").rename(pets / "train/cat/99.png")


def move_to_another_class(pets):
    (pets / "train/cat/00.png").rename(pets / "train/dog/cat.png")


def move_to_another_set(pets):
    (pets / "train/cat/05.png").rename(pets / "val/cat/05.png")


def rename_a_class(pets):
    for part in ("train", "val"):
        (pets / part / "dog").rename(pets / part / "puppy")


def swap_two_images(pets):
    for old, new in (("cat/00.png", "x.png"), ("dog/00.png", "cat/00.png"), ("x.png", "dog/00.png")):
        (pets / "train" / old).rename(pets / "train" / new)


def edit_without_a_trace(pets):
    file = pets / "train/cat/00.png"
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = [
    add,
    remove,
    rename,
    move_to_another_class,
    move_to_another_set,
    rename_a_class,
    swap_two_images,
    edit_without_a_trace,
]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_images_have_another_content_and_a_pinned_config_refuses_them(change, pets):
    pinned = pin_content(config(pets))
    load(pinned)
    change(pets)
    assert folder_content(config(pets)) != pinned.content
    with pytest.raises(DataError, match=rf"^{pets}: the images have changed since this run was planned") as error:
        load(pinned)
    assert "\n" not in str(error.value)


def test_content_ignores_what_does_not_change_the_images(pets, monkeypatch):
    content = folder_content(config(pets))
    (pets / "README.md").write_text("pets")
    (pets / "train" / "cat" / ".thumbnails.png").write_bytes(b"hidden")
    os.utime(pets / "train/cat/00.png")
    assert folder_content(config(pets)) == content
    shutil.copytree(pets, pets.parent / "copy")
    assert folder_content(config(pets.parent / "copy")) == content
    monkeypatch.chdir(pets)
    assert folder_content(config(".")) == content


def test_csv(tmp_path, write_classes, write_csv):
    write_classes(tmp_path, cat=6, dog=6)
    header = ("path", "label", "split")
    rows = [(f"{name}/0{i}.png", name, "") for name in ("cat", "dog") for i in range(6)]
    pinned = pin_content(config(write_csv(tmp_path / "list.csv", header, *rows)))
    assert len(load(pinned).train) == 10
    others = [rows[:-1], rows[::-1], [(rows[0][0], "dog", ""), *rows[1:]], [(*rows[0][:2], "val"), *rows[1:]]]
    contents = {folder_content(config(write_csv(tmp_path / "list.csv", header, *other))) for other in others}
    assert len(contents | {pinned.content}) == 5


def test_only_folders_are_pinned_and_only_once(pets):
    digits = DatasetConfig(name="digits")
    assert pin_content(digits) is digits
    pinned = pin_content(config(pets))
    add(pets)
    assert pin_content(pinned) is pinned


def test_unreadable_image_is_named(pets):
    (pets / "train/cat/zz.png").symlink_to(pets / "nowhere.png")
    with pytest.raises(DataError, match=r"^\S*/train/cat/zz.png: cannot be read: No such file or directory; replace"):
        folder_content(config(pets))
