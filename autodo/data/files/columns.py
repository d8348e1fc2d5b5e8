"""Names of the columns of features, and of their files."""

from pathlib import Path

COLUMNS = ("label", "split", "clean_label", "source")
"""Columns beside the features; only `label` is required."""


def column_files(path: Path) -> dict[str, Path]:
    """Files that may lie beside NAME.npy, by column: NAME.<column>.npy; none for other formats."""
    if path.suffix.lower() != ".npy":
        return {}
    return {column: path.with_name(f"{path.stem}.{column}.npy") for column in COLUMNS}
