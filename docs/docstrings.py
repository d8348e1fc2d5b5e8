"""A griffe extension that accepts docstring sections without a blank line between them."""

import re
from typing import Any

import griffe


class Sections(griffe.Extension):
    """Puts a blank line before `Args:`, `Shape:`, `Raises:` and their like."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each class, function and module."""
        if obj.docstring:
            heads = r"\n(Args|Shape|Returns|Yields|Raises|Reference)(?=:)"
            obj.docstring.value = re.sub(heads, r"\n\n\1", obj.docstring.value)
