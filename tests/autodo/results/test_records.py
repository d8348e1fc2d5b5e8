import pyarrow.parquet as pq
import pytest

from autodo.results import records

ROWS = [
    {"run_id": "r", "index": 0, "label": 1, "prediction": 2, "probability": 0.5},
    {"run_id": "r", "index": 1, "label": 3, "prediction": 3, "probability": 0.75},
]


def test_a_table_is_read_as_it_was_written(tmp_path):
    table = records.table("predictions", ROWS)
    records.write("predictions", table, tmp_path / "predictions" / "r.parquet")
    assert pq.read_table(tmp_path / "predictions" / "r.parquet").to_pylist() == ROWS
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["r.parquet"], "no temporary file is left"


def test_missing_and_unknown_columns_are_refused(tmp_path):
    with pytest.raises(KeyError, match="probability"):
        records.table("predictions", [{key: value for key, value in ROWS[0].items() if key != "probability"}])
    with pytest.raises(ValueError, match="surprise"):
        records.table("predictions", [{**ROWS[0], "surprise": 1}])
    with pytest.raises(ValueError, match="not a table of points"):
        records.write("points", records.table("predictions", ROWS), tmp_path / "x.parquet")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "r.parquet"
    table = records.table("predictions", ROWS)
    records.write("predictions", table, path)

    def disk_full(rows, where, **_):
        where.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(records.pq, "write_table", disk_full)
    with pytest.raises(OSError, match="No space"):
        records.write("predictions", table.slice(0, 1), path)
    assert len(pq.read_table(path)) == 2
    assert len(list(tmp_path.iterdir())) == 1
