"""Files that a page of the docs consists of: each is a block after a line with its name."""

import re
from pathlib import Path


def write_files(page: Path, folder: Path) -> dict[str, str]:
    """Writes the files of a page into a folder; returns their texts by name."""
    found = re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    for name, text in found:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return dict(found)
