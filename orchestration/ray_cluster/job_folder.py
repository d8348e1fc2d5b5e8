"""Check that a store does not lie in the temporary folder of a Ray job.

Ray unpacks a job's `--working-dir` into it, and removes it when it needs the room.
"""

import itertools

from autodo.errors import StoreError
from orchestration.store.store import Store

_FOLDER = ("runtime_resources", "working_dir_files")
"""Path of such folders within Ray's session, on every node."""


def check_outlasts_job(store: Store) -> None:
    """Refuse a store that would be deleted with the Ray job.

    Raises:
        StoreError: if the store lies in such a folder, as a relative path does in a job.
    """
    path = store.root.local
    if path is None:
        return
    parts = path.resolve().parts
    if _FOLDER in itertools.pairwise(parts):
        raise StoreError(
            f"{store}: lies in {path.resolve()}, the temporary folder of this Ray job, and would vanish with it; give "
            "--store an absolute path that all nodes share, or a URI such as s3://bucket/folder"
        )
