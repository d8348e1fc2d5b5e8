"""Worker processes that decode images ahead: started once and shared by all streamed sets of this process.

Torch's DataLoader serves one pass at a time, whereas train and val batches are decoded together here. Its workers
import torch (twice the memory each) and the script that started them, and pass batches through /dev/shm, of which a
container may have only 64 MB. loky's processes neither fork this one, which may use CUDA or Ray, nor import its script.
"""

import contextlib
import itertools
import mmap
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from typing import NamedTuple, TypeVar

import numpy as np

from autodo.data.images.crop import Crop
from autodo.data.images.image_set import Pixels
from autodo.data.stream.image_files import ImageFile, read_into
from autodo.errors import ConfigError, ImageLost

S = TypeVar("S")
T = TypeVar("T")

WORKERS_VARIABLE = "AUTODO_LOADER_WORKERS"
_SLOT_BYTES = 8 * 2**20
_MAX_CHUNK_IMAGES = 32
_WATCH_SECONDS = 1.0
_KEPT_BYTES = 24 * 2**20
"""Larger than any buffer of a photograph; glibc adapts to a freed block up to 32 MB."""


def loader_workers() -> int:
    """Number of processes that decode images; 0: this process decodes them itself.

    The environment variable AUTODO_LOADER_WORKERS if it is set, else torch's number of threads, which is the number of
    CPUs that the run was given.

    Raises:
        ConfigError: if the variable is not a number.
    """
    text = os.environ.get(WORKERS_VARIABLE)
    if not text:
        import torch

        return torch.get_num_threads()
    if not text.isdecimal():
        raise ConfigError(f"{WORKERS_VARIABLE}: {text!r} is not a number of processes, such as 8, or 0 for none")
    return int(text)


def chunk_images(image_size: int) -> int:
    """Number of images per task: enough to make its overhead small, at most what fits in a slot."""
    return max(1, min(_MAX_CHUNK_IMAGES, _SLOT_BYTES // (3 * image_size**2)))


class DecodeResult(NamedTuple):
    """A worker's report on a slot. An exception would bring its traceback along."""

    retried: list[str]
    lost: str | None = None
    """Why there are no pixels: an image can no longer be read."""


class DecoderPool:
    """Worker processes and memory shared with them, in slots of a few images each.

    Args:
        workers: number of processes, at least 1.
        slot_bytes: size of a slot.
    """

    def __init__(self, workers: int, slot_bytes: int) -> None:
        from loky import ProcessPoolExecutor

        self.workers = workers
        self._stride = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        # Memory without a name is freed with the last process that has it open, however these end.
        self._memory = os.memfd_create("autodo images")
        self._slots: list[mmap.mmap] = []
        self._free: list[int] = []
        shared = f"/proc/{os.getpid()}/fd/{self._memory}"
        self._executor = ProcessPoolExecutor(
            workers, timeout=None, initializer=_start_worker, initargs=(os.getpid(), shared, self._stride)
        )
        resource_tracker.ensure_running()  # which unblocks signals when it starts
        with _blocked_interrupts():
            self._executor.submit(int)  # the first task starts all processes

    def map(self, function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
        """Results of a module's function for each item, computed by the workers, in order."""
        with _explain_killed_worker(self):
            yield from self._executor.map(function, items)

    def decode(
        self, chunks: Iterable[Sequence[ImageFile]], image_size: int, crops: Crop | None, ahead: int
    ) -> Generator[tuple[Pixels, list[str]], None, None]:
        """Decodes chunks of at most `chunk_images` images in the workers, in order, `ahead` chunks before their use.

        Yields:
            pixels [n, 3, S, S] of a chunk, valid until the next step, and a line on each file that was retried.
        Raises:
            ImageLost: if an image can no longer be read.
            RuntimeError: if a worker was killed.
        """
        coming = iter(chunks)
        pending: deque[tuple[Future[DecodeResult], int, int]] = deque()
        try:
            with _explain_killed_worker(self):
                while True:
                    for chunk in itertools.islice(coming, ahead - len(pending)):
                        slot = self._free.pop() if self._free else self._new_slot()
                        future = self._executor.submit(_decode_into, slot, chunk, image_size, crops)
                        pending.append((future, slot, len(chunk)))
                    if not pending:
                        return
                    future, slot, count = pending[0]
                    result = future.result()
                    if result.lost is not None:
                        raise ImageLost(result.lost)
                    yield _pixels_in(self._slots[slot], count, image_size), result.retried
                    self._release(*pending.popleft())
        finally:
            for abandoned in pending:
                self._release(*abandoned)

    def close(self) -> None:
        """Ends the processes immediately."""
        self._executor.shutdown(wait=True, kill_workers=True)
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def _release(self, future: "Future[DecodeResult]", slot: int, count: int) -> None:
        """Makes a slot free as soon as no worker writes to it."""
        future.cancel()
        future.add_done_callback(lambda _: self._free.append(slot))

    def _new_slot(self) -> int:
        number = len(self._slots)
        os.ftruncate(self._memory, (number + 1) * self._stride)
        self._slots.append(mmap.mmap(self._memory, self._stride, offset=number * self._stride))
        return number


_POOLS: dict[tuple[int, int], DecoderPool] = {}


def pool_for(workers: int, image_size: int = 1) -> DecoderPool:
    """The pool with this many workers for images of this size, started at first use."""
    key = workers, max(_SLOT_BYTES, 3 * image_size**2)
    if key not in _POOLS:
        _POOLS[key] = DecoderPool(*key)
    return _POOLS[key]


def close_pools() -> None:
    """Ends all workers of this process."""
    while _POOLS:
        _POOLS.popitem()[1].close()


@contextlib.contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Blocks SIGINT in this thread, and for good in the processes started by the block, which this one ends.

    Ctrl-C in a terminal goes to all processes. In this one it is only delayed.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _explain_killed_worker(pool: DecoderPool) -> Iterator[None]:
    """Explains the end of a worker in the block; the next use starts new ones."""
    try:
        yield
    except BrokenProcessPool as error:
        close_pools()
        raise RuntimeError(
            "a process that decodes images was killed from outside, by the system if memory ran out; "
            f"--loader-workers, or {WORKERS_VARIABLE}, sets how many there are (now {pool.workers})"
        ) from error


# ----- in the workers

_shared: tuple[int, int] = (-1, 0)
_mapped: dict[int, mmap.mmap] = {}


def _start_worker(parent: int, shared: str, stride: int) -> None:
    global _shared  # noqa: PLW0603
    # Once a block of this size has been freed, malloc keeps freed memory for the next image. Otherwise every image has
    # its pages mapped again, which takes as long as two thirds of the decoding.
    bytearray(_KEPT_BYTES)
    _shared = os.open(shared, os.O_RDWR), stride
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    """Ends this process soon after its parent, which may have been killed."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def _decode_into(slot: int, images: Sequence[ImageFile], image_size: int, crops: Crop | None) -> DecodeResult:
    if slot not in _mapped:
        memory, stride = _shared
        _mapped[slot] = mmap.mmap(memory, stride, offset=slot * stride)
    try:
        return DecodeResult(read_into(_pixels_in(_mapped[slot], len(images), image_size), images, crops))
    except ImageLost as error:
        return DecodeResult([], str(error))


def _pixels_in(memory: mmap.mmap, count: int, image_size: int) -> Pixels:
    return np.frombuffer(memory, np.uint8, count * 3 * image_size**2).reshape(count, 3, image_size, image_size)
