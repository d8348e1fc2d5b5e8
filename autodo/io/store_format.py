"""Format version of a store: STORE/store.json holds `{"format": 2}`.

A program uses stores of its own format and of all earlier ones, and refuses later ones. FORMAT is raised when a program
that does not know the change would misread a store or spoil it. A column or setting that came later does not need that.
"""

import json

from autodo.errors import StoreRefused
from autodo.io.storage import Location

FILE = "store.json"
FORMAT = 2
"""1: as it was before the file; a store without one. 2: the file says which format it is."""


def check_format(root: Location) -> int:
    """The format of the store at `root`; 1 if nothing says which, as also of a store that does not exist yet.

    Raises:
        StoreRefused: if it is later than FORMAT, or what says so is damaged.
        StoreError: if the storage does not answer.
    """
    place = root / FILE
    try:
        content = place.read_bytes()
    except FileNotFoundError:
        return 1
    try:
        number = json.loads(content)["format"]
        if type(number) is not int or number < 1:
            raise ValueError
    except (ValueError, LookupError, TypeError, RecursionError):
        expected = json.dumps({"format": FORMAT})
        raise StoreRefused(f"{place}: damaged; in a store that this program made it holds {expected}") from None
    if number > FORMAT:
        raise StoreRefused(
            f"{root}: a store of format {number}, made by a later autodo; this one knows formats up to {FORMAT}: "
            "update it, or give another store"
        )
    return number


def mark_format(root: Location) -> None:
    """Writes FORMAT to a store that is of an earlier one.

    Two launches that make a store at once write the same.

    Raises:
        StoreRefused: as `check_format`. StoreError: if the file cannot be written.
    """
    if check_format(root) < FORMAT:
        (root / FILE).write_text(json.dumps({"format": FORMAT}) + "\n")
