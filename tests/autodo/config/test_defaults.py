"""Settings that were added later: ids and stored configurations keep their meaning."""

import copy
import json

import pytest
from pydantic import ValidationError

from autodo.config.bilevel import OuterConfig
from autodo.config.dataset import DistortionConfig
from autodo.config.defaults import ADDED, CHANGED, PAPER, PROTOCOL, defaults_before, with_added
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig

# Run id and search id in the first version.
OLD = {
    ("digits", "baseline", "10-0.1"): ("digits_ir10_nr0.1_baseline_s0_2c82c927", None),
    ("digits", "autodo-aws", "10-0.1"): ("digits_ir10_nr0.1_autodo-aws_s0_6c637237", None),
    ("digits", "autodo-aws", "1-0.0"): ("digits_ir1_nr0_autodo-aws_s0_31c2174b", None),
    ("digits", "autodo-shared", "10-0.1"): ("digits_ir10_nr0.1_autodo-shared_s0_431c162e", None),
    ("digits", "autodo-exact-aws", "10-0.1"): ("digits_ir10_nr0.1_autodo-exact-aws_s0_593f4b50", None),
    ("svhn", "autodo-aws", "100-0.1"): ("svhn_ir100_nr0.1_autodo-aws_s0_e4a14375", None),
    ("digits", "fast-autoaugment-searched", "10-0.1"): (
        "digits_ir10_nr0.1_fast-autoaugment-searched_s0_e3be08e8",
        "fast-autoaugment-1e44be9c",
    ),
    ("digits", "dada-searched", "10-0.1"): ("digits_ir10_nr0.1_dada-searched_s0_cc8d4c00", "dada-2e335311"),
}


def as_first_stored(run: RunConfig) -> str:
    """JSON as the first version stored it, without the settings that changed since."""
    content = json.loads(run.model_dump_json())
    for key in CHANGED[2]:
        *sections, name = key.split(".")
        inner = content
        for section in sections:
            inner = (inner or {}).get(section)
        if inner is not None:
            inner.pop(name, None)
    if content["outer"] is not None:
        del content["outer"]["eps"]
    return json.dumps(content)


@pytest.mark.parametrize("cell", OLD, ids=" ".join)
def test_old_runs_keep_their_ids_and_their_meaning(cell):
    dataset, method, distortion = cell
    run = build_run(dataset, method, distortion=DistortionConfig.parse(distortion), protocol=1)
    assert (run.run_id, run.search_id) == OLD[cell]
    assert run.distortion.minority == "class"
    if run.outer is not None:
        assert (run.outer.schedule, run.outer.neumann_scale, run.outer.eps) == ("shared", "step", 1e-8)
    assert RunConfig.from_stored(as_first_stored(run)) == run


@pytest.mark.parametrize("text", ["{", "[]", "3", "", "{}", '{"distortion": 3}', "[" * 100_000])
def test_an_invalid_stored_configuration_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"validation error|parsing|EOF|recursion"):
        RunConfig.from_stored(text)


def test_new_runs_follow_the_paper_and_have_new_ids():
    for (dataset, method, distortion), (old_id, old_search) in OLD.items():
        run = build_run(dataset, method, distortion=DistortionConfig.parse(distortion))
        complete = with_added(json.loads(run.model_dump_json()))
        for section, settings in PAPER.items():
            if complete[section] is None or (section == "outer" and "exact" in method):
                continue
            expected = settings if distortion[:2] != "1-" or section == "outer" else {"minority": "class"}
            assert complete[section] | expected == complete[section], f"{method}: {section}"
        assert run.run_id != old_id
        assert run.search_id is None or run.search_id != old_search


def test_without_imbalance_minority_does_not_matter():
    runs = [
        build_run("digits", "baseline", overrides={"distortion.minority": kind})
        for kind in ("total", "total-proportional", "class")
    ]
    assert {run.distortion.minority for run in runs} == {"class"}
    assert {run.run_id for run in runs} == {"digits_ir1_nr0_baseline_s0_9f659809"}


def test_an_overridden_ratio_keeps_the_default_minority():
    run = build_run("digits", "baseline", overrides={"distortion.imbalance_ratio": 10})
    assert run.distortion == DistortionConfig(imbalance_ratio=10, minority="total")
    given = DistortionConfig(imbalance_ratio=10, minority="total-proportional")
    assert build_run("digits", "baseline", distortion=given, protocol=1).distortion == given


def test_neumann_scale_is_ignored_by_other_solvers():
    assert OuterConfig(solver="neumann", step=0.01, neumann_scale="sum").neumann_scale == "sum"
    assert OuterConfig(solver="exact", neumann_scale="sum") == OuterConfig(solver="exact")
    with pytest.raises(ValidationError, match="sum"):
        OuterConfig(solver="exact", neumann_scale="half")


def test_tables_of_defaults_are_consistent():
    assert defaults_before(PROTOCOL) == {}
    for unknown in (0, PROTOCOL + 1):
        with pytest.raises(ValueError, match=f"protocol {unknown} is not among 1 to {PROTOCOL}"):
            defaults_before(unknown)
    for key, value in defaults_before(1).items():
        section, name = key.split(".", 1)
        assert name.startswith("search.") or ADDED[section][name] == value
    for section, settings in PAPER.items():
        assert all(ADDED[section][name] != value for name, value in settings.items()), (
            "entries of PAPER differ from ADDED"
        )


def test_completing_keeps_existing_values():
    config = build_run("digits", "autodo-aws", distortion=DistortionConfig.parse("10-0.1")).model_dump(mode="json")
    before = copy.deepcopy(config)
    assert with_added(config) == before == config
