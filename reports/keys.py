"""Names of tables and figures, which are anchors in a page and names of files."""

import hashlib
import re

_LENGTH = 48


def key(*parts: str) -> str:
    """A name of `[a-z0-9-]+` that says what the parts say and differs wherever they differ.

    It depends on nothing else, so that a link to it holds while the grid grows.
    """
    words = re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")[:_LENGTH].strip("-")
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{words}-{digest}" if words else digest
