"""All paths of a store; its layout is known here and nowhere else."""

import re
from typing import TYPE_CHECKING

from autodo.errors import StoreError
from autodo.io.storage import Location

if TYPE_CHECKING:
    from autodo.results.records import Kind

CHECKPOINT, MODEL, LOG = "checkpoint.pt", "model.pt", "log.txt"
FAILURE, EARLIER_FAILURE, LEASE = "failure.json", "earlier_failure.json", "lease.json"


class StorePaths:
    """Files and folders of a store; a method raises StoreError for a name that would lead elsewhere."""

    def __init__(self, root: Location) -> None:
        self.root = root

    @property
    def grids(self) -> Location:
        """One YAML file for each grid that was launched."""
        return self.root / "grids"

    @property
    def runs(self) -> Location:
        """One folder for each run that has begun."""
        return self.root / "runs"

    @property
    def results(self) -> Location:
        """One Parquet file for each run that is done."""
        return self.root / "results"

    @property
    def embeddings(self) -> Location:
        """One Parquet file for each run that has kept its embeddings."""
        return self.root / "embeddings"

    @property
    def policies(self) -> Location:
        """One JSON file for each policy."""
        return self.root / "policies"

    @property
    def networks(self) -> Location:
        """One zip file for the source of each own network."""
        return self.root / "networks"

    @property
    def report(self) -> Location:
        """Tables and figures made from the results."""
        return self.root / "report"

    @property
    def launches(self) -> Location:
        """Overheads of the last launches; see `orchestration.planning.launch_times`."""
        return self.root / "launches.json"

    def table(self, kind: "Kind", run_id: str) -> Location:
        """Parquet file of one kind of one run."""
        return self.root / kind / f"{_checked(run_id)}.parquet"

    def run(self, run_id: str) -> Location:
        """Folder of everything about a run that is not a result."""
        return self.runs / _checked(run_id)

    def config(self, run_id: str) -> Location:
        """RunConfig as JSON."""
        return self.run(run_id) / "config.json"

    def checkpoint(self, run_id: str) -> Location:
        """State that an unfinished run continues from."""
        return self.run(run_id) / CHECKPOINT

    def model(self, run_id: str) -> Location:
        """Trained classifier, if it was to be kept."""
        return self.run(run_id) / MODEL

    def log(self, run_id: str) -> Location:
        """Log of all attempts, one after another."""
        return self.run(run_id) / LOG

    def failure(self, run_id: str) -> Location:
        """Why the last attempt failed; absent if it did not, or is at work."""
        return self.run(run_id) / FAILURE

    def earlier_failure(self, run_id: str) -> Location:
        """Last failure before the present attempt, kept for the count of attempts."""
        return self.run(run_id) / EARLIER_FAILURE

    def policy(self, name: str) -> Location:
        """Policy that was searched, by its search_id, or read from a file, by `file-<content>`."""
        return self.policies / f"{_checked(name, 'policy')}.json"

    def plugin(self, stem: str, content: str) -> Location:
        """Copy of a file with plug-ins, by the stem of its name and the hash of its text."""
        return self.root / "plugins" / f"{re.sub(r'[^A-Za-z0-9_-]', '_', stem)}-{content}.py"

    def search(self, search_id: str) -> Location:
        """Folder of everything about a search but the policy that it found."""
        return self.root / "searches" / _checked(search_id, "search")

    def search_task(self, search_id: str, task: str) -> Location:
        """Folder of a long task of a search."""
        return self.search(search_id) / _checked(task, "task")

    def grid(self, name: str) -> Location:
        """Grid as it was last launched."""
        return self.grids / f"{_checked(name)}.yaml"


def is_id(name: str) -> bool:
    """Whether a name is a single file name and so cannot lead out of the store."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name) is not None


def is_checkpoint(name: str) -> bool:
    """Whether a file of a run belongs to its checkpoint: `checkpoint.pt`, or a part named after it."""
    return name.startswith("checkpoint")


def _checked(name: str, kind: str = "run") -> str:
    if not is_id(name):
        raise StoreError(f"{name!r} is not a {kind} id")
    return name
