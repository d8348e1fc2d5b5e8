"""What is read, sent ahead and written back, and when."""

import mmap
import os

import pytest
import torch
from torch import Tensor

from autodo.augment import affine
from autodo.config.bilevel import PointsConfig
from autodo.data.batches import Batch
from autodo.points.model import PointModel
from autodo.points.row_store import RowStore, StagedStore, build_store
from autodo.points.storage import ON_DEVICE, TableStorage
from autodo.points.table import PointTable


def columns() -> dict[str, Tensor]:
    return {"one": torch.arange(12.0).view(6, 2), "other": torch.arange(6)}


def staged() -> StagedStore:
    return StagedStore(columns(), {}, "cpu")


class File:
    """A mapped file that keeps what it is asked."""

    def __init__(self, size: int) -> None:
        self.size, self.asked = size, list[tuple[int, int, int]]()

    def __len__(self) -> int:
        return self.size

    def madvise(self, option: int, start: int, length: int) -> None:
        self.asked.append((option, start, length))


@pytest.mark.parametrize(("pages", "asks"), [(2, True), (3, False)])
def test_a_file_is_asked_for_rows_if_it_takes_half_of_the_memory_or_more(pages, asks, monkeypatch):
    """A file of a page and a half, of 100 bytes a row, where two or three pages are all the memory."""
    monkeypatch.setattr(os, "sysconf", lambda name: pages)
    size = mmap.PAGESIZE * 3 // 2
    file, other = File(size), torch.zeros(60, 25)
    store = RowStore({"here": other, "elsewhere": other}, {"here": file})
    store.will_need(torch.tensor([41, 0]), ("here", "elsewhere"))
    # Row 41 begins on the second page, which the file has half of.
    expected = [(mmap.MADV_WILLNEED, 0, size)]
    assert file.asked == (expected if asks else [])
    store.will_need(torch.tensor([0]), ("elsewhere",))
    assert file.asked == (expected if asks else [])


def test_rows_are_copies_by_name():
    store = RowStore(columns(), {})
    index = torch.tensor([4, 1])
    rows = store.read(index, ("one",))
    assert rows["one"].tolist() == [[8, 9], [2, 3]]
    assert list(rows) == ["one"]
    store.write(index, {"other": torch.tensor([-4, -1])})
    assert store.columns["other"].tolist() == [0, -1, 2, 3, -4, 5]
    assert rows["one"].tolist() == [[8, 9], [2, 3]]


def test_what_was_sent_ahead_is_what_is_read():
    store, index = staged(), torch.tensor([4, 1])
    store.prefetch(index, index, ("one",))
    store.columns["one"][4] = -1  # behind the store's back
    assert store.read(index, ("one",))["one"].tolist() == [[8, 9], [2, 3]]
    assert store.read(index, ("one",))["one"].tolist() == [[-1, -1], [2, 3]], "sent once, read once"
    store.prefetch(index, index, ("one",))
    assert store.read(index, ("one", "other"))["other"].tolist() == [4, 1], "more than was sent"


def test_two_are_on_their_way_at_most():
    store, given = staged(), [torch.tensor([n]) for n in range(3)]
    for index in given:
        store.prefetch(index, index, ("other",))
    store.columns["other"][:] = 9
    assert [store.read(index, ("other",))["other"].item() for index in given] == [9, 1, 2]


def test_what_was_sent_and_then_written_is_sent_again_and_the_rest_is_not():
    store, first, second = staged(), torch.tensor([0, 1]), torch.tensor([2, 3])
    store.prefetch(first, first, ("other",))
    store.prefetch(second, second, ("other",))
    store.columns["other"][2] = 9
    store.write(torch.tensor([1, 5]), {"other": torch.tensor([-1, -5])})
    assert store.read(first, ("other",))["other"].tolist() == [0, -1]
    assert store.read(second, ("other",))["other"].tolist() == [2, 3], "as it was sent"
    store.flush()
    assert store.columns["other"].tolist() == [0, -1, 9, 3, 4, -5]


def test_a_store_is_zeros_at_its_place(tmp_path):
    shapes = {"a": ((3, 2), torch.float16), "b": ((3,), torch.int32), "none": ((3, 0), torch.float32)}
    for storage in (ON_DEVICE, TableStorage("host"), TableStorage("file", tmp_path)):
        store = build_store(storage, shapes, "cpu")
        assert type(store) is RowStore
        assert {name: (tuple(c.shape), c.dtype) for name, c in store.columns.items()} == shapes
        assert not any(column.any() for column in store.columns.values())
        assert storage.off_device == (storage is not ON_DEVICE)
        store.write(torch.tensor([1]), {"a": torch.ones(1, 2, dtype=torch.float16)})
        assert store.columns["a"].tolist() == [[0, 0], [1, 1], [0, 0]]


def table(**options) -> PointTable:
    return PointTable(torch.zeros(9, 2).__getitem__, 9, (2,), **options)


