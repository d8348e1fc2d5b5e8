"""`autodo inspect`: the labels of a run that are probably wrong."""

import contextlib
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autodo.config.dataset import FEATURES
from autodo.config.run import RunConfig
from autodo.config.validation import check_name
from autodo.errors import DataError, StoreError, UserError
from autodo.io.storage import StrPath, locate
from autodo.io.uri import is_uri
from orchestration.cli.chosen import find_run
from orchestration.cli.console import plain, say, warn
from orchestration.store.store import Store

if TYPE_CHECKING:
    from reports.document import Figure
    from reports.label_errors.inspection import Inspection
    from reports.label_errors.ranked_labels import RankedLabels

SIDE = 128
"""Pixels of a picture's longer side, at most; a smaller image keeps its size."""
_LINES = 20  # points on the terminal
_RUNS = 30  # runs that are listed


def inspect_labels(
    console: Console,
    root: StrPath,
    run_id: str | None,
    *,
    ranking: str | None,
    top: int,
    out: str | None,
    data_dir: str | None,
) -> None:
    """Print the most suspicious labels of a run, and write all of them with a gallery; without a run, list the runs.

    Args:
        run_id: the whole id, its beginning, or the hash at its end, if only one run has it.
        ranking: None for the one that measured best.
        out: folder of the files; None for STORE/report/inspect/<run_id>.
        data_dir: folder of the images; thumbnails from the store replace images that are not found.
    Raises:
        UserError: if there is no such run, it is not done, or a file of it is damaged.
    """
    from reports.html import to_html
    from reports.label_errors.inspection import inspect_run, write_inspection
    from reports.label_errors.rankings import DEFAULT, RANKINGS

    ranking = ranking or DEFAULT
    check_name(ranking, list(RANKINGS), "ranking")
    store = Store(root).open()
    chosen = _only_run(store) if run_id is None else find_run(store, run_id)
    if chosen is None:
        _list_runs(console, store)
        return
    found = inspect_run(
        store.root,
        chosen,
        ranking=ranking,
        top=top,
        pictures=lambda shown: _pictures(console, store, chosen, data_dir, shown),
    )
    _print(console, found, min(top, _LINES))
    folder = store.paths.report / "inspect" / chosen if out is None else locate(out)
    for file in write_inspection(found, folder, lambda report: to_html(report, _no_figure)):
        say(console, f"written: {file}")


def _no_figure(figure: "Figure") -> NoReturn:
    raise AssertionError(f"an inspection has no figures, so not {figure.key}")


def _only_run(store: Store) -> str | None:
    done = sorted(store.status.done())
    if not done:
        raise StoreError(f"{store}: no run is done yet; `autodo status {store}` shows how far they are")
    return done[0] if len(done) == 1 else None


def _list_runs(console: Console, store: Store) -> None:
    """Print the runs that are done: the most distorted data first, then by val error."""
    from orchestration.cli.report import load_results
    from reports.readers.load import load_epochs

    results = load_results(console, store).frame
    epochs, warnings = load_epochs(store.root, list(results["run_id"]), ["run_id", "epoch", "val_error"])
    for warning in warnings:
        warn(console, warning)
    best = epochs.rename(columns={"epoch": "best_val_epoch"})
    runs = results.merge(best, how="left", on=["run_id", "best_val_epoch"]).sort_values(
        ["dataset", "imbalance_ratio", "noise_ratio", "split", "val_error", "run_id"],
        ascending=[True, False, False, True, True, True],
    )
    table = Table(title=Text(f"store {store}: {len(runs)} runs are done"), title_justify="left")
    table.add_column("run", overflow="fold")
    table.add_column("split")
    table.add_column("val error", justify="right")
    for run_id, split, error in zip(runs["run_id"][:_RUNS], runs["split"], runs["val_error"], strict=False):
        table.add_row(plain(run_id), plain(split), "–" if math.isnan(error) else f"{100 * error:.2f}%")
    console.print(table)
    if len(runs) > _RUNS:
        say(console, f"and {len(runs) - _RUNS} more")
    say(console, f"`autodo inspect {store} RUN` inspects one of them; the hash at its end is enough")


