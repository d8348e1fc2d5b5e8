from typing import Any

import pandas as pd

from orchestration.planning.plan import expected_rows
from reports.analysis.comparison import named
from reports.analysis.provenance import provenance, run_notes
from reports.tables.classes import class_tables
from reports.tables.errors import error_tables
from tests.reports import synthetic


def of(*values: dict[str, Any]) -> pd.DataFrame:
    rows = synthetic.grid(("svhn",), ("1-0.0",), {"baseline": 0.1}, seeds=len(values))
    return named(synthetic.results([(run, row | given) for (run, row), given in zip(rows, values, strict=True)]))


def test_results_of_the_same_origin_need_no_note() -> None:
    assert run_notes(of({}, {})) == []
    assert run_notes(of()) == []


def test_mixed_code_devices_and_versions_are_noted() -> None:
    frame = of(
        {"git_sha": "sha0", "device": "gpu0", "versions": [("torch", "2.1"), ("numpy", "2")]},
        {"git_sha": "sha0", "device": "gpu0", "versions": [("numpy", "2"), ("torch", "2.1")]},
        {"git_sha": None, "device": "gpu1", "versions": [("torch", "2.2"), ("numpy", "2")]},
        {"versions": None},
    )
    assert run_notes(frame) == [
        "Results of different code versions are compared: sha0 (2 runs), abc (1 run), unknown (1 run).",
        "Results of different devices are compared: gpu0 (2 runs), NVIDIA H100 80GB HBM3 (1 run), gpu1 (1 run).",
        "Results of different versions of torch are compared: 2.1 (2 runs), 2.2 (1 run).",
    ]


def test_versions_of_a_plugin_are_those_of_the_runs_that_use_it() -> None:
    frame = of(
        {"versions": [("torch", "2.1"), ("focal.py", "a")]}, {"versions": [("torch", "2.1")]}, {"versions": None}
    )
    entries = dict(provenance(frame[frame["versions"].notna()]))
    assert (entries["torch"], entries["focal.py"]) == ("2.1", "a")
    assert dict(provenance(frame))["focal.py"] == "a (1 run), unknown (1 run)"


def test_changed_code_is_noted_even_if_all_runs_have_the_same_version() -> None:
    assert run_notes(of({"git_sha": "abc-dirty"}, {"git_sha": "abc-dirty"})) == [
        "2 runs of 2 ran from a work tree with changes (-dirty): their code version does not identify what they ran."
    ]
    assert run_notes(of({"git_sha": "abc-dirty"}, {}))[0].endswith("are compared: abc (1 run), abc-dirty (1 run).")


def test_a_mixture_in_several_groups_is_one_note() -> None:
    rows = synthetic.grid(("svhn", "cifar10"), ("1-0.0", "10-0.1"), {"baseline": 0.1, "autodo-aws": 0.1}, seeds=2)
    mixed = [(run, row | {"git_sha": f"sha{run.seed}"} if run.dataset.name == "svhn" else row) for run, row in rows]
    assert run_notes(named(synthetic.results(mixed))) == [
        "Results of different code versions are compared in 1 of 2 groups of runs: sha0 (4 runs), sha1 (4 runs)."
    ]
    tables = [*error_tables(synthetic.results(mixed)), *class_tables(synthetic.results(mixed))]
    assert not any("are compared" in note for table in tables for note in table.notes)


def test_missing_runs_have_no_version() -> None:
    more = synthetic.grid(("svhn",), ("1-0.0",), {"baseline": 0.1}, seeds=4)
    assert run_notes(named(of({}, {}), expected_rows(run for run, _ in more))) == []
