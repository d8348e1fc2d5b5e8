"""`autodo methods`, `datasets` and `grids`."""

import re

from autodo import plugins
from autodo.config.shipped import dataset_names, grid_names


def test_a_method_is_shown_with_all_its_settings(autodo) -> None:
    out = autodo("methods", "randaugment+ldam-drw").out
    assert out.splitlines()[0].strip() == "ldam-drw+randaugment"
    for part in ("larger margins for rare classes", "Cubuk et al.", "methods/randaugment.yaml", "kind: ldam-drw\n"):
        assert part in out
    assert "both:\n  nothing\n" in autodo("methods", "baseline").out


def test_what_the_method_of_a_plugin_does_not_state_is_said(autodo, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(plugins, "_registry", plugins._Registry())
    file = tmp_path / "mild.py"
    file.write_text(
        "from autodo.plugins import MethodPlugin\nmild = MethodPlugin(name='mild', preset={'reads': 'val'})\n"
    )
    shown = autodo("methods", "mild", "--plugin", str(file)).out
    assert "val; the epoch is chosen on val" in shown
    assert shown.count("not stated by the plug-in") == 3


def test_datasets_and_grids_are_listed(autodo) -> None:
    listed = autodo("datasets").out.splitlines()
    assert [line.split()[0] for line in listed[1:-1] if line[0] != " "] == dataset_names()
    (digits,) = (line for line in listed if line.startswith("digits"))
    assert re.split("  +", digits.strip())[1:] == [
        "1,797 scans of handwritten digits, gray, 8x8, 10 classes", "included in scikit-learn", "small-cnn", "40"
    ]  # fmt: skip
    listed = autodo("grids").out.splitlines()
    rows = [re.split("  +", line.strip()) for line in listed[1:-1]]
    assert [row[0] for row in rows] == grid_names()
    assert all(len(row) == 4 and row[1] and row[3] for row in rows), "a summary and a cost in each, on one line"
    assert rows[grid_names().index("quickstart")] == [
        "quickstart",
        "AutoDO on digits; nothing to download",
        "16",
        "1 minute on 2 cores",
    ]


def test_methods_are_listed_with_their_summaries(autodo) -> None:
    assert "baseline" in autodo("methods").out
    assert "soft labels" in autodo("methods").out
