"""Reads, prefetches and writes of rows, and their order."""

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
from autodo.points.table import PointTable
from autodo.points.table_storage import ON_DEVICE, TableStorage


def columns() -> dict[str, Tensor]:
    return {"one": torch.arange(12.0).view(6, 2), "other": torch.arange(6)}


def staged() -> StagedStore:
    return StagedStore(columns(), {}, "cpu")


class File:
    """A mapped file that records advice."""

    def __init__(self, size: int) -> None:
        self.size, self.asked = size, list[tuple[int, int, int]]()

    def __len__(self) -> int:
        return self.size

    def madvise(self, option: int, start: int, length: int) -> None:
        self.asked.append((option, start, length))


@pytest.mark.parametrize(("pages", "asks"), [(2, True), (3, False)])
def test_only_files_larger_than_half_of_memory_are_advised(pages, asks, monkeypatch):
    """A file of one and a half pages with 100 bytes per row, with a memory of two or three pages."""
    monkeypatch.setattr(os, "sysconf", lambda name: pages)
    size = mmap.PAGESIZE * 3 // 2
    file, other = File(size), torch.zeros(60, 25)
    store = RowStore({"here": other, "elsewhere": other}, {"here": file})
    store.will_need(torch.tensor([41, 0]), ("here", "elsewhere"))
    # Row 41 is on the second page, of which the file has half.
    expected = [(mmap.MADV_WILLNEED, 0, size)]
    assert file.asked == (expected if asks else [])
    store.will_need(torch.tensor([0]), ("elsewhere",))
    assert file.asked == (expected if asks else [])


def test_rows_are_copies():
    store = RowStore(columns(), {})
    index = torch.tensor([4, 1])
    rows = store.read(index, ("one",))
    assert rows["one"].tolist() == [[8, 9], [2, 3]]
    assert list(rows) == ["one"]
    store.write(index, {"other": torch.tensor([-4, -1])})
    assert store.columns["other"].tolist() == [0, -1, 2, 3, -4, 5]
    assert rows["one"].tolist() == [[8, 9], [2, 3]]


def test_prefetched_rows_are_read_once():
    store, index = staged(), torch.tensor([4, 1])
    store.prefetch(index, index, ("one",))
    store.columns["one"][4] = -1  # behind the store's back
    assert store.read(index, ("one",))["one"].tolist() == [[8, 9], [2, 3]]
    assert store.read(index, ("one",))["one"].tolist() == [[-1, -1], [2, 3]], "prefetched rows are used once"
    store.prefetch(index, index, ("one",))
    assert store.read(index, ("one", "other"))["other"].tolist() == [4, 1], "not all columns were prefetched"


def test_at_most_two_prefetches_are_pending():
    store, given = staged(), [torch.tensor([n]) for n in range(3)]
    for index in given:
        store.prefetch(index, index, ("other",))
    store.columns["other"][:] = 9
    assert [store.read(index, ("other",))["other"].item() for index in given] == [9, 1, 2]


def test_a_write_invalidates_prefetched_rows():
    store, first, second = staged(), torch.tensor([0, 1]), torch.tensor([2, 3])
    store.prefetch(first, first, ("other",))
    store.prefetch(second, second, ("other",))
    store.columns["other"][2] = 9
    store.write(torch.tensor([1, 5]), {"other": torch.tensor([-1, -5])})
    assert store.read(first, ("other",))["other"].tolist() == [0, -1]
    assert store.read(second, ("other",))["other"].tolist() == [2, 3], "still the prefetched rows"
    store.flush()
    assert store.columns["other"].tolist() == [0, -1, 9, 3, 4, -5]


def test_a_new_store_contains_zeros(tmp_path):
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


def test_a_step_reuses_rows_that_were_read(monkeypatch):
    points, asked = table(), []
    read = points._store.read
    monkeypatch.setattr(points._store, "read", lambda index, names: asked.append(tuple(names)) or read(index, names))
    index = torch.tensor([3, 5])
    points.rows(index)
    points.rmsprop_step(index, torch.ones(2, 2), 0.1)
    assert asked == [("values", "last_touched"), ("square_average",)]
    points.rmsprop_step(index, torch.ones(2, 2), 0.1)
    assert asked[2:] == [("values", "last_touched", "square_average")], "the rows have changed"


def test_prefetch_for_update_includes_the_mean_of_squares(monkeypatch):
    points, asked = table(), []
    monkeypatch.setattr(points._store, "prefetch", lambda index, host, names: asked.append(("prefetch", tuple(names))))
    monkeypatch.setattr(points._store, "will_need", lambda host, names: asked.append(("will_need", tuple(names))))
    index = torch.tensor([1])
    for for_update in (True, False):
        points.prefetch(index, index, for_update=for_update)
        points.will_need(index, for_update=for_update)
    moved, read = ("values", "last_touched", "square_average"), ("values", "last_touched")
    assert asked == [("prefetch", moved), ("will_need", moved), ("prefetch", read), ("will_need", read)]


LABELS = torch.tensor([0, 3, 2, 2, 1, 0, 1])


def test_the_next_batch_is_prefetched_and_the_one_after_it_advised(monkeypatch):
    model, seen = PointModel(PointsConfig(learn=("weight",)), LABELS, 4), []
    monkeypatch.setattr(
        model.table, "will_need", lambda host, for_update: seen.append(("will_need", host.tolist(), for_update))
    )

    def prefetch(index, host, for_update):
        assert any(index is batch.points for batch in batches), "the tensor object that rows is called with"
        seen.append(("prefetch", host.tolist(), for_update))

    monkeypatch.setattr(model.table, "prefetch", prefetch)
    batches = [Batch(torch.tensor(points), len(points)) for points in ([0, 1], [2], [3, 4], [5])]
    for batch in model.prefetch(batches, for_update=True):
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
def test_shared_or_absent_rows_are_not_prefetched(config, monkeypatch):
    model = PointModel(config, LABELS, 4, shared_generator=lambda event, number: torch.Generator())
    monkeypatch.setattr(model.table, "prefetch", None)
    monkeypatch.setattr(model.table, "will_need", None)
    batches = [Batch(torch.tensor([n]), 1) for n in range(4)]
    assert list(model.prefetch(batches, for_update=True)) == batches


@pytest.mark.parametrize("learn", [("augment", "weight", "soft-label"), ("weight",)])
def test_views_on_the_host_are_read_in_chunks(learn, monkeypatch):
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


def test_columns_follow_the_order_of_the_learned_parts():
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
