"""Lines of text on the terminal."""

from rich.console import Console
from rich.text import Text

from autodo.text import printable


def say(console: Console, text: str, style: str = "") -> None:
    """Print a line as it is: paths in it are neither coloured nor broken."""
    console.print(Text(text, style=style), soft_wrap=True)


def warn(console: Console, text: str) -> None:
    """Print a warning."""
    say(console, f"warning: {text}", "yellow")


def plain(value: object) -> Text:
    """Text of a store or file without markup and control characters, at most 2,000 characters of it."""
    return Text(printable(str(value)[:2000]))
