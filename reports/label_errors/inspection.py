"""Inspection of the train labels of one run, as a report and as files."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autodo.errors import StoreError
from autodo.io.storage import Location, StrPath, as_location, reason
from autodo.io.store_format import check_format
from reports.document import Gallery, Report, Section, Suspect, Table
from reports.label_errors.labels_csv import image_folder, path_of, write_labels
from reports.label_errors.quality import qualities, quality_table
from reports.label_errors.ranked_labels import RankedLabels, ranked
from reports.label_errors.rankings import DEFAULT, RANKINGS, MissingSignal, keys_of
from reports.label_errors.signals import COLUMNS, ROWS_AT_ONCE, Signals, read_signals
from reports.readers.column_checks import UnusableFile

Pictures = Callable[[RankedLabels], Mapping[int, bytes]]
"""Function from points to PNG pictures by index, for those that have one."""

NO_PICTURES = "; the points are features, of which there are no pictures"
_FEATURES = "features"  # dataset without images
ENOUGH = 100
"""Default number of points in a gallery."""


@dataclasses.dataclass(frozen=True, eq=False)
class Inspection:
    """The inspected labels of one run.

    Args:
        labels: all train points, the most suspicious first.
        folder: of the image files, if the images are the user's own.
        gallery: the first points.
        quality: of each ranking; None if no label is known to be wrong.
        notes: sentences on how to read the result.
    """

    run_id: str
    labels: RankedLabels
    folder: str | None
    gallery: Gallery
    quality: Table | None
    notes: tuple[str, ...]

    @property
    def report(self) -> Report:
        """The inspection as a report with one section."""
        tables = () if self.quality is None else (self.quality,)
        section = Section("label-errors", "Labels to look at", self.notes, tables, galleries=(self.gallery,))
        summary = f"The train points of {self.run_id}, sorted by {RANKINGS[self.labels.ranking].summary}."
        return Report(title=f"Labels of {self.run_id}", summary=(summary,), sections=(section,))


def inspect_run(
    root: StrPath | Location,
    run_id: str,
    *,
    ranking: str = DEFAULT,
    top: int = ENOUGH,
    pictures: Pictures | None = None,
    compare: bool = True,
) -> Inspection:
    """Rank the train points of a run, the most probably wrong label first.

    Args:
        root: path or URI of the store.
        run_id: of a finished run.
        ranking: a key of RANKINGS.
        top: number of points in the gallery.
        compare: whether to compute the other rankings too, for `quality` and `notes`.
        pictures: called with the points of the gallery; points without a picture show the store's thumbnail.
    Raises:
        StoreError: if the run is not done, a file of it is missing or damaged, or the ranking needs a signal that it
            lacks.
    """
    store = as_location(root)
    check_format(store)
    names, dataset = _result(store, run_id)
    file = store / "points" / f"{run_id}.parquet"
    with _named(file):
        signals = read_signals(_batches(file, run_id), len(names))
    try:
        labels = ranked(signals, names, ranking)
    except MissingSignal as error:
        raise StoreError(f"{run_id}: cannot be sorted by {ranking}: {error}") from None
    keys, lacking = keys_of(signals) if compare else ({}, {})
    found = qualities(signals, keys)
    has_images = dataset.get("name") != _FEATURES
    path = dataset.get("path")
    folder = image_folder(path) if has_images and isinstance(path, str) else None
    return Inspection(
        run_id=run_id,
        labels=labels,
        folder=folder,
        gallery=_gallery(labels.first(top), folder, _pictures(file, labels.first(top), pictures), has_images),
        quality=quality_table(found, signals) if found else None,
        notes=_notes(signals, lacking, has_images),
    )


def write_inspection(
    inspection: Inspection, folder: StrPath | Location, page: Callable[[Report], str] | None = None
) -> list[Location]:
    """Write labels.csv and, with `page`, gallery.html; returns the files.

    Raises:
        StoreError: if a file cannot be written.
    """
    folder = as_location(folder)
    files = [folder / "labels.csv"]
    write_labels(inspection.labels, files[0], inspection.folder)
    if page is not None:
        files.append(folder / "gallery.html")
        files[1].write_text(page(inspection.report))
    return files


def _result(store: Location, run_id: str) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """Names of the classes of a run, as written, and the settings of its dataset."""
    file = store / "results" / f"{run_id}.parquet"
    with _named(file):
        rows = file.read_parquet(["run_id", "class_names", "config"]).to_pylist()
    if [row["run_id"] for row in rows] != [run_id] or not rows[0]["class_names"]:
        raise StoreError(f"{file}: damaged: it is not the result of this run; delete it and launch the grid again")
    try:
        dataset = json.loads(rows[0]["config"])["dataset"]
    except (TypeError, ValueError, LookupError):
        dataset = None
    return tuple(map(str, rows[0]["class_names"])), dataset if isinstance(dataset, Mapping) else {}


def _batches(file: Location, run_id: str) -> Iterator[pa.RecordBatch]:
    """The points in parts: with 1,000 classes a file can be larger than the memory."""
    filesystem, path = file.arrow
    with pq.ParquetFile(path, filesystem=filesystem, pre_buffer=False) as parquet:
        there = set(parquet.schema_arrow.names)
        columns = [name for name in ("run_id", *COLUMNS) if name in there]
        for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=columns, use_threads=False):
            if "run_id" in there and set(batch.column("run_id").unique().to_pylist()) != {run_id}:
                raise UnusableFile("it belongs to another run than its name says")
            yield batch


@contextlib.contextmanager
def _named(file: Location) -> Iterator[None]:
    """Turn errors of reading a file into one line with its name."""
    try:
        yield
    except FileNotFoundError:
        raise StoreError(f"{file}: cannot be read: No such file or directory") from None
    except UnusableFile as error:
        raise StoreError(f"{file}: cannot be used: {error}") from None
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{file}: damaged ({reason(error)})") from None


def _pictures(file: Location, shown: RankedLabels, pictures: Pictures | None) -> dict[int, bytes]:
    better = dict(pictures(shown)) if pictures is not None else {}
    return _thumbnails(file, set(shown.index.tolist()) - better.keys()) | better


def _thumbnails(file: Location, wanted: set[int]) -> dict[int, bytes]:
    """The thumbnails in the store of these points."""
    found: dict[int, bytes] = {}
    filesystem, path = file.arrow
    with _named(file), pq.ParquetFile(path, filesystem=filesystem, pre_buffer=False) as parquet:
        if not wanted:
            return found
        for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=["index", "thumbnail"], use_threads=False):
            with_picture = batch.filter(batch.column("thumbnail").is_valid())
            found |= {
                row["index"]: row["thumbnail"]
                for row in with_picture.to_pylist()
                if row["index"] in wanted and isinstance(row["thumbnail"], bytes)
            }
    return found


def _gallery(shown: RankedLabels, folder: str | None, images: Mapping[int, bytes], has_images: bool) -> Gallery:
    def learned(values: np.ndarray[Any, Any] | None, i: int) -> float | None:
        return None if values is None else float(values[i])

    suspects = [
        Suspect(
            index=index,
            source=None if source is None else path_of(source, folder),
            given=shown.name(int(shown.given[i])),
            proposed=shown.name(int(shown.proposed[i])),
            score=float(shown.score[i]),
            weight=learned(shown.weight, i),
            loss=float(shown.loss[i]),
            wrong=None if shown.wrong is None else bool(shown.wrong[i]),
            image=images.get(index),
        )
        for i, (index, source) in enumerate(zip(shown.index.tolist(), shown.source.to_pylist(), strict=True))
    ]
    return Gallery(
        key="suspects",
        title=f"The {len(suspects)} most suspicious of the train labels",
        caption=f"sorted by {RANKINGS[shown.ranking].summary}{'' if has_images else NO_PICTURES}",
        suspects=tuple(suspects),
        pictures=has_images,
    )


def _notes(signals: Signals, lacking: Mapping[str, str], has_images: bool) -> tuple[str, ...]:
    it = "an image" if has_images else "a point"
    notes = [f"A high score is a reason to look at {it}, not a proof that its label is wrong."]
    reasons: dict[str, list[str]] = {}
    for name, why in lacking.items():
        reasons.setdefault(why, []).append(name)
    notes += [f"Left out: {', '.join(names)} ({why})." for why, names in reasons.items()]
    if signals.wrong is None:
        notes.append("No label is known to be wrong, so it is not known how many of these are wrong.")
    return tuple(notes)
