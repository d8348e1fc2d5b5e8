"""Expected times, from results that nobody trained."""

import pytest

from autodo.config.run import RunConfig
from autodo.config.shipped import method_names, method_text
from orchestration.grid.grid import GridConfig, expand, variant_names
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.estimate import CostEstimate, Estimates, Measured, measure, rough_cost, wall_seconds
from orchestration.planning.run_queue import Job
from orchestration.store.store import Store
from tests.runs import outcome


def runs(**changes: object) -> dict[tuple[str, str], RunConfig]:
    tree = {"name": "g", "datasets": ["digits"], "distortions": ["1-0.0", "100-0.1"], "seeds": 1}
    tree |= {"methods": ["baseline", "autodo-aws"], "set": {"training.epochs": 10}}
    return {(run.method.name, str(run.distortion)): run for run in expand(GridConfig.model_validate(tree | changes))}


def test_the_most_alike_run_decides() -> None:
    run = runs()
    longer = runs(set={"training.epochs": 20})["baseline", "1-0.0"]
    other_data = runs(datasets=["svhn"])["baseline", "1-0.0"]
    assert Estimates([]).seconds(run["baseline", "1-0.0"]) is None
    one = Measured(run["autodo-aws", "1-0.0"], 40.0)
    assert Estimates([one]).seconds(run["baseline", "1-0.0"]) == 40.0, "another method, for want of better"
    two = Measured(run["baseline", "100-0.1"], 10.0)
    assert Estimates([one, two]).seconds(run["baseline", "1-0.0"]) == 10.0, "another distortion"
    assert Estimates([one, two]).seconds(longer) == 20.0, "scaled by the epochs"
    three = Measured(run["baseline", "1-0.0"], 12.0)
    assert Estimates([one, two, three]).seconds(run["baseline", "1-0.0"]) == 12.0, "its own cell"
    assert Estimates([one, two, three]).seconds(other_data) is None


def test_equal_runs_are_averaged() -> None:
    run = runs()["baseline", "1-0.0"]
    assert Estimates([Measured(run, 10.0), Measured(run, 20.0)]).seconds(run) == 15.0


def test_a_store_is_measured_by_a_few_of_its_results(store: Store) -> None:
    cells = runs(seeds=6)
    for seed in range(6):
        run = cells["baseline", "1-0.0"].model_copy(update={"seed": seed})
        store.save(outcome(run, seconds=10.0), run.run_id)
    estimates = measure(store, cells.values())
    assert estimates.seconds(cells["baseline", "1-0.0"]) == 10.0
    assert measure(store, []).seconds(cells["baseline", "1-0.0"]) is None


def test_each_variant_of_a_grid_is_measured(store: Store) -> None:
    starts = {f"E{i}": {"outer.start_share": i / 10} for i in range(8)}
    tree = {"name": "g", "datasets": ["digits"], "distortions": ["1-0.0"], "seeds": 3, "variants": starts}
    grid = GridConfig.model_validate({**tree, "methods": ["autodo-aws"], "set": {"training.epochs": 10}})
    names = variant_names(grid)
    for run in expand(grid):
        if run.seed < 2:
            store.save(outcome(run, seconds=20.0 - 10 * run.outer.start_share), run.run_id)
    left = [run for run in expand(grid) if run.seed == 2]
    estimates = measure(store, left, names)
    assert {names[run.run_id]: estimates.seconds(run) for run in left} == {f"E{i}": 20.0 - i for i in range(8)}


def test_a_run_without_measured_time_costs_what_its_methods_files_say() -> None:
    methods = ["baseline", "autodo-exact-aws", "mixup", "randaugment", "mixup+randaugment"]
    cost = {method: rough_cost(run) for (method, _), run in runs(methods=methods, distortions=["1-0.0"]).items()}
    assert cost["baseline"] == 10.0, "its epochs"
    assert cost["autodo-exact-aws"] > cost["randaugment"] > cost["baseline"]
    assert cost["mixup+randaugment"] * cost["baseline"] == pytest.approx(cost["mixup"] * cost["randaugment"])
    assert rough_cost(runs(set={"training.epochs": 20})["baseline", "1-0.0"]) == 20.0


@pytest.mark.parametrize("method", method_names())
def test_every_method_file_has_its_cost_as_a_number(method: str) -> None:
    assert float(method_text(method).cost) > 0


def test_a_damaged_result_makes_the_time_unknown_and_nothing_worse(store: Store) -> None:
    run = runs()["baseline", "1-0.0"]
    store.paths.table("results", run.run_id).write_bytes(b"PAR1")
    assert measure(store, [run]).seconds(run) is None


@pytest.mark.parametrize(
    ("seconds", "slots", "wall"),
    [([], 2, 0.0), ([5.0, 5.0, 5.0], 1, 15.0), ([5.0, 5.0, 5.0], 2, 10.0), ([1.0, 1.0, 9.0], 2, 10.0), ([3.0], 8, 3.0)],
)
def test_runs_side_by_side_take_as_long_as_the_busiest_slot(seconds: list[float], slots: int, wall: float) -> None:
    assert wall_seconds(seconds, slots) == wall


def test_the_cost_estimate_counts_every_worker() -> None:
    run = runs()["baseline", "1-0.0"]
    resources = ResourcesConfig(cpus=4, gpus=1, workers=2)
    jobs = [Job("a", run, resources, 3600.0), Job("b", run, resources, 1800.0), Job("c", run, resources)]
    assert CostEstimate.of(jobs) == CostEstimate(runs=3, unknown=1, seconds=5400.0, core_hours=12.0, gpu_hours=3.0)
    shared = ResourcesConfig(gpus=0.5)
    assert CostEstimate.of([Job("a", run, shared, 3600.0)]).gpu_hours == 0.5
