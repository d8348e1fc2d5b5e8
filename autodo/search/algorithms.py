"""The ALGORITHMS table, and a whole search in this process."""

import tempfile
from pathlib import Path

from autodo.augment.policy_file import PolicyFile
from autodo.config.run import RunConfig
from autodo.data.prepare import DataSplits
from autodo.io.storage import locate
from autodo.search.folds.fast_autoaugment import FastAutoAugmentDriver
from autodo.search.folds.fold_worker import FoldWorker
from autodo.search.gradient.dada import Dada
from autodo.search.gradient.faster_autoaugment import FasterAutoAugment
from autodo.search.gradient.gradient_search import gradient_search
from autodo.search.population.population import PopulationDriver
from autodo.search.population.population_member import PopulationWorker
from autodo.search.tasks import Algorithm, Report, TaskContext, search_config
from autodo.search.trajectories.ohl import OhlDriver
from autodo.search.trajectories.trajectory import TrajectoryWorker

ALGORITHMS: dict[str, Algorithm] = {
    "fast-autoaugment": Algorithm(FastAutoAugmentDriver, FoldWorker),
    "dada": gradient_search(Dada),
    "faster-autoaugment": gradient_search(FasterAutoAugment),
    "pba": Algorithm(PopulationDriver, PopulationWorker),
    "ohl": Algorithm(OhlDriver, TrajectoryWorker),
}


def algorithm_of(config: RunConfig) -> Algorithm:
    """The algorithm of the search for a run's policy."""
    return ALGORITHMS[search_config(config).algorithm]


def search_in_process(config: RunConfig, data: DataSplits, *, device: str, report: Report) -> PolicyFile:
    """Searches the policy of a run, one task after another, and keeps nothing but the result.

    Raises:
        DataError: if there are too few images. TrainingDiverged.
    """
    algorithm = algorithm_of(config)
    with tempfile.TemporaryDirectory(prefix="autodo-search-") as folder:
        files = locate(Path(folder))
        driver = algorithm.driver(config, files)
        worker = algorithm.worker(TaskContext(config, data, device, files))
        while (policy := driver.policy) is None:
            for task in driver.ready():
                driver.task_done(task, worker.perform(task, None, report))
                report(driver.status_line())
    return policy
