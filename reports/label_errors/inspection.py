"""What is probably wrong in the train labels of one run: as a report, and as files."""

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
from reports.analysis.label_repair import DetectionQuality
from reports.document import Gallery, Report, Section, Suspect, Table
from reports.label_errors.labels_csv import image_folder, path_of, write_labels
from reports.label_errors.quality import qualities, quality_table
from reports.label_errors.ranked_labels import RankedLabels, ranked
from reports.label_errors.rankings import DEFAULT, RANKINGS, MissingSignal, keys_of
from reports.label_errors.signals import OPTIONAL, REQUIRED, ROWS_AT_ONCE, Signals, UnusableSignals, read_signals

Pictures = Callable[[RankedLabels], Mapping[int, bytes]]
"""PNGs of points by index, of those that it has."""

ENOUGH = 100
"""Points of a gallery."""


@dataclasses.dataclass(frozen=True, eq=False)
class Inspection:
    """What was found in one run.

    Args:
        labels: all train points, the worst first.
        folder: of their files, if the images are a person's own.
        gallery: the first of them.
        quality: of each ranking that the run has; None if no label is known to be wrong.
        notes: what a reader must know; sentences.
    """

    run_id: str
    labels: RankedLabels
    folder: str | None
    gallery: Gallery
    quality: Table | None
    notes: tuple[str, ...]

    @property
    def report(self) -> Report:
        """All of it as a report of one section."""
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
    """The train points of a run, the most probably wrong label first.

    Args:
        root: path or URI of the store.
        run_id: of a run that is done.
        ranking: a key of RANKINGS.
        top: how many points the gallery shows.
        compare: whether the other rankings are computed too, for `quality` and `notes`.
        pictures: is given the points of the gallery; those that it has no picture of show the store's thumbnail.
    Raises:
        StoreError: if the run is not done, a file of it is missing or damaged, or it has not what the ranking needs.
    """
    store = as_location(root)
    check_format(store)
    result = _result(store, run_id)
    names = tuple(str(name) for name in result["class_names"])
    file = store / "points" / f"{run_id}.parquet"
    with _named(file):
        signals = read_signals(_batches(file, run_id), len(names))
    try:
        labels = ranked(signals, names, ranking)
    except MissingSignal as error:
        raise StoreError(f"{run_id}: cannot be sorted by {ranking}: {error}") from None
    keys, lacking = keys_of(signals) if compare else ({}, {})
    found = qualities(signals, keys)
    folder = image_folder(_dataset(result).get("path"))
    return Inspection(
        run_id=run_id,
        labels=labels,
        folder=folder,
        gallery=_gallery(labels.first(top), folder, _pictures(file, labels.first(top), pictures)),
        quality=_table(found, signals),
        notes=_notes(signals, lacking),
    )


def write_inspection(
    inspection: Inspection, folder: StrPath | Location, page: Callable[[Report], str] | None = None
) -> list[Location]:
    """Writes labels.csv and, with `page`, gallery.html; the files written.

    Raises:
        StoreError: if one cannot be written.
    """
    folder = as_location(folder)
    files = [folder / "labels.csv"]
    write_labels(inspection.labels, files[0], inspection.folder)
    if page is not None:
        files.append(folder / "gallery.html")
        files[1].write_text(page(inspection.report))
    return files


def _result(store: Location, run_id: str) -> dict[str, Any]:
    file = store / "results" / f"{run_id}.parquet"
    with _named(file):
        rows = file.read_parquet(["run_id", "class_names", "config"]).to_pylist()
    if [row["run_id"] for row in rows] != [run_id] or not rows[0]["class_names"]:
        raise StoreError(f"{file}: damaged: it is not the result of this run; delete it and launch the grid again")
    return rows[0]


def _dataset(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `dataset` part of a run's configuration; nothing of one that is damaged."""
    try:
        dataset = json.loads(result["config"])["dataset"]
    except (TypeError, ValueError, LookupError):
        return {}
    return dataset if isinstance(dataset, dict) and isinstance(dataset.get("path"), str) else {}


def _batches(file: Location, run_id: str) -> Iterator[pa.RecordBatch]:
    """The points a few at a time: with 1,000 classes a file can be larger than the memory."""
    filesystem, path = file.arrow
    with pq.ParquetFile(path, filesystem=filesystem, pre_buffer=False) as parquet:
        there = set(parquet.schema_arrow.names)
        columns = [name for name in ("run_id", *REQUIRED, *OPTIONAL) if name in there]
        for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=columns, use_threads=False):
            if "run_id" in there and set(batch.column("run_id").unique().to_pylist()) != {run_id}:
                raise UnusableSignals("it holds another run than its name says")
            yield batch


@contextlib.contextmanager
def _named(file: Location) -> Iterator[None]:
    """What is wrong with a file as one line with its name."""
    try:
        yield
    except FileNotFoundError:
        raise StoreError(f"{file}: cannot be read: No such file or directory") from None
    except UnusableSignals as error:
        raise StoreError(f"{file}: cannot be used: {error}") from None
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{file}: damaged ({reason(error)})") from None


def _pictures(file: Location, shown: RankedLabels, pictures: Pictures | None) -> dict[int, bytes]:
    better = dict(pictures(shown)) if pictures is not None else {}
    return _thumbnails(file, set(shown.index.tolist()) - better.keys()) | better


def _thumbnails(file: Location, wanted: set[int]) -> dict[int, bytes]:
    """Those that the store holds of these points; none in a file that is older than they are."""
    found: dict[int, bytes] = {}
    filesystem, path = file.arrow
    with _named(file), pq.ParquetFile(path, filesystem=filesystem, pre_buffer=False) as parquet:
        if "thumbnail" not in parquet.schema_arrow.names or not wanted:
            return found
        for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=["index", "thumbnail"], use_threads=False):
            with_picture = batch.filter(batch.column("thumbnail").is_valid())
            found |= {
                row["index"]: row["thumbnail"]
                for row in with_picture.to_pylist()
                if row["index"] in wanted and isinstance(row["thumbnail"], bytes)
            }
    return found


def _gallery(shown: RankedLabels, folder: str | None, images: Mapping[int, bytes]) -> Gallery:
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
        caption=f"sorted by {RANKINGS[shown.ranking].summary}",
        suspects=tuple(suspects),
    )


def _table(found: Mapping[str, DetectionQuality], signals: Signals) -> Table | None:
    if not found or signals.wrong is None:
        return None
    return quality_table(found, int(signals.wrong.sum()), len(signals.given))


def _notes(signals: Signals, lacking: Mapping[str, str]) -> tuple[str, ...]:
    notes = ["A high score is a reason to look at an image, not a proof that its label is wrong."]
    reasons: dict[str, list[str]] = {}
    for name, why in lacking.items():
        reasons.setdefault(why, []).append(name)
    notes += [f"Left out: {', '.join(names)} ({why})." for why, names in reasons.items()]
    if signals.wrong is None:
        notes.append("No label was changed on purpose, so nobody knows how many of these are wrong.")
    return tuple(notes)
