"""The processes that decode images ahead: started once, shared by all streamed sets of this process.

A DataLoader's processes serve one iteration at a time; here train and val batches may be under way together. loky's
processes neither fork this one, which may have CUDA or Ray at work, nor import the script that it runs.
"""

import contextlib
import mmap
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from autodo.data.stream.crop import CropParameters
from autodo.data.stream.files import ImageFile, read_into
from autodo.errors import ConfigError, ImageLost

S = TypeVar("S")
T = TypeVar("T")

WORKERS_VARIABLE = "AUTODO_LOADER_WORKERS"
_SLOT_BYTES = 8 * 2**20
_MOST_AT_ONCE = 32
_TASKS_AHEAD = 4
_WATCH_SECONDS = 1.0


def loader_workers() -> int:
    """Processes that decode images; 0: none but this one.

    The environment variable AUTODO_LOADER_WORKERS if it is set, else as many as torch has threads in this process,
    which are those that the run was given.

    Raises:
        ConfigError: if the variable is no such number.
    """
    text = os.environ.get(WORKERS_VARIABLE)
    if not text:
        import torch

        return torch.get_num_threads()
    if not text.isdecimal():
        raise ConfigError(f"{WORKERS_VARIABLE}: {text!r} is not a number of processes, such as 8, or 0 for none")
    return int(text)


class Filled(NamedTuple):
    """What a worker says when it is done with a slot. An exception would bring its traceback along."""

    tried_again: list[str]
    lost: str | None = None
    """Why there are no pixels: an image cannot be read any more."""


class Pool:
    """Processes with memory that they share with this one, in slots for some images each.

    Args:
        workers: how many processes, at least 1.
        slot_bytes: size of a slot.
    """

    def __init__(self, workers: int, slot_bytes: int) -> None:
        from loky import ProcessPoolExecutor

        self.workers = workers
        self._stride = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        # Without a name, the memory goes with the last process that has it open, however these end.
        self._memory = os.memfd_create("autodo images")
        self._slots: list[mmap.mmap] = []
        self._free: list[int] = []
        shared = f"/proc/{os.getpid()}/fd/{self._memory}"
        self._executor = ProcessPoolExecutor(
            workers, timeout=None, initializer=_begin, initargs=(os.getpid(), shared, self._stride)
        )

    def submit(self, function: Callable[..., T], *args: Any) -> "Future[T]":
        """Has a worker call a function of a module."""
        future: Future[T] = self._executor.submit(function, *args)
        return future

    def map(self, function: Callable[[S], T], things: Iterable[S]) -> Iterator[T]:
        """What the workers' function gives for each thing, in order."""
        under_way: deque[Future[T]] = deque()
        try:
            for thing in things:
                under_way.append(self.submit(function, thing))
                if len(under_way) > _TASKS_AHEAD * self.workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for one in under_way:
                one.cancel()

    def read(
        self, images: Sequence[ImageFile], image_size: int, crops: CropParameters | None
    ) -> "tuple[Future[Filled], int]":
        """Has a worker decode images into a slot: what tells that it has, and the slot, which is to be given back."""
        slot = self._free.pop() if self._free else self._new_slot()
        return self.submit(_fill, slot, images, image_size, crops), slot

    def pixels(self, slot: int, count: int, image_size: int) -> NDArray[np.uint8]:
        """What was decoded, until the slot is given back. Shape: [count, 3, S, S]."""
        return _images_in(self._slots[slot], count, image_size)

    def give_back(self, future: "Future[Filled]", slot: int) -> None:
        """Lets a slot be used again, when nobody writes to it any more."""
        future.cancel()
        future.add_done_callback(lambda _: self._free.append(slot))

    def close(self) -> None:
        """Ends the processes, whatever they are at."""
        self._executor.shutdown(wait=True, kill_workers=True)
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def _new_slot(self) -> int:
        number = len(self._slots)
        os.ftruncate(self._memory, (number + 1) * self._stride)
        self._slots.append(mmap.mmap(self._memory, self._stride, offset=number * self._stride))
        return number


_POOLS: dict[tuple[int, int], Pool] = {}


def pool_for(workers: int, image_size: int = 1) -> Pool:
    """The pool of so many workers for images of this size; it starts if there is none."""
    key = workers, max(_SLOT_BYTES, 3 * image_size**2)
    if key not in _POOLS:
        _POOLS[key] = Pool(*key)
    return _POOLS[key]


def close_pools() -> None:
    """Ends all workers of this process."""
    while _POOLS:
        _POOLS.popitem()[1].close()


def images_at_once(image_size: int) -> int:
    """How many images a worker decodes at a time: enough that being told costs little, in no more than a slot."""
    return max(1, min(_MOST_AT_ONCE, _SLOT_BYTES // (3 * image_size**2)))


@contextlib.contextmanager
def telling_of_lost_workers(pool: Pool) -> Iterator[None]:
    """Tells of a worker that ended in the block; the next use starts new ones."""
    try:
        yield
    except BrokenProcessPool as error:
        close_pools()
        raise RuntimeError(
            "a process that decodes images was ended from outside, by the system if memory ran out; "
            f"--loader-workers, or {WORKERS_VARIABLE}, sets how many there are (now {pool.workers})"
        ) from error


# ----- in the workers

_shared: tuple[int, int] = (-1, 0)
_mapped: dict[int, mmap.mmap] = {}


def _begin(parent: int, shared: str, stride: int) -> None:
    global _shared  # noqa: PLW0603
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process ends it
    _shared = os.open(shared, os.O_RDWR), stride
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process soon after the one that started it, which may have been killed."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def _fill(slot: int, images: Sequence[ImageFile], image_size: int, crops: CropParameters | None) -> Filled:
    if slot not in _mapped:
        memory, stride = _shared
        _mapped[slot] = mmap.mmap(memory, stride, offset=slot * stride)
    try:
        return Filled(read_into(_images_in(_mapped[slot], len(images), image_size), images, crops))
    except ImageLost as error:
        return Filled([], str(error))


def _images_in(memory: mmap.mmap, count: int, image_size: int) -> NDArray[np.uint8]:
    return np.frombuffer(memory, np.uint8, count * 3 * image_size**2).reshape(count, 3, image_size, image_size)
