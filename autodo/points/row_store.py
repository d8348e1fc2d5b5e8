"""Tables with a row for each point, of which a batch's rows come to the training device and go back.

A GPU that trains beside tables in host memory never waits for them: the next batch's rows are sent while it works on
this one's, and what it changes is written back when it has got there.
"""

import mmap
import os
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from autodo.points.storage import TableStorage

Shapes = Mapping[str, tuple[Sequence[int], torch.dtype]]
PENDING = 2
"""Batches that may be on their way back."""


class RowStore:
    """Columns that are read and written where they lie.

    Args:
        columns: tables by name. Shape: [N, ...].
        files: of the columns that are mapped files.
    """

    def __init__(self, columns: Mapping[str, Tensor], files: Mapping[str, mmap.mmap]) -> None:
        self.columns = dict(columns)
        # The system asks 3 us of us for each stretch of a file: only where rows may really be on the disk.
        size = sum(map(len, files.values()))
        self._files = dict(files) if size > os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE / 2 else {}

    def read(self, index: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """A copy of the rows of these columns, and of others that came along, on the training device.

        Shape:
            index [B] int64 -> [B, ...].
        """
        return {name: self.columns[name].index_select(0, index) for name in names}

    def write(self, index: Tensor, rows: Mapping[str, Tensor]) -> None:
        """Replaces the rows.

        Shape:
            index [B] int64 without duplicates, rows [B, ...]; on the training device.
        """
        for name, values in rows.items():
            self.columns[name].index_copy_(0, index, values)

    def flush(self) -> None:
        """Returns when all that was written is in `columns`."""

    def prefetch(self, index: Tensor, host: Tensor, names: Sequence[str]) -> None:
        """Sends rows ahead that `read` is given next, if they are not on the device that trains.

        Args:
            index: the very tensor that `read` is given.
            host: the same numbers in host memory.
        """

    def will_need(self, host: Tensor, names: Sequence[str]) -> None:
        """Lets the system read rows from the disk that are fetched or read soon; returns at once."""
        for name in names:
            if name not in self._files:
                continue
            file, size = self._files[name], self.columns[name][0].nbytes
            for first, last in _stretches(host.sort().values * size, size):
                file.madvise(mmap.MADV_WILLNEED, first, min(last, len(file)) - first)


def _stretches(begins: Tensor, size: int) -> list[tuple[int, int]]:
    """Stretches of whole pages that hold things of `size` bytes at these increasing places; neighbours are one."""
    first = begins // mmap.PAGESIZE
    last = (begins + size - 1) // mmap.PAGESIZE + 1
    apart = first[1:] > last[:-1]
    edge = apart.new_ones(1)
    starts, ends = first[torch.cat([edge, apart])], last[torch.cat([apart, edge])]
    return list(zip((starts * mmap.PAGESIZE).tolist(), (ends * mmap.PAGESIZE).tolist(), strict=True))


class _PendingRead(NamedTuple):
    """Rows on their way to the device."""

    asked: Tensor
    host: Tensor
    rows: dict[str, Tensor]
    event: torch.cuda.Event | None


class _PendingWrite(NamedTuple):
    """Rows on their way back."""

    host: Tensor
    rows: dict[str, Tensor]
    event: torch.cuda.Event | None


class StagedStore(RowStore):
    """Columns on the host, while a GPU trains: rows pass through pinned memory, on a stream beside the training's.

    Rows that are on their way back are never read as they were before, whatever order things are asked for in. With a
    CPU for device there is nothing to pass through, and the order of things is the same.
    """

    def __init__(
        self, columns: Mapping[str, Tensor], files: Mapping[str, mmap.mmap], device: torch.device | str
    ) -> None:
        super().__init__(columns, files)
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._coming: list[_PendingRead] = []
        self._going: deque[_PendingWrite] = deque()
        self._last_read: tuple[Tensor, Tensor] | None = None

    def prefetch(self, index: Tensor, host: Tensor, names: Sequence[str]) -> None:
        # What was sent before and passed over will not be asked for any more.
        self._coming = [*self._coming[-1:], self._send(index, host, names)]

    def read(self, index: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        come = next((coming for coming in self._coming if coming.asked is index), None)
        if come is None or not come.rows.keys() >= set(names):
            come = self._send(index, self._host_of(index) if come is None else come.host, names)
        self._coming = [coming for coming in self._coming if coming.asked is not index]
        if come.event is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(come.event)
            for rows in come.rows.values():
                rows.record_stream(current)
        self._last_read = (index, come.host)
        return come.rows

    def write(self, index: Tensor, rows: Mapping[str, Tensor]) -> None:
        host = self._host_of(index)
        self._coming = [coming for coming in self._coming if not _meet(coming.host, host)]
        if self._stream is None:
            self._going.append(_PendingWrite(host, dict(rows), None))
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
                self._going.append(_PendingWrite(host, pinned, self._stream.record_event()))
        while len(self._going) > PENDING:
            self._put_back()

    def flush(self) -> None:
        while self._going:
            self._put_back()

    def _send(self, index: Tensor, host: Tensor, names: Sequence[str]) -> _PendingRead:
        if any(_meet(going.host, host) for going in self._going):
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

    def _put_back(self) -> None:
        going = self._going.popleft()
        if going.event is not None:
            going.event.synchronize()
        super().write(going.host, going.rows)

    def _host_of(self, index: Tensor) -> Tensor:
        """The same numbers in host memory; of what was read last without waiting for the device."""
        if self._last_read is not None and self._last_read[0] is index:
            return self._last_read[1]
        return index.cpu()


def _meet(one: Tensor, other: Tensor) -> bool:
    return bool(torch.isin(one, other).any())


def build_store(storage: TableStorage, shapes: Shapes, device: torch.device | str) -> RowStore:
    """Allocates columns of zeros of the given shapes [N, ...] and types.

    Raises:
        ConfigError: if there is no room for a file.
    """
    tables = {name: storage.allocate(shape, dtype, device) for name, (shape, dtype) in shapes.items()}
    columns = {name: rows for name, (rows, _) in tables.items()}
    files = {name: file for name, (_, file) in tables.items() if file is not None}
    if storage.kind != "device" and torch.device(device).type == "cuda":
        return StagedStore(columns, files, device)
    return RowStore(columns, files)
