import pytest

from autodo.results import records
from orchestration.planning.plan import expected_rows
from reports.analysis.comparison import named
from reports.figures.choices import choose
from reports.readers.load import load_results
from tests.reports.conftest import make
from tests.reports.figures.stores import Store
from tests.runs import result_row


def test_the_most_distorted_cell_of_a_group_is_drawn(store: Store) -> None:
    for distortion in ("1-0.1", "100-0.0", "100-0.1", "10-0.1"):
        store.add("baseline", distortion)
    (choice,) = choose(store.runs())
    assert (choice.distortion, choice.methods) == ("100-0.1", ("baseline",))
    assert choice.title == f"{choice.group}, 100-0.1"
    assert choice.remark == " Only the most distorted of 4 cells is drawn."


def test_a_cell_with_two_methods_is_preferred(store: Store) -> None:
    store.add("baseline", "100-0.1")
    for method in ("baseline", "mixup"):
        store.add(method, "10-0.1")
    assert [choice.distortion for choice in choose(store.runs())] == ["10-0.1"]


def test_the_best_of_each_family_is_drawn_and_autodo_always(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.figures.choices.AT_MOST", 4)
    errors = {"baseline": 0.9, "mixup": 0.1, "cutmix": 0.2, "gce": 0.3, "autodo-a": 0.6, "autodo-aws": 0.5}
    for method, error in {**errors, "randaugment": 0.45, "randaugment-original": 0.4}.items():
        store.add(method, error=error, error_best_val=error)
    (choice,) = choose(store.runs())
    assert choice.methods == ("baseline", "mixup", "cutmix", "autodo-aws")
    assert choice.remark.endswith("is drawn; 4 other methods are not.")
    assert set(choice.runs["name"]) == set(choice.methods)


def test_runs_without_a_result_are_ignored(store: Store) -> None:
    store.add()
    runs = store.runs().assign(error_best_val=float("nan"))
    assert choose(runs) == []


@pytest.mark.parametrize("seeds", [(2, 0, 1)])
def test_runs_of_a_method_are_in_order_of_seed(store: Store, seeds: tuple[int, ...]) -> None:
    for seed in seeds:
        store.add(seed=seed)
    (choice,) = choose(store.runs())
    assert choice.of("baseline")["seed"].tolist() == sorted(seeds)


def test_all_variants_of_a_grid_are_named_and_drawn_in_its_order(store: Store) -> None:
    starts = {"E150": 0.75, "E10": 0.05, "E50": 0.25}
    runs = {e: make("autodo-aws", "10-0.1", 0, overrides={"outer.start_share": start}) for e, start in starts.items()}
    store.add("baseline")
    for error, run in enumerate(runs.values()):
        errors = dict.fromkeys(("error_best_val", "error_last", "error_best_test"), 0.1 + error / 100)
        row = result_row(run, **errors, seconds=1.0)
        records.write("results", records.table("results", [row]), store.root / "results" / f"{run.run_id}.parquet")
    rows = [row for variant, run in runs.items() for row in expected_rows([run], {run.run_id: variant})]
    frame = named(load_results(store.root).frame, rows)
    assert list(frame["name"]) == ["baseline", "autodo-aws E150", "autodo-aws E10", "autodo-aws E50"]
    assert choose(frame)[0].methods == tuple(frame["name"])
    # Two grids give one name to different settings: the settings distinguish them.
    same = [{**row, "variant": "E10"} for row in rows]
    assert set(named(load_results(store.root).frame, same)["name"]) == {
        "baseline", *(f"autodo-aws, outer.start_share={start}" for start in starts.values())
    }  # fmt: skip