def _print(console: Console, found: "Inspection", lines: int) -> None:
    from reports.formats.terminal import TerminalTable
    from reports.label_errors.labels_csv import path_of

    labels = found.labels
    title = f"{found.run_id}: {len(labels):,} train points, by {labels.ranking}"
    table = Table(title=plain(title), title_justify="left")
    for heading in ("", "score", "given", "proposed", "image"):
        table.add_column(heading, justify="right" if heading in ("", "score") else "left", overflow="fold")
    if labels.wrong is not None:
        table.add_column("known to be")
    first = labels.first(lines)
    for i, source in enumerate(first.source.to_pylist()):
        image = f"index {first.index[i]}" if source is None else path_of(source, found.folder)
        names = (first.name(int(first.given[i])), first.name(int(first.proposed[i])))
        truth = () if first.wrong is None else (("right", "wrong")[int(first.wrong[i])],)
        table.add_row(str(i + 1), f"{first.score[i]:.4f}", *map(plain, (*names, image)), *truth)
    console.print(table)
    if found.quality is not None:
        console.print(TerminalTable(found.quality))
    for note in found.notes:
        console.print(plain(f"note: {note}"), soft_wrap=True)


def _pictures(
    console: Console, store: Store, run_id: str, data_dir: str | None, shown: "RankedLabels"
) -> Mapping[int, bytes]:
    """Pictures of the points from the run's dataset, by index; empty if its files are not here."""
    try:
        run = store.status.config(run_id)
        if run.dataset.name == FEATURES:
            say(console, "note: the points are features, of which there are no pictures")
            return {}
        if run.dataset.path is not None and not run.dataset.stream:
            return _from_files(run.dataset.path, shown)
        return _from_dataset(run, data_dir, shown)
    except UserError as error:
        first = (str(error).splitlines() or [""])[0]
        say(console, f"note: pictures are the store's thumbnails, because the images are not at hand: {first}")
        return {}


def _from_dataset(run: RunConfig, data_dir: str | None, shown: "RankedLabels") -> dict[int, bytes]:
    from autodo.results.thumbnails import thumbnail
    from orchestration.execution.process import load_dataset

    train = load_dataset(run.dataset, data_dir).train
    places = np.searchsorted(train.index, shown.index).clip(max=len(train) - 1)
    right = np.ones(len(shown), bool) if shown.wrong is None else ~shown.wrong
    if (train.index[places] != shown.index).any() or (train.labels[places] != shown.given)[right].any():
        raise DataError(f"{run.dataset.name}: the images are not those of the run")
    images = train.images.read(places)
    return {index: thumbnail(image, SIDE) for index, image in zip(shown.index.tolist(), images, strict=True)}


def _from_files(path: str, shown: "RankedLabels") -> dict[int, bytes]:
    """Pictures of a person's own images; only of those that the folder or CSV lists, since the store is not trusted."""
    from autodo.data.files.listing import list_images, root_of

    if is_uri(path):
        raise DataError(f"{path}: is not on this machine")
    given = Path(path).expanduser()
    listed = {name for part in list_images(given).values() for name in part.names}
    found = {}
    for index, source in zip(shown.index.tolist(), shown.source.to_pylist(), strict=True):
        with contextlib.suppress(Exception):  # PIL's decoders raise exceptions of many kinds for damaged files
            if source in listed:
                found[index] = _picture(root_of(given) / source)
    return found


def _picture(file: Path) -> bytes:
    """The whole image, upright, as a PNG of at most SIDE pixels."""
    from PIL import Image, ImageOps

    from autodo.data.files.decode import eight_bit

    with Image.open(file) as opened:
        opened.draft("RGB", (2 * SIDE, 2 * SIDE))
        picture = eight_bit(ImageOps.exif_transpose(opened))
    picture.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()
