"""Keys of tables and figures: anchors in the page and names of files."""

import hashlib
import re

_LENGTH = 48


def key(*parts: str) -> str:
    """A readable key of `[a-z0-9-]+` that is unique to these parts.

    It depends on nothing else, so that links stay valid while a grid grows.
    """
    words = re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")[:_LENGTH].strip("-")
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{words}-{digest}" if words else digest
