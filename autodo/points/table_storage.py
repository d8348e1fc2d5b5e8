"""Storage of a table of points: on the training device, in host memory, or in a memory-mapped file."""

import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from autodo.config.bilevel import LambdaStorage
from autodo.errors import ConfigError
from autodo.io.storage import StrPath


class TableStorage(NamedTuple):
    """Place of a table, which changes no result.

    Args:
        folder: folder of the files; None: the folder for temporary files.
    """

    kind: LambdaStorage = "device"
    folder: StrPath | None = None

    @property
    def off_device(self) -> bool:
        """Whether a table may be too large to be in memory twice."""
        return self.kind != "device"

    def allocate(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, mmap.mmap | None]:
        """Allocate a table of zeros. In host memory and files, pages are used when they are first written.

        Args:
            device: training device.
        Returns:
            the table, and its mapped file if it is one.
        Raises:
            ConfigError: if there is no room for the file.
        """
        size = math.prod(shape) * dtype.itemsize
        if self.kind == "device" or size == 0:
            return torch.zeros(*shape, dtype=dtype, device=device if self.kind == "device" else "cpu"), None
        file = _mapped(size, self.folder) if self.kind == "file" else None
        # numpy's zeros take memory when they are first written; torch's are written at once.
        memory = np.zeros(size, dtype=np.uint8) if file is None else file
        return torch.frombuffer(memory, dtype=dtype).view(*shape), file

    def allocate_on_host(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Allocate a table on the host, to read a checkpoint into."""
        return self.allocate(shape, dtype)[0]


ON_DEVICE = TableStorage()


def _mapped(size: int, folder: StrPath | None) -> mmap.mmap:
    """Map a file without a name, which vanishes with the process, however that ends."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # Allocate everything now: writing to a mapped page on a full disk kills the process.
            os.posix_fallocate(file.fileno(), 0, size)
            memory = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise ConfigError(
            f"lambda storage 'file': {os.fspath(folder or tempfile.gettempdir())} has no room for a file of "
            f"{size / 1e9:.1f} GB ({error.strerror}); TMPDIR names another folder"
        ) from None
    # Rows are read in random order, so reading ahead is useless.
    memory.madvise(mmap.MADV_RANDOM)
    return memory
