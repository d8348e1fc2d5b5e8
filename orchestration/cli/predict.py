"""`autodo predict`: the classes of images, or of features."""

import contextlib
import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autodo.errors import ConfigError, DataError
from autodo.io.atomic import atomic_path
from autodo.text import count_of, printable
from orchestration.cli.chosen import find_classifier, load_classifier
from orchestration.cli.console import say, warn

if TYPE_CHECKING:
    from autodo.results.batches import Batch
    from autodo.results.classifier import Classifier

_CLASSES = 10  # classes whose images are counted on the terminal
Ranking = list[tuple[str, float]]
"""The most probable classes of an image, and their probabilities."""


def predict_images(
    console: Console,
    model: str,
    words: Sequence[str],
    *,
    csv_file: str | None,
    top: int,
    batch_size: int,
    device: str,
) -> None:
    """Print the most probable classes of images, or write them to a CSV; name damaged files and leave them out.

    Args:
        model: a classifier's file, or a store.
        words: for a store a run; then the images' files, folders, globs and CSV files, or files of features.
        csv_file: file to write; None: print a line per image.
        top: number of classes of each image.
    Raises:
        UserError: if there is no such model or image, or no image can be read.
    """
    file, _, places = find_classifier(model, words)
    if not places:
        raise ConfigError("no images are given: give files, folders, CSV files, or globs in quotes")
    read = [Path(place) for place in places] + ([file.local] if file.local is not None else [])
    if csv_file is not None and Path(csv_file).expanduser().resolve() in {each.expanduser().resolve() for each in read}:
        raise ConfigError(f"--csv {csv_file}: is one of the files to read; give it another name")
    from orchestration.execution.device import chosen_device

    classifier = load_classifier(file).to(chosen_device(device))
    names, batches = _inputs(classifier, places, batch_size)
    # What is not a result goes to stderr, so that the results can go to a file or a pipe.
    notes = Console(stderr=True)
    progress = _progress(notes, shown=notes.is_terminal and (csv_file is not None or not console.is_terminal))
    counts: Counter[str] = Counter()
    with _writer(console, csv_file, min(top, len(classifier.class_names))) as write, progress:
        task = progress.add_task("", total=len(names))
        for ranked in _ranked(classifier, batches, top, lambda line: warn(notes, f"left out: {line}")):
            for position, classes in ranked:
                write(names[position], classes)
                counts[classes[0][0]] += 1
            progress.update(task, advance=batch_size)
        if not counts:
            raise DataError(f"none of the {count_of(len(names), 'image')} can be read")
    if csv_file is not None:
        _summary(console, csv_file, counts, "image" if classifier.image_size else "row")
    if left_out := len(names) - counts.total():
        warn(notes, f"{count_of(left_out, 'image')} of {len(names)} left out")


def _inputs(
    classifier: "Classifier", places: Sequence[str], batch_size: int
) -> tuple[Sequence[str], Iterator["Batch"]]:
    """Name of each image, or row of features such as `points.npy:17`, and the batches of them.

    Raises:
        DataError: if there are none, or the features are not those of the classifier.
    """
    from autodo.results.batches import feature_batches, input_batches

    if classifier.image_size is not None:
        from autodo.data.files.find_images import find_images

        images = find_images(places)
        return images, input_batches(images, classifier.inputs, batch_size)
    import numpy as np

    from autodo.data.readers.features import read_feature_values

    wanted, names, parts = classifier.mean.shape[1], [], []
    for place in places:
        values = read_feature_values(Path(place).expanduser())
        if values.shape[1] != wanted:
            raise DataError(f"{place}: {values.shape[1]} features in each row; the classifier takes {wanted}")
        names += [f"{place}:{row}" for row in range(len(values))]
        parts.append(values)
    return names, feature_batches(np.concatenate(parts), batch_size)


def _ranked(
    classifier: "Classifier", batches: Iterator["Batch"], top: int, on_problem: Callable[[str], None]
) -> Iterator[list[tuple[int, Ranking]]]:
    """For each batch, the positions of the images that can be read, and their most probable classes."""
    for batch in batches:
        for problem in batch.problems:
            on_problem(problem)
        if not batch.positions:
            yield []
            continue
        probabilities = classifier(batch.inputs.to(classifier.mean.device)).cpu()
        best = probabilities.topk(min(top, probabilities.shape[1]))
        rows = zip(batch.positions, best.indices.tolist(), best.values.tolist(), strict=True)
        yield [
            (i, [(classifier.class_names[k], p) for k, p in zip(classes, values, strict=True)])
            for i, classes, values in rows
        ]


@contextlib.contextmanager
def _writer(console: Console, csv_file: str | None, top: int) -> Iterator[Callable[[str, Ranking], None]]:
    """Writes a line for each image: on the terminal, or to a CSV that appears when all are written."""
    if csv_file is None:

        def show(path: str, classes: Ranking) -> None:
            say(console, "  ".join([printable(path), *(f"{printable(name)} {100 * p:.1f}%" for name, p in classes)]))

        yield show
        return
    header = ["path", "class", "probability"]
    for rank in range(2, top + 1):
        header += [f"class_{rank}", f"probability_{rank}"]
    try:
        with (
            atomic_path(Path(csv_file).expanduser()) as temporary,
            temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(header)
            yield lambda path, classes: rows.writerow(
                [path, *(cell for name, p in classes for cell in (name, f"{p:.6f}"))]
            )
    except OSError as error:
        raise ConfigError(f"--csv {csv_file}: cannot be written: {error.strerror}") from None


def _progress(notes: Console, *, shown: bool) -> Progress:
    """A bar on stderr, which leaves alone what is printed on stdout."""
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=notes, transient=True, disable=not shown, redirect_stdout=False)


def _summary(console: Console, csv_file: str, counts: Counter[str], what: str) -> None:
    named = ", ".join(f"{printable(name)} {count:,}" for name, count in counts.most_common(_CLASSES))
    more = f", and {len(counts) - _CLASSES} more classes" if len(counts) > _CLASSES else ""
    say(console, f"{count_of(counts.total(), what)}: {named}{more}")
    say(console, f"written: {csv_file}")
