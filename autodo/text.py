"""Words and characters of messages and reports."""

import difflib
import re
from collections.abc import Sequence

# Control characters, and those that turn the direction of text or break a line (UAX #9, Bidi_Control).
CONTROL_CHARACTERS = r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
_UNPRINTABLE = re.compile(CONTROL_CHARACTERS + r"|[\ud800-\udfff]")


def count_of(n: int, one: str, many: str | None = None) -> str:
    """A number with its noun: `1 run`, `12 runs`.

    Args:
        many: the plural; without it, `one` with an s.
    """
    return f"{n} {one if n == 1 else many or one + 's'}"


def printable(text: str) -> str:
    """Escapes control characters, such as `\\n`, so that text of a store or file cannot write elsewhere on a screen.

    Different texts stay different.
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def first_line(error: BaseException) -> str:
    """First line of an exception's text, or its type if there is none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def rough_duration(seconds: float) -> str:
    """`40 s`, `4 min`, `3 h`, `2 days`: an estimate in the largest unit of which there are at least 1.5."""
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * unit:
            return f"{max(2, round(seconds / unit))} {name}"
    return f"{max(1, round(seconds))} s"


def network_label(name: str, weights: str | None, freeze: str = "none") -> str:
    """Name of a network in tables: `torchvision:resnet50 DEFAULT`, `wrn-16-2 clothes.pt encoder frozen`."""
    words = [name]
    if weights is not None:
        words.append(weights.rpartition("/")[2])
    if freeze != "none":
        words.append(f"{freeze} frozen")
    return " ".join(words)


def hint(name: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'x' or 'y'?` if known names are similar, else an empty string."""
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.7)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
