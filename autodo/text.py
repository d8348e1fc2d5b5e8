"""Counts in messages and reports."""


def count_of(n: int, one: str, many: str | None = None) -> str:
    """A number with its noun, such as `1 run` or `12 runs`.

    Args:
        many: the plural; without it, `one` with an s.
    """
    return f"{n} {one if n == 1 else many or one + 's'}"