def test_a_step_reads_nothing_again(monkeypatch):
    points, asked = table(), []
    read = points._store.read
    monkeypatch.setattr(points._store, "read", lambda index, names: asked.append(tuple(names)) or read(index, names))
    index = torch.tensor([3, 5])
    points.rows(index)
    points.rmsprop_step(index, torch.ones(2, 2), 0.1)
    assert asked == [("values", "last_touched"), ("square_average",)]
    points.rmsprop_step(index, torch.ones(2, 2), 0.1)
    assert asked[2:] == [("values", "last_touched", "square_average")], "they have moved"


def test_all_that_a_step_needs_comes_ahead_if_one_follows(monkeypatch):
    points, asked = table(), []
    monkeypatch.setattr(points._store, "prefetch", lambda index, host, names: asked.append(("prefetch", tuple(names))))
    monkeypatch.setattr(points._store, "will_need", lambda host, names: asked.append(("will_need", tuple(names))))
    index = torch.tensor([1])
    for moves in (True, False):
        points.prefetch(index, index, moves=moves)
        points.will_need(index, moves=moves)
    moved, read = ("values", "last_touched", "square_average"), ("values", "last_touched")
    assert asked == [("prefetch", moved), ("will_need", moved), ("prefetch", read), ("will_need", read)]


LABELS = torch.tensor([0, 3, 2, 2, 1, 0, 1])


def test_while_a_batch_is_worked_on_the_next_comes_and_the_one_after_it_is_looked_for(monkeypatch):
    model, seen = PointModel(PointsConfig(learn=("weight",)), LABELS, 4), []
    monkeypatch.setattr(model.table, "will_need", lambda host, moves: seen.append(("will_need", host.tolist(), moves)))

    def prefetch(index, host, moves):
        assert any(index is batch.points for batch in batches), "the very tensor that the rows are asked for with"
        seen.append(("prefetch", host.tolist(), moves))

    monkeypatch.setattr(model.table, "prefetch", prefetch)
    batches = [Batch(torch.tensor(points), len(points)) for points in ([0, 1], [2], [3, 4], [5])]
    for batch in model.prefetch(batches, moves=True):
        seen.append(("batch", batch.points.tolist()))
    assert seen == [
        ("will_need", [3, 4], True),
        ("prefetch", [2], True),
        ("batch", [0, 1]),
        ("will_need", [5], True),
        ("prefetch", [3, 4], True),
        ("batch", [2]),
        ("prefetch", [5], True),
        ("batch", [3, 4]),
        ("batch", [5]),
    ]


@pytest.mark.parametrize("config", [None, PointsConfig(learn=("augment",), shared=True)])
def test_of_one_row_or_none_nothing_comes_ahead(config, monkeypatch):
    model = PointModel(config, LABELS, 4)
    monkeypatch.setattr(model.table, "prefetch", None)
    monkeypatch.setattr(model.table, "will_need", None)
    batches = [Batch(torch.tensor([n]), 1) for n in range(4)]
    assert list(model.prefetch(batches, moves=True)) == batches


@pytest.mark.parametrize("learn", [("augment", "weight", "soft-label"), ("weight",)])
def test_what_lambda_says_of_many_points_comes_in_parts(learn, monkeypatch):
    model = PointModel(PointsConfig(learn=learn), LABELS, 4)
    generator = torch.Generator().manual_seed(0)
    rows = model.table.rows(torch.arange(7))
    model.table.rmsprop_step(torch.arange(7), torch.randn(rows.shape, generator=generator), lr=0.5)
    expected = model.view(torch.arange(2, 7))
    monkeypatch.setattr("autodo.points.model.ROW_CHUNK_SIZE", 3)
    found = model.view_on_host(range(2, 7))
    assert torch.equal(found.weights, expected.weights)
    assert torch.equal(found.log_targets, expected.log_targets)
    if expected.augment is None:
        assert found.augment is None
    else:
        assert torch.equal(found.augment, expected.augment)
    assert model.learns_augmentation == ("augment" in learn)


def test_columns_are_parts_in_the_order_in_which_they_are_learned():
    config = PointsConfig(learn=("augment", "weight", "soft-label"), gate_probability=0.4, label_smoothing=0.2)
    model = PointModel(config, LABELS, 4)
    rows = model.table.rows(torch.tensor([1]))
    assert rows.shape == (1, affine.COLUMNS + 1 + 4)
    assert torch.equal(rows[0, : affine.COLUMNS], affine.initial_row(0.4))
    assert rows[0, affine.COLUMNS] == 0
    view = model.view(torch.tensor([1]), rows + torch.arange(19.0))
    assert view.augment is not None
    assert torch.equal(view.augment[0], affine.initial_row(0.4) + torch.arange(14.0))
    assert float(view.weights) == pytest.approx(float(torch.log1p(torch.exp(torch.tensor(14.0)))) / 0.693147, rel=1e-5)
    expected = (rows[0, 15:] + torch.arange(15.0, 19.0)).log_softmax(0)
    assert torch.allclose(view.log_targets[0], expected)
