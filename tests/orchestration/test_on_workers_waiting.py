"""Runs by two processes each, on a Ray that has room for one and a half of them."""

from orchestration.store import Store
from tests.orchestration.two_workers import MARKS, check_results, ray_with, small

pytestmark = MARKS


def test_runs_that_wait_for_each_others_cpus_all_end(store: Store) -> None:
    """Three runs at a time want six of three CPUs: one CPU is always left over, and must help nobody to half a run."""
    runs = [small(seed=seed) for seed in range(3)]
    with ray_with(3) as launch:
        progress = launch(runs, store, max_concurrent=3)
    assert (progress.done, progress.failed) == (3, {})
    for run in runs:
        check_results(store, run)
