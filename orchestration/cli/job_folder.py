"""The temporary folder that Ray unpacks a job's `--working-dir` into, and removes when it needs the room."""

import itertools

from autodo.errors import StoreError
from orchestration.store.store import Store

_FOLDER = ("runtime_resources", "working_dir_files")
"""Of Ray's session, on every node."""


def check_outlasts_job(store: Store) -> None:
    """Refuses a store whose results nobody would find.

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
