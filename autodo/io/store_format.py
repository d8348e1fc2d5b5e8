"""Format version of a store: STORE/store.json contains `{"format": 2}`.

A program uses stores of its own format and earlier ones, and refuses later ones. Raise FORMAT for a change that would
make an older program misread or damage a store; a new column or setting does not need that.
"""

import json

from autodo.errors import StoreRefused
from autodo.io.storage import Location

FILE = "store.json"
FORMAT = 2
"""1: stores without the file. 2: the file states the format."""


def check_format(root: Location) -> int:
    """Format of the store at `root`; 1 if there is no file, as for a store that does not exist yet.

    Raises:
        StoreRefused: if the format is later than FORMAT, or the file is damaged.
        StoreError: if the storage does not answer.
    """
    file = root / FILE
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return 1
    try:
        number = json.loads(content)["format"]
        if type(number) is not int or number < 1:
            raise ValueError
    except (ValueError, LookupError, TypeError, RecursionError):
        expected = json.dumps({"format": FORMAT})
        raise StoreRefused(f"{file}: damaged; in a store written by this version it contains {expected}") from None
    if number > FORMAT:
        raise StoreRefused(
            f"{root}: a store of format {number}, written by a later version of autodo; this version reads formats up "
            f"to {FORMAT}: update it, or use another store"
        )
    return number


def mark_format(root: Location) -> None:
    """Write FORMAT to a store of an earlier format; concurrent launches write the same.

    Raises:
        StoreRefused: as `check_format`. StoreError: if the file cannot be written.
    """
    if check_format(root) < FORMAT:
        (root / FILE).write_text(json.dumps({"format": FORMAT}) + "\n")
