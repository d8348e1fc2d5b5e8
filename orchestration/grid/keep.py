"""What runs leave in a store besides their tables, if they are asked to."""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Literal, get_args

from autodo.config.validation import hint
from autodo.errors import ConfigError

if TYPE_CHECKING:
    from orchestration.store.store import Store

Keep = Literal["models", "embeddings"]
KEEP: tuple[Keep, ...] = get_args(Keep)


def parse_keep(given: Iterable[str]) -> tuple[Keep, ...]:
    """What the values of `--keep` name, each once; a value may name several, with commas between them.

    Raises:
        ConfigError: if there is no such thing.
    """
    names = {name.strip() for value in given for name in value.split(",")}
    for name in sorted(names - set(KEEP)):
        raise ConfigError(f"--keep: unknown name {name!r}{hint(name, KEEP)}; known: {', '.join(KEEP)}")
    return tuple(name for name in KEEP if name in names)


def not_kept(store: "Store", run_ids: Collection[str], keep: Iterable[Keep]) -> dict[Keep, int]:
    """How many of these runs have not kept a thing, of each thing that is missing anywhere.

    Args:
        run_ids: of runs that are done.
    """
    if not run_ids:
        return {}
    there = {"models": store.models_of, "embeddings": store.embeddings_of}
    counts = {name: len(set(run_ids) - there[name](run_ids)) for name in keep}
    return {name: count for name, count in counts.items() if count}
