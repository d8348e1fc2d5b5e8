"""Checks of files before they are streamed: damage, tar shards, and which files are checked again."""

import errno
import io
import json
import math
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autodo.config.dataset import DatasetConfig
from autodo.data import DATASETS, load, pin_content
from autodo.data.readers.sources import list_shards
from autodo.data.stream import check, index
from autodo.data.stream.pool import WORKERS_VARIABLE
from autodo.errors import ConfigError, DataError
from tests.autodo.data.conftest import picture


@pytest.fixture
def checked(monkeypatch):
    """Sizes of the files that were decoded by checks, newest last."""
    seen = []

    def damage(content):
        seen.append(len(content))
        return original(content)

    original = check.damage
    monkeypatch.setattr(check, "damage", damage)
    return seen


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


DAMAGES = {
    "truncated": (truncate, "truncated"),
    "empty": (lambda file: file.write_bytes(b""), "not an image"),
    "text": (lambda file: file.write_text("cat"), "not an image"),
    "32-bit": (lambda file: Image.new("I", (9, 9)).save(file, "TIFF"), "32-bit pixels"),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
@pytest.mark.parametrize("workers", ["0", "2"])
def test_damaged_files_are_named_and_left_out(damage, workers, tree, stream, monkeypatch, caplog):
    monkeypatch.setenv(WORKERS_VARIABLE, workers)
    spoil, why = DAMAGES[damage]
    spoil(tree / "class-1" / "01.jpg")
    with pytest.raises(DataError, match=rf"^{tree}: 1 of 30 images are damaged: class-1/01.jpg \(.*{why}.*\); all are"):
        stream(tree)
    caplog.clear()
    dataset = stream(tree, damaged_limit=0.1)
    assert "left out: 1 of 30 images are damaged: class-1/01.jpg" in caplog.text
    assert "class-1/01.jpg" not in {*dataset.train.sources, *dataset.test.sources}
    assert len(dataset.train) + len(dataset.test) == 29
    (found,) = (line for line in index.index_file(tree, ".damaged.txt").read_text().splitlines())
    assert found.startswith("class-1/01.jpg (")


def test_sound_files_of_odd_kinds_are_used(tree, stream, pixels_of):
    picture(1).convert("CMYK").save(tree / "class-0" / "cmyk.jpg")
    picture(2).convert("L").save(tree / "class-0" / "gray.jpg")
    Image.fromarray(np.asarray(picture(3).convert("L")).astype(np.uint16) * 257).save(tree / "class-0" / "deep.png")
    picture(4).save(tree / "class-0" / "moving.gif", save_all=True, append_images=[picture(5)])
    dataset = stream(tree)
    held = stream(tree, stream=False)
    assert len(dataset.train) + len(dataset.test) == 34
    np.testing.assert_array_equal(pixels_of(dataset.train.images), held.train.images.read())


def test_many_damaged_files_are_counted_and_all_named_in_a_file(tree, stream):
    for file in (tree / "class-2").glob("*.jpg"):
        truncate(file)
    with pytest.raises(
        DataError, match=r"10 of 30 images are damaged: class-2/02.jpg \(.*\), .*, \.\.\.; all are"
    ) as error:
        stream(tree)
    assert "\n" not in str(error.value)
    assert "dataset.damaged_limit, the share that is left out (now 0.001)" in str(error.value)
    assert len(index.index_file(tree, ".damaged.txt").read_text().splitlines()) == 10


@pytest.mark.parametrize("shards", [False, True])
def test_a_class_that_is_damaged_as_a_whole_is_named_whatever_the_limit(shards, tree, tmp_path, stream, write_shards):
    for file in (tree / "class-2").glob("*.jpg"):
        truncate(file)
    path = write_shards(tree, tmp_path / "shards") if shards else tree
    with pytest.raises(
        DataError, match=rf"^{path}: all images of class 'class-2', of which there are 10, are damaged; "
    ):
        stream(path, damaged_limit=0.5)


def test_only_changed_files_are_checked_again(tree, stream, checked):
    stream(tree)
    assert len(checked) == 30
    stream(tree)
    assert len(checked) == 30
    picture(77).save(tree / "class-0" / "new.jpg")
    os.utime(tree / "class-1" / "01.jpg", ns=(1, 1))
    (tree / "class-0" / "00.jpg").unlink()
    (tree / "class-0" / "03.jpg").rename(tree / "class-0" / "renamed.jpg")
    stream(tree)
    assert len(checked) == 33
    truncate(tree / "class-0" / "06.jpg")
    with pytest.raises(DataError, match=r"class-0/06\.jpg"):
        stream(tree)
    assert len(checked) == 34
    with pytest.raises(DataError, match=r"class-0/06\.jpg"):
        stream(tree)
    assert len(checked) == 34
    picture(6).save(tree / "class-0" / "06.jpg")
    stream(tree)
    assert len(checked) == 35
    assert not index.index_file(tree, ".damaged.txt").exists()


@pytest.fixture
def fails(monkeypatch, clock):
    """Makes opening a file fail a number of times."""
    opened = Path.open

    def fail(one, times, error=errno.EIO):
        left = iter(range(times))

        def no_answer(file, *arguments, **options):
            if file == one and next(left, None) is not None:
                raise OSError(error, os.strerror(error), str(one))
            return opened(file, *arguments, **options)

        monkeypatch.setattr(Path, "open", no_answer)

    return fail


@pytest.mark.parametrize("shards", [False, True])
def test_a_file_that_cannot_be_read_for_a_while_is_checked_in_the_end(
    shards, tree, tmp_path, stream, write_shards, fails, clock, caplog
):
    path = write_shards(tree, tmp_path / "shards") if shards else tree
    fails(sorted(file for file in path.rglob("*") if file.is_file())[0], times=4)
    dataset = stream(path)
    assert len(dataset.train) + len(dataset.test) == 30
    assert clock.now == pytest.approx(20.1, abs=1e-3)
    assert caplog.messages == []


@pytest.mark.parametrize("shards", [False, True])
def test_a_file_that_cannot_be_read_is_an_error_at_any_limit_and_checking_continues_there(
    shards, tree, tmp_path, stream, write_shards, fails, checked
):
    path = write_shards(tree, tmp_path / "shards") if shards else tree
    one = sorted(file for file in path.rglob("*") if file.is_file())[-1]
    for error, tries in ((errno.EIO, "5 times in 20.1 s"), (errno.EACCES, "3 times in 1.1 s")):
        fails(one, times=5, error=error)
        why = rf"{os.strerror(error)} \(tried {tries}\)"
        with pytest.raises(DataError, match=rf"^{one}: cannot be read: {why}; once it can be, start the command again"):
            stream(path, damaged_limit=0.9)
    before = len(checked)
    fails(one, times=0)
    dataset = stream(path)
    assert len(dataset.train) + len(dataset.test) == 30
    assert before == 30 - (len(checked) - before) == (24 if shards else 29)


def test_each_of_two_lists_of_the_same_folder_has_an_index_of_its_own(tree, stream, checked):
    for name in ("a", "b"):
        files = sorted(tree.glob("*/*.jpg"))[name == "b" :: 2]
        rows = [f"{file.relative_to(tree)},{file.parent.name}" for file in files]
        (tree / f"{name}.csv").write_text("\n".join(["path,label", *rows]))
    for name in ("a", "b", "a", "b"):
        stream(tree / f"{name}.csv")
    assert len(checked) == 30


def test_an_interrupted_check_continues(tree, stream, checked, monkeypatch):
    monkeypatch.setattr("autodo.data.readers.sources._IMAGES_PER_CHECK", 4)
    counted = check.damage

    def interrupted(content):
        if len(checked) == 10:
            raise KeyboardInterrupt
        return counted(content)

    monkeypatch.setattr(check, "damage", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream(tree)
    monkeypatch.setattr(check, "damage", counted)
    stream(tree)
    assert len(checked) == 10 + 30 - 8


CHECK_SLOWLY = """
import sys, time
from autodo.config.dataset import DatasetConfig
from autodo.data import load
from autodo.data.readers import sources
from autodo.data.stream import check, index
index._SAVE_SECONDS, sources._IMAGES_PER_CHECK = 0.1, 1
decode = check.damage
def damage(content):
    time.sleep(0.1)
    print("checked", flush=True)
    return decode(content)
check.damage = damage
load(DatasetConfig(name="folder", path=sys.argv[1], image_size=24, stream=True))
"""


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_check_continues(ended_by, tree, stream, checked):
    command = [sys.executable, "-c", CHECK_SLOWLY, str(tree)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(15):
            assert process.stdout.readline() == "checked\n"
        process.send_signal(ended_by)
    assert process.returncode == -ended_by
    stream(tree)
    assert 10 < len(checked) < 25


def test_a_damaged_index_is_rebuilt(tree, stream, checked):
    stream(tree)
    index.index_file(tree).write_bytes(b"PAR1 or not")
    stream(tree)
    assert len(checked) == 60


def test_a_file_name_that_is_no_text(tree, stream):
    image = (tree / "class-0" / "00.jpg").read_bytes()
    Path(os.fsdecode(os.fsencode(tree) + b"/class-0/\xff.jpg")).write_bytes(image)
    with pytest.raises(DataError, match=r"the file name 'class-0/\\udcff.jpg' is not UTF-8; rename it"):
        stream(tree)


def test_a_cache_that_cannot_be_written(tree, stream, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AUTODO_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"Not a directory, when the images of .* were checked; .* AUTODO_CACHE names"):
        stream(tree)


# ----- the fingerprint


def test_content_changes_with_names_sizes_classes_and_sets_and_reads_no_file(tree, checked):
    config = DatasetConfig(name="folder", path=str(tree), image_size=8, stream=True)
    contents = [pin_content(config).content]
    for change in (
        lambda: (tree / "class-0" / "00.jpg").rename(tree / "class-0" / "99.jpg"),
        lambda: (tree / "class-0" / "99.jpg").rename(tree / "class-1" / "99.jpg"),
        lambda: (tree / "class-1" / "99.jpg").write_bytes(b"shorter"),
        (tree / "class-1" / "99.jpg").unlink,
    ):
        change()
        contents.append(pin_content(config).content)
    assert len(set(contents)) == 5
    os.utime(tree / "class-1" / "01.jpg")
    assert pin_content(config).content == contents[-1]
    assert checked == []


def test_a_pinned_config_refuses_other_images(tree, tmp_path, stream, write_shards):
    shards = write_shards(tree, tmp_path / "shards")
    for path in (tree, shards):
        pinned = pin_content(DatasetConfig(name="folder", path=str(path), image_size=8, stream=True))
        load(pinned)
        next(iter(sorted(path.rglob("*0.*")))).unlink()
        with pytest.raises(DataError, match=rf"^{path}: the images have changed since this run was planned"):
            load(pinned)


# ----- shards


def test_shards_are_read_as_webdataset_reads_them(tree, tmp_path, stream, write_shards, pixels_of):
    from webdataset.tariterators import group_by_keys, tar_file_expander

    shards = write_shards(tree, tmp_path / "shards")
    dataset = stream(shards)
    theirs = {}
    for shard in sorted(shards.glob("*.tar")):
        with shard.open("rb") as file:
            for sample in group_by_keys(tar_file_expander([{"url": shard.name, "stream": file}])):
                theirs[f"{shard.name}/{sample['__key__']}.jpg"] = sample["cls"].decode(), sample["jpg"]
    ours = {
        name: (dataset.class_names[label], dataset.train.images.files[number].content())
        for part in (dataset.train, dataset.test)
        for name, label, number in zip(part.sources, part.labels, part.images.index.tolist(), strict=True)
    }
    assert ours == theirs


def test_sets_by_the_names_of_shards(tree, tmp_path, stream, write_shards):
    root = tmp_path / "shards"
    for part in ("train", "val", "test"):
        write_shards(tree, root, part)
    dataset = stream(root)
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [30, 30, 30]
    assert {source.split("-")[0] for source in dataset.val.sources} == {"val"}


@pytest.mark.parametrize(
    "extra",
    [
        {"cls": lambda file: int(file.stem) % 10 + 5},
        {"json": lambda file: {"label": int(file.stem) % 10 + 5}},
        {"json": lambda file: {"cls": str(int(file.stem) % 10 + 5), "width": 3}},
    ],
)
def test_classes_that_are_numbers_are_in_the_order_of_numbers(extra, tree, tmp_path, stream, write_shards):
    dataset = stream(write_shards(tree, tmp_path / "shards", "any", **extra))
    assert dataset.class_names == tuple(str(number) for number in range(5, 15))


def test_classes_of_the_same_number_have_an_order_too(tree, tmp_path, stream, write_shards):
    dataset = stream(write_shards(tree, tmp_path / "shards", cls=lambda file: "0" * (int(file.stem) % 3) + "7"))
    assert dataset.class_names == ("007", "07", "7")


def test_a_shard_that_is_cut_off_is_not_used_at_all(tree, tmp_path, stream, write_shards):
    shards = write_shards(tree, tmp_path / "shards")
    last = sorted(shards.glob("*.tar"))[-1]
    with tarfile.open(last) as tar:
        names, ends = tar.getnames(), [member.offset_data + member.size for member in tar]
    for size in (ends[-1] - 7, ends[3], 512 * (ends[-1] // 512 + 1)):
        last.write_bytes(last.read_bytes()[:size])
        with pytest.raises(DataError, match=rf"of \d+ images are damaged: {last.name} \(.*; lists \d+ images\)"):
            stream(shards)
        dataset = stream(shards, damaged_limit=0.9)
        assert not any(source.startswith(last.name) for source in (*dataset.train.sources, *dataset.test.sources))
    assert len(names) > 8


def flip_a_bit_of_a_header(content, start):
    content[start + 5] ^= 1


def cut_within_a_header(content, start):
    del content[start + 100 :]


def cut_before_a_header(content, start):
    del content[start:]


def zeros_from_a_header_on(content, start):
    content[start:] = bytes(len(content) - start)


def a_second_archive_in_place_of_a_header(content, start):
    content[start:] = bytes(1024) + content[start:]


@pytest.mark.parametrize(
    "spoil",
    [
        flip_a_bit_of_a_header,
        cut_within_a_header,
        cut_before_a_header,
        zeros_from_a_header_on,
        a_second_archive_in_place_of_a_header,
    ],
)
def test_a_shard_whose_headers_are_damaged_is_not_used_at_all(spoil, tree, tmp_path, stream, write_shards):
    for file in tree.glob("*/*.jpg"):  # as large as photographs are: more is lost than fills a record
        file.write_bytes(file.read_bytes() + bytes(4000))
    shards = write_shards(tree, tmp_path / "shards")
    spoilt = sorted(shards.glob("*.tar"))[1]
    content = bytearray(spoilt.read_bytes())
    with tarfile.open(spoilt) as tar:
        spoil(content, tar.getmembers()[6].offset)
    spoilt.write_bytes(content)
    why = "its end is missing, or a header in it is damaged"
    with pytest.raises(DataError, match=rf"of \d+ images are damaged: {spoilt.name} \({why}; lists 3 images\)"):
        stream(shards)
    dataset = stream(shards, damaged_limit=0.9)
    assert not any(source.startswith(spoilt.name) for source in (*dataset.train.sources, *dataset.test.sources))


@pytest.mark.parametrize("record", [512, 10240, 2**18, 2**20])
def test_a_shard_may_be_filled_up_to_a_record_of_any_common_size(record, tree, tmp_path, stream, write_shards):
    shards = write_shards(tree, tmp_path / "shards")
    for shard in shards.glob("*.tar"):
        with tarfile.open(shard) as tar:
            last = tar.getmembers()[-1]
        end = last.offset_data + -(-last.size // 512) * 512
        shard.write_bytes(shard.read_bytes()[:end].ljust(-(-(end + 1024) // record) * record, b"\0"))
    dataset = stream(shards)
    assert len(dataset.train) + len(dataset.test) == 30


def add(shard, **files):
    """Puts files at the end of a shard."""
    with tarfile.open(shard, "a") as tar:
        for name, content in files.items():
            part = tarfile.TarInfo(name)
            part.size = len(content)
            tar.addfile(part, io.BytesIO(content))


def test_damaged_images_and_samples_without_a_class_are_left_out(tree, tmp_path, stream, write_shards):
    shards = write_shards(tree, tmp_path / "shards")
    image = (tree / "class-0" / "00.jpg").read_bytes()
    more = {
        "a.jpg": image[:300],
        "a.cls": b"class-0",
        "b.jpg": image,
        "c.PNG": image,
        "c.json": json.dumps({"label": "class-1"}).encode(),
        "d.jpg": image,
        "d.json": b"{",
        "e.cls": b"class-2",
        "__meta__": b"any",
        "._c.jpg": b"of a Macintosh",
    }
    add(sorted(shards.glob("*.tar"))[0], **more)
    dataset = stream(shards, damaged_limit=0.2)
    assert len(dataset.train) + len(dataset.test) == 31
    damaged = index.index_file(shards, ".damaged.txt").read_text().splitlines()
    assert [line.split(" (")[0] for line in damaged] == [f"train-00.tar/{name}.jpg" for name in "abd"]
    assert damaged[1].endswith("(no .cls or .json that gives its class)")


def test_images_in_shards_that_belong_to_no_sample_are_counted(tree, tmp_path, stream, write_shards):
    shards = write_shards(tree, tmp_path / "shards")
    image, shard = (tree / "class-0" / "00.jpg").read_bytes(), min(shards.glob("*.tar"))
    more = {
        "a.v2.jpg": image,
        "a.v2.cls": b"class-0",
        "b.jpg": image,
        "b.mask.png": image,
        "b.cls": b"class-1",
        "e.cls": b"class-2",
        "g.cls": b"class-2",
    }
    add(shard, **more)
    with tarfile.open(shard, "a") as tar:
        for name, kind in (("c.jpg", tarfile.LNKTYPE), ("d.jpg", tarfile.SYMTYPE), ("d.cls", tarfile.LNKTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "b" + name[1:]
            tar.addfile(link)
    with pytest.raises(DataError, match="3 of 34 images are damaged"):
        stream(shards)
    dataset = stream(shards, damaged_limit=0.2)
    assert len(dataset.train) + len(dataset.test) == 31
    damaged = index.index_file(shards, ".damaged.txt").read_text().splitlines()
    assert damaged == [
        "train-00.tar/a.v2.jpg (its name has two dots, and ends at the first one for its class)",
        "train-00.tar/c.jpg (a link; put the file in its place)",
        "train-00.tar/d.jpg (a link; put the file in its place)",
    ]


def test_a_name_that_a_shard_holds_twice(tree, tmp_path, stream, write_shards):
    shards = write_shards(tree, tmp_path / "shards")
    last = max(shards.glob("*.tar"))
    with tarfile.open(last) as tar:
        name = tar.getnames()[-1]
    add(last, **{name: b"class-0"})
    with pytest.raises(DataError, match=rf"{last.name} \(holds {name} twice; lists 5 images\); all are"):
        stream(shards)


def test_an_index_of_an_older_version_is_rebuilt(tree, stream, checked, monkeypatch):
    stream(tree)
    monkeypatch.setattr(index, "_SCHEMA", index._SCHEMA.with_metadata({"look": "another"}))
    stream(tree)
    stream(tree)
    assert len(checked) == 60


def test_a_shard_that_is_gone_counts_with_as_many_images_as_the_others(tree, tmp_path, stream, write_shards):
    shards = write_shards(tree, tmp_path / "shards")
    min(shards.glob("*.tar")).write_bytes(b"")
    with pytest.raises(DataError, match=r"8 of 30 images are damaged: train-00.tar \(empty file; lists 0 images\)"):
        stream(shards)


def test_wrong_names_of_shards(tree, tmp_path, stream, write_shards):
    shards = write_shards(tree, tmp_path / "shards")
    (shards / "x.tar").touch()
    with pytest.raises(DataError, match=r"/x.tar: not named by its set, as others are: train-\*.tar"):
        stream(shards)
    (shards / "x.tar").rename(shards / "train-99.tar.gz")
    with pytest.raises(DataError, match=r"/train-99.tar.gz: a compressed shard, .*; unpack it"):
        stream(shards)
    (shards / "train-99.tar.gz").rename(shards / ".hidden.tar.gz")
    with pytest.raises(DataError, match=r"tar shards can only be streamed: set dataset.stream=true"):
        stream(shards, stream=False)
    (shards / "lost+found").mkdir()
    message = rf"^{shards}/train-00.tar: lies beside the folder lost\+found, .*; move one of them away$"
    for settings in ({}, {"stream": False}):
        with pytest.raises(DataError, match=message):
            stream(shards, **settings)


@pytest.mark.parametrize("name", ["values-{}.tar", "trainees-{}.tar"])
def test_names_of_shards_that_only_begin_like_a_set(name, tree, tmp_path, stream, write_shards):
    shards = write_shards(tree, tmp_path / "shards")
    for number, shard in enumerate(sorted(shards.glob("*.tar"))):
        shard.rename(shards / name.format(number))
    dataset = stream(shards)
    assert dataset.val is None
    assert len(dataset.train) + len(dataset.test) == 30


@pytest.mark.parametrize("names", ["{}.tar", "{}_0.tar", "{}000.tar", "{}ing-0.tar", "{}idation-0.tar"])
def test_names_of_shards_that_are_of_a_set(names, tmp_path):
    for name in ("train", "val", "test"):
        (tmp_path / names.format(name)).touch()
    assert list_shards(tmp_path) == {name: [names.format(name)] for name in ("train", "val", "test")}


def test_a_link_to_itself_is_an_error_of_one_line(tree, tmp_path, stream, write_shards):
    shards = write_shards(tree, tmp_path / "data")
    (shards / "loop").symlink_to("loop")
    with pytest.raises(DataError, match=rf"^{shards}: cannot be read: .*Too many levels of symbolic links"):
        stream(shards)
    with pytest.raises(DataError, match=rf"^{shards}: cannot be read: .*Too many levels of symbolic links"):
        imagenet(shards)
    for shard in (shards / "loop", *shards.glob("*.tar")):
        shard.unlink()
    for part in ("train", "val"):
        (shards / part).mkdir()
        (shards / part / "loop").symlink_to("loop")
    with pytest.raises(DataError, match=rf"^{shards}: cannot be read: .*Too many levels of symbolic links"):
        imagenet(shards)


@pytest.mark.parametrize("name", ["images.tar", "images.tar.gz", "train.tar"])
def test_tar_files_beside_class_folders_are_not_shards(name, tree, stream):
    (tree / name).write_bytes(b"the archive that they came in")
    assert len(stream(tree).train) == 24


# ----- ImageNet


def imagenet(data_dir):
    return load(DatasetConfig(name="imagenet", image_size=24), data_dir=data_dir)


@pytest.mark.parametrize("below", ["", "imagenet"])
def test_imagenets_val_images_are_the_test_set(below, tree, tmp_path):
    root = tmp_path / "data" / below
    root.mkdir(parents=True)
    for part in ("train", "val"):
        for folder in tree.iterdir():
            wnid = root / part / f"n0000000{folder.name[-1]}"
            wnid.mkdir(parents=True)
            for file in list(folder.iterdir())[: 10 if part == "train" else 2]:
                (wnid / f"{wnid.name}_{file.stem}.JPEG").write_bytes(file.read_bytes())
    (root / "test").mkdir()
    (root / "test" / "ILSVRC2012_test_1.JPEG").touch()
    (root / "ILSVRC2012_devkit_t12.tar.gz").touch()
    dataset = imagenet(tmp_path / "data")
    assert dataset.class_names == ("n00000000", "n00000001", "n00000002")
    assert dataset.val is None
    assert (len(dataset.train), len(dataset.test)) == (30, 6)
    assert all(source.startswith("val/") for source in dataset.test.sources)


def test_imagenet_in_shards(tree, tmp_path, write_shards):
    shards = tmp_path / "shards"
    for part in ("train", "val"):
        write_shards(tree, shards, part)
    (shards / "devkit").mkdir()
    (shards / "ILSVRC2012_devkit_t12.tar.gz").touch()
    (shards / "meta.tar").touch()
    dataset = imagenet(shards)
    assert (len(dataset.train), dataset.val, len(dataset.test)) == (30, None, 30)
    (shards / "val").mkdir()
    with pytest.raises(DataError, match=r"/train-00.tar: lies beside the folder val, "):
        imagenet(shards)


def test_imagenet_that_is_not_there(tree, tmp_path):
    with pytest.raises(DataError, match=rf"^imagenet: {tree} and a folder imagenet in it hold neither train/<wnid>"):
        imagenet(tree)
    with pytest.raises(DataError, match=r"^imagenet: there is no directory \S+nowhere; pass --data-dir"):
        imagenet(tmp_path / "nowhere")
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "ILSVRC2012_val_1.JPEG").touch()
    with pytest.raises(DataError, match=r"/val: no class folders; sort its images into them"):
        imagenet(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "digits", "stream": True}, "path and content are for the datasets 'folder' and 'features' only"),
        ({"name": "imagenet"}, "image_size is required"),
        ({"name": "digits", "image_size": 32}, "image_size is for 'folder' and 'imagenet', not for 'digits'"),
        ({"name": "folder", "path": "a", "image_size": 8, "damaged_limit": 1.0}, "less than 1"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        DatasetConfig(**settings)


def test_random_crops_are_for_streamed_images():
    from autodo.config.recipes import build_run

    assert "imagenet" in DATASETS
    assert build_run("imagenet", "baseline").augmentation.resized_crop == (0.08, 1.0)
    with pytest.raises(ConfigError, match="resized_crop needs streamed images, and 'digits' is not streamed"):
        build_run("digits", "baseline", overrides={"augmentation.resized_crop": [0.2, 1]})


@pytest.mark.parametrize(
    "wrong",
    [
        0.5,
        [0.5],
        [0.9, 0.1],
        [0, 2],
        [0.0, 1.0],
        "0.08,1",
        ["a", "b"],
        ["0.1", "0.5"],
        [0.1, 0.5, 1],
        [0.1, True],
        {},
        True,
        [0.1, math.inf],
        [math.nan, 1],
        [],
    ],
    ids=str,
)
def test_wrong_random_crops_are_an_error_that_names_the_allowed_values(wrong):
    from autodo.config.recipes import build_run

    with pytest.raises(ConfigError) as error:
        build_run("imagenet", "baseline", overrides={"augmentation.resized_crop": wrong})
    assert str(error.value) == (
        "imagenet x baseline: augmentation.resized_crop: must be two numbers, the smallest and largest share of the "
        f"image area to crop, 0 < smallest <= largest <= 1, such as [0.08, 1.0], or null for the centre; not {wrong!r}"
    )
