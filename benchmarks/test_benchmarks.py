"""The one table of all benchmarks."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autodo.config.recipes import build_run
from autodo.data import load
from benchmarks.__main__ import BENCHMARKS, ON_DEVICE, measured
from benchmarks.distortions import distorted, matrix_table, noise_matrix, rates_table
from benchmarks.neumann_scale import cut_classes
from benchmarks.sharded_table import BATCH, measure_network, measure_whole
from benchmarks.solvers import measure as measure_solvers
from benchmarks.table import ROWS, Row, markdown, number, read_rows, record_rows

RECORD = "from benchmarks.table import Row, record_rows; record_rows(Row('a step', {value}, 'ms', at_most=2.0)); {then}"


def _command(value: float, then: str = "") -> list[str]:
    return [sys.executable, "-c", RECORD.format(value=value, then=then)]


def test_a_failing_benchmark_loses_no_rows(capfd: pytest.CaptureFixture[str]) -> None:
    rows = list(measured({"first": _command(1.0, "raise SystemExit(3)"), "second": _command(2.5)}))
    assert rows == [
        ("first", Row("a step", 1.0, "ms", 2.0)),
        ("first", "failed with exit code 3"),
        ("second", Row("a step", 2.5, "ms", 2.0)),
    ]
    capfd.readouterr()


def test_a_benchmark_by_itself_records_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROWS, raising=False)
    record_rows(Row("a step", 1.0, "ms"))
    assert read_rows(tmp_path / "rows") == []


def test_markdown_says_what_is_met() -> None:
    table = markdown(
        [
            ("one", Row("time", 1.5, "s", at_most=2.0)),
            ("one", Row("time", 2.5, "s", at_most=2.0)),
            ("two", Row("speed", 1234.0, "images/s", at_least=2000.0)),
            ("two", Row("size", 0.01234, "GB")),
            ("two", "failed with exit code 1"),
        ]
    ).splitlines()
    assert table[2:] == [
        "| one | time | 1.50 s | ≤ 2 s | yes |",
        "| one | time | 2.50 s | ≤ 2 s | **no** |",
        "| two | speed | 1,234 images/s | ≥ 2,000 images/s | **no** |",
        "| two | size | 0.0123 GB |  |  |",
        "| two | **failed with exit code 1** | | | **no** |",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (3.0, "3"), (0.5, "0.500"), (99.94, "99.9"), (1e6, "1,000,000")]
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_what_a_distortion_does_is_counted() -> None:
    digits = load(build_run("digits", "baseline").dataset)
    splits = distorted(digits, "digits", "exp10-pair0.2", 0)
    assert np.diag(noise_matrix(splits)) + np.diag(np.roll(noise_matrix(splits), -1, axis=1)) == pytest.approx(1)
    (row,) = zip(*(column.cells for column in rates_table({"exp10-pair0.2": [splits]}).columns), strict=True)
    assert row == ("exp10-pair0.2", "461", "10.3", "19.96", "18.2 to 21.1")
    assert matrix_table("exp10-pair0.2", splits).row_count == 10


def test_every_benchmark_is_there() -> None:
    assert set(BENCHMARKS) >= ON_DEVICE
    for name in BENCHMARKS:
        assert Path(__file__).with_name(f"{name}.py").exists()


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown benchmark 'nothing'; known: orchestration, augmentation" in done.stderr


def test_shards_take_the_steps_of_one_table() -> None:
    whole = measure_whole(8, 2 * BATCH, 6)
    assert (whole.different, whole.unowned, whole.different_read) == (0, 0, 0)
    assert whole.spread <= 1


@pytest.mark.slow
def test_what_crosses_the_network_is_sums_of_the_network_and_of_the_solve() -> None:
    counted = measure_network(2)
    classes, width = counted.shape
    assert counted.sent["lambda"] == 0
    # With what lambda says of each point: only when all is done.
    assert counted.calls["points table"] == 1
    points = counted.steps / 2 * 64 / counted.size
    assert 100 < counted.sent["points table"] / points < 400
    assert counted.sent["gradients"] == counted.steps * 4 * counted.parameters
    # The gradient of the val loss, 20 products and the first worker's solution.
    assert counted.sent["solve"] == counted.passes * 22 * 4 * classes * width
    assert counted.sent["else"] < 100


def test_classes_are_cut_into_equal_parts() -> None:
    images = np.random.default_rng(0).integers(256, size=(600, 1, 4, 4)).astype(np.uint8)
    labels = np.arange(600) % 3
    for parts in (1, 10, 100):
        cut = cut_classes(images, labels, parts)
        assert (cut // parts == labels).all()
        assert (np.bincount(cut) == 200 // parts).all()


def test_the_solvers_of_the_outer_problem_compare_as_the_docs_say() -> None:
    gradient = {name: cosine for name, (_, cosine, _) in measure_solvers(0).items()}
    assert gradient["exact"] == pytest.approx(1)
    assert gradient["neumann, T = 5, step 0.01"] == pytest.approx(gradient["identity"], abs=0.01)
    assert gradient["identity"] < gradient["equation 7"] < gradient["fisher, damping 0.01"] < 0.95
    assert gradient["conjugate-gradient, 20 steps"] > 0.99
    assert gradient["quasi-newton, 20 pairs"] > 0.99
