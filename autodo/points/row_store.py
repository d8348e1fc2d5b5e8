"""Storage of tables with a row per point, from which the rows of a batch go to the training device and back.

A GPU never waits for tables in host memory: the rows of the next batch are sent while it works on this one, and
changed rows are written to the table once they have arrived in host memory.
"""

import mmap
import os
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from autodo.points.table_storage import TableStorage

Shapes = Mapping[str, tuple[Sequence[int], torch.dtype]]
MAX_PENDING_WRITES = 2
"""Batches whose rows may be on their way back."""


class RowStore:
    """Columns that are read and written in place.

    Args:
        columns: tables by name. Shape: [N, ...].
        files: mapped files of columns, by name.
    """

    def __init__(self, columns: Mapping[str, Tensor], files: Mapping[str, mmap.mmap]) -> None:
        self.columns = dict(columns)
        # Advice takes 3 us per range of a file, so it is given only if rows may really be on disk.
        size = sum(map(len, files.values()))
        self._files = dict(files) if size > os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE / 2 else {}

    def read(self, index: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Copy rows of these columns, and perhaps of others, to the training device.

        Shape:
            index [B] int64 -> [B, ...].
        """
        return {name: self.columns[name].index_select(0, index) for name in names}

    def write(self, index: Tensor, rows: Mapping[str, Tensor]) -> None:
        """Replace rows.

        Shape:
            index [B] int64 without duplicates, rows [B, ...]; on the training device.
        """
        for name, values in rows.items():
            self.columns[name].index_copy_(0, index, values)

    def flush(self) -> None:
        """Wait until everything written is in `columns`."""

    def prefetch(self, index: Tensor, host: Tensor, names: Sequence[str]) -> None:
        """Start sending rows that `read` will need next, if they are not on the training device.

        Args:
            index: the tensor object that `read` will be called with.
            host: the same numbers in host memory.
        """

    def will_need(self, host: Tensor, names: Sequence[str]) -> None:
        """Advise the system to read rows from disk that will be needed soon; returns at once."""
        for name in names:
            if name not in self._files:
                continue
            file, size = self._files[name], self.columns[name][0].nbytes
            for first, last in _page_ranges(host.sort().values * size, size):
                file.madvise(mmap.MADV_WILLNEED, first, min(last, len(file)) - first)


def _page_ranges(offsets: Tensor, size: int) -> list[tuple[int, int]]:
    """Ranges of whole pages that contain items of `size` bytes at increasing offsets; adjacent ranges are merged."""
    first = offsets // mmap.PAGESIZE
    last = (offsets + size - 1) // mmap.PAGESIZE + 1
    apart = first[1:] > last[:-1]
    edge = apart.new_ones(1)
    starts, ends = first[torch.cat([edge, apart])], last[torch.cat([apart, edge])]
    return list(zip((starts * mmap.PAGESIZE).tolist(), (ends * mmap.PAGESIZE).tolist(), strict=True))


class _PendingRead(NamedTuple):
    """Rows on their way to the device."""

    requested: Tensor
    host: Tensor
    rows: dict[str, Tensor]
    event: torch.cuda.Event | None


class _PendingWrite(NamedTuple):
    """Rows on their way back to the host."""

    host: Tensor
    rows: dict[str, Tensor]
    event: torch.cuda.Event | None


class StagedStore(RowStore):
    """Columns on the host for training on a GPU: rows pass through pinned memory, on a stream of their own.

    Rows on their way back are never read in their old state, whatever the order of calls. With a CPU as device,
    nothing is copied, and the order of operations is the same.
    """

    def __init__(
        self, columns: Mapping[str, Tensor], files: Mapping[str, mmap.mmap], device: torch.device | str
    ) -> None:
        super().__init__(columns, files)
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._reads: list[_PendingRead] = []
        self._writes: deque[_PendingWrite] = deque()
        self._last_read: tuple[Tensor, Tensor] | None = None

    def prefetch(self, index: Tensor, host: Tensor, names: Sequence[str]) -> None:
        # An earlier prefetch that was skipped will not be read any more.
        self._reads = [*self._reads[-1:], self._send(index, host, names)]

    def read(self, index: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        found = next((pending for pending in self._reads if pending.requested is index), None)
        if found is None or not found.rows.keys() >= set(names):
            found = self._send(index, self._host_of(index) if found is None else found.host, names)
        self._reads = [pending for pending in self._reads if pending.requested is not index]
        if found.event is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(found.event)
            for rows in found.rows.values():
                rows.record_stream(current)
        self._last_read = (index, found.host)
        return found.rows

    def write(self, index: Tensor, rows: Mapping[str, Tensor]) -> None:
        host = self._host_of(index)
        self._reads = [pending for pending in self._reads if not _overlap(pending.host, host)]
        if self._stream is None:
            self._writes.append(_PendingWrite(host, dict(rows), None))
        else:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                pinned = {
                    name: torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
                    for name, values in rows.items()
                }
                for name, values in rows.items():
                    pinned[name].copy_(values, non_blocking=True)
                    values.record_stream(self._stream)
                self._writes.append(_PendingWrite(host, pinned, self._stream.record_event()))
        while len(self._writes) > MAX_PENDING_WRITES:
            self._finish_write()

    def flush(self) -> None:
        while self._writes:
            self._finish_write()

    def _send(self, index: Tensor, host: Tensor, names: Sequence[str]) -> _PendingRead:
        if any(_overlap(pending.host, host) for pending in self._writes):
            self.flush()
        if self._stream is None:
            return _PendingRead(index, host, super().read(host, names), None)
        rows = {}
        with torch.cuda.stream(self._stream):
            for name in names:
                column = self.columns[name]
                pinned = torch.empty(len(host), *column.shape[1:], dtype=column.dtype, pin_memory=True)
                torch.index_select(column, 0, host, out=pinned)
                rows[name] = pinned.to(self._device, non_blocking=True)
            return _PendingRead(index, host, rows, self._stream.record_event())

    def _finish_write(self) -> None:
        pending = self._writes.popleft()
        if pending.event is not None:
            pending.event.synchronize()
        super().write(pending.host, pending.rows)

    def _host_of(self, index: Tensor) -> Tensor:
        """Index in host memory; for the last read without waiting for the device."""
        if self._last_read is not None and self._last_read[0] is index:
            return self._last_read[1]
        return index.cpu()


def _overlap(one: Tensor, other: Tensor) -> bool:
    return bool(torch.isin(one, other).any())


def build_store(storage: TableStorage, shapes: Shapes, device: torch.device | str) -> RowStore:
    """Allocate columns of zeros with the given shapes [N, ...] and types.

    Raises:
        ConfigError: if there is no room for a file.
    """
    tables = {name: storage.allocate(shape, dtype, device) for name, (shape, dtype) in shapes.items()}
    columns = {name: rows for name, (rows, _) in tables.items()}
    files = {name: file for name, (_, file) in tables.items() if file is not None}
    if storage.kind != "device" and torch.device(device).type == "cuda":
        return StagedStore(columns, files, device)
    return RowStore(columns, files)
