"""A search whose tasks are performed one after another in this process."""

import json
from collections.abc import Callable
from typing import Any

from autodo.io.storage import locate
from autodo.search.tasks import TaskContext


class OneProcessSearch:
    """A driver and a worker on one folder; tasks and results pass through JSON, as between processes.

    Args:
        run: a run that asks for the search, and its data splits.
    """

    def __init__(self, driver: Callable[..., Any], worker: Callable[..., Any], folder: Any, run: tuple) -> None:
        config, data = run
        self.files = locate(folder)
        self.driver = driver(config, self.files)
        self.worker = worker(TaskContext(config, data, "cpu", self.files))

    def run(self, tasks: int = 10**6, order: Callable[[list], list] = list) -> Any:
        """Performs up to so many tasks; returns the policy once it is found."""
        left: list[Any] = []
        while self.driver.policy is None and tasks > 0:
            left = order(left + self.driver.ready())
            task = left.pop(0)
            given = type(task)(*json.loads(json.dumps(task)))
            self.driver.task_done(given, json.loads(json.dumps(self.worker.perform(given, None, lambda _: None))))
            tasks -= 1
        return self.driver.policy
