"""Reports of whole and of damaged stores."""

import dataclasses
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.io.storage import locate
from orchestration.testing.synthetic_store import write_store
from reports.build import build_report
from reports.document import Report, Section
from reports.write import write_files, write_report

RUNS = [
    build_run(
        "cifar10",
        method,
        split=split,
        distortion=DistortionConfig.parse(distortion),
        seed=seed,
        overrides={"training.epochs": 8, "training.warmup_epochs": 1},
    )
    for method, split, distortion in (
        ("baseline", "paper", "10-0.2"),
        ("autodo-aws", "paper", "10-0.2"),
        ("autodo-aws", "union", "10-0.2"),
        ("baseline", "paper", "1-0.0"),
        ("autodo-aws", "paper", "1-0.0"),
        ("randaugment", "paper", "1-0.0"),
        ("randaugment", "paper", "10-0.2"),
    )
    for seed in range(2)
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store") / "S"
    write_store(root, RUNS)
    return root


@pytest.fixture(scope="module")
def report(whole: Path) -> Report:
    return build_report(whole)


def test_all_sections_with_data_are_there_in_order(report: Report) -> None:
    assert report.warnings == ()
    found = {section.key: section for section in report.sections}
    assert list(found) == [
        *("errors", "comparison", "claims", "curves", "classes", "splits", "cost", "learned", "to-look-at"),
        "other-errors",
    ]
    assert {panel.quantity for panel in found["curves"].panels} == {"test accuracy", "test loss", "train loss"}
    assert len(found["learned"].tables) == 2
    assert [gallery.suspects[0].wrong is not None for gallery in found["to-look-at"].galleries] == [True]


def test_keys_are_unique_file_names(report: Report) -> None:
    keys = [
        part.key
        for section in report.sections
        for part in (section, *section.tables, *section.panels, *section.figures, *section.galleries)
    ]
    assert len(set(keys)) == len(keys)


def test_another_metric_becomes_the_headline(whole: Path) -> None:
    section, *_, others = build_report(whole, metric="error_last").sections
    assert "after the last epoch" in section.tables[0].caption
    assert {table.caption.split(",")[0] for table in others.tables} == {
        "test error at the epoch of lowest val error",
        "lowest test error over all epochs (optimistic)",
    }


def test_selected_runs_are_reported_alone(whole: Path, report: Report) -> None:
    part = build_report(whole, select="distortion=1-0.0,method=baseline,method=randaugment")
    assert "4 runs done" in part.summary[0]
    assert "14 runs done" in report.summary[0]
    (table,) = part.sections[0].tables
    assert [row.name for row in table.rows] == ["baseline", "randaugment"]


def _truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _of_another_run(file: Path) -> None:
    other = next(path for path in sorted(file.parent.iterdir()) if path != file)
    shutil.copyfile(other, file)


DAMAGES = [
    ("results", _truncated),
    ("epochs", _folder),
    ("predictions", _truncated),
    ("points", _of_another_run),
    ("results", _of_another_run),
]
KINDS = ("results", "epochs", "predictions", "points")
OTHERS = [case for case in itertools.product(KINDS, (_truncated, _folder, _of_another_run)) if case not in DAMAGES]


@pytest.mark.parametrize(
    ("kind", "damage"),
    [*DAMAGES, *(pytest.param(*case, marks=[pytest.mark.slow, pytest.mark.long]) for case in OTHERS)],
)
def test_a_damaged_file_is_named_and_changes_no_other_mean(
    whole: Path, report: Report, tmp_path: Path, kind: str, damage: Callable[[Path], None]
) -> None:
    root = tmp_path / "S"
    shutil.copytree(whole, root, copy_function=_link)
    broken = RUNS[0]  # baseline, 10-0.2: in all figures
    file = root / kind / f"{broken.run_id}.parquet"
    file.unlink()
    shutil.copyfile(whole / kind / file.name, file)
    damage(file)

    found = build_report(root)

    assert any(file.name in warning for warning in found.warnings), found.warnings
    for section, intact in zip(_shown(found), _shown(report), strict=True):
        for table, same in zip(section.tables, intact.tables, strict=True):
            for row, other in zip(table.rows, same.rows, strict=True):
                if "baseline" not in row.name:
                    assert [cell.mean for cell in row.cells] == [cell.mean for cell in other.cells]
    assert write_files(dataclasses.replace(found, sections=found.sections[:1]), locate(tmp_path / "out"), ("md",))


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _shown(report: Report) -> list[Section]:
    """Tables with means of single methods."""
    return [section for section in report.sections if section.key in ("errors", "classes", "other-errors")]


def test_a_store_without_epochs_predictions_and_points_is_reported(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "results", tmp_path / "S" / "results", copy_function=_link)
    files = write_report(tmp_path / "S", formats=("html", "csv"))
    assert all(file.exists() for file in files)
