"""The ALGORITHMS table, and a search from its beginning to its end in this process."""

import tempfile
from pathlib import Path

from autodo.augment.policy_file import PolicyFile
from autodo.config.run import RunConfig
from autodo.data.prepare import DataSplits
from autodo.errors import ConfigError
from autodo.io.storage import locate
from autodo.search import fast_autoaugment
from autodo.search.one_task import one_task
from autodo.search.tasks import Algorithm, ReportLine, TaskContext, search_config

ALGORITHMS: dict[str, Algorithm] = {
    "fast-autoaugment": Algorithm(fast_autoaugment.FastAutoAugment, fast_autoaugment.FoldWorker),
    "dada": one_task("autodo.search.dada"),
    "faster-autoaugment": one_task("autodo.search.faster_autoaugment"),
}
"""Searches that are made of tasks. Others need several processes that know of each other: see orchestration."""


def algorithm_of(config: RunConfig) -> Algorithm:
    """The algorithm that a run's policy is searched by.

    Raises:
        ConfigError: if it is not made of tasks.
    """
    name = search_config(config).algorithm
    if name not in ALGORITHMS:
        raise ConfigError(
            f"policy.search.algorithm: {name!r} cannot be searched in one process; `autodo launch` does it on Ray; "
            f"here: {', '.join(ALGORITHMS)}"
        )
    return ALGORITHMS[name]


def search_in_process(config: RunConfig, data: DataSplits, *, device: str, tell: ReportLine) -> PolicyFile:
    """The policy that is found for a run, one task after another; nothing is kept.

    Raises:
        ConfigError: if the algorithm needs several processes. DataError: if there are too few images.
    """
    algorithm = algorithm_of(config)
    with tempfile.TemporaryDirectory(prefix="autodo-search-") as folder:
        files = locate(Path(folder))
        driver = algorithm.driver(config, files)
        worker = algorithm.worker(TaskContext(config, data, device, files))
        while (policy := driver.policy) is None:
            for task in driver.ready():
                driver.ended(task, worker.perform(task, None, tell))
                tell(driver.headline())
    return policy
