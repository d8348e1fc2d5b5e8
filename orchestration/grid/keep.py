"""Things that runs keep in a store besides their tables, on demand."""

from collections.abc import Iterable
from typing import Literal, get_args

from autodo.errors import ConfigError
from autodo.text import hint

Keep = Literal["models", "embeddings"]
KEEP: tuple[Keep, ...] = get_args(Keep)


def parse_keep(given: Iterable[str]) -> tuple[Keep, ...]:
    """Parse the values of `--keep`; a value may name several things, with commas between them.

    Raises:
        ConfigError: if a name is unknown.
    """
    names = {name.strip() for value in given for name in value.split(",")}
    for name in sorted(names - set(KEEP)):
        raise ConfigError(f"--keep: unknown name {name!r}{hint(name, KEEP)}; known: {', '.join(KEEP)}")
    return tuple(name for name in KEEP if name in names)
