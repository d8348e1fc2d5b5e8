"""`autodo export`: a classifier as a file that runs without AutoDO."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from autodo.config.validation import check_name
from autodo.errors import ConfigError
from orchestration.cli.chosen import find_classifier, load_classifier
from orchestration.cli.console import say


def export_classifier(console: Console, model: str, words: Sequence[str], *, format: str, out: str | None) -> None:
    """Write a classifier in another format, with its model card beside it, and print the files.

    Args:
        model: a classifier's file, or a store.
        words: for a store a run.
        format: `torch-export`, `onnx` or `torchscript`.
        out: file to write; None: named after run or file, in the working directory.
    Raises:
        UserError: if there is no such classifier, it cannot be exported, or the file cannot be written.
    """
    file, name, rest = find_classifier(model, words)
    if rest:
        raise ConfigError(f"{rest[0]}: one classifier is exported at a time; --out names the file to write")
    from autodo.results.export import FORMATS, export

    check_name(format, list(FORMATS), "format")
    target = Path(f"{name}{FORMATS[format].suffix}" if out is None else out).expanduser()
    if file.local is not None and target.resolve() == file.local.resolve():
        raise ConfigError(f"--out {out}: is the classifier itself; give the file another name")
    with console.status(f"exporting to {format}"):
        exported = export(load_classifier(file), target, format)
    say(console, f"written: {exported.file}")
    for card in exported.cards:
        say(console, f"written: {card}")
    say(console, f"its probabilities differ by at most {exported.difference:.1g} from those of the classifier")
