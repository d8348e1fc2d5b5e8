"""Where tables of points lie: on the training device, in host memory, or in a file that is mapped into memory."""

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
    """Where tables are kept.

    Args:
        folder: of the files; the system's folder for temporary files if None.
    """

    kind: LambdaStorage = "device"
    folder: StrPath | None = None

    @property
    def off_device(self) -> bool:
        """Whether tables are kept that may be too large to be held twice in memory."""
        return self.kind != "device"

    def allocate(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, mmap.mmap | None]:
        """A table of zeros. In host memory and files it takes up room page by page, as it is written to.

        Args:
            device: that trains.
        Raises:
            ConfigError: if there is no room for the file.
        """
        size = math.prod(shape) * dtype.itemsize
        if self.kind == "device" or size == 0:
            return torch.zeros(*shape, dtype=dtype, device=device if self.kind == "device" else "cpu"), None
        file = _mapped(size, self.folder) if self.kind == "file" else None
        # numpy's zeros are given by the system when they are first written to; torch's are written at once.
        memory = np.zeros(size, dtype=np.uint8) if file is None else file
        return torch.frombuffer(memory, dtype=dtype).view(*shape), file

    def allocate_on_host(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A table on the host to be filled, which takes no more memory than those of this place do."""
        return self.allocate(shape, dtype)[0]


ON_DEVICE = TableStorage()


def _mapped(size: int, folder: StrPath | None) -> mmap.mmap:
    """A file without a name: it is gone with the process, however that ends."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # All of its room now: a mapped page that a full disk has no room for kills the process.
            os.posix_fallocate(file.fileno(), 0, size)
            memory = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise ConfigError(
            f"lambda storage 'file': {os.fspath(folder or tempfile.gettempdir())} has no room for a file of "
            f"{size / 1e9:.1f} GB ({error.strerror}); TMPDIR names another folder"
        ) from None
    # Rows are read in random order: what lies beside them on the disk need not come along.
    memory.madvise(mmap.MADV_RANDOM)
    return memory
