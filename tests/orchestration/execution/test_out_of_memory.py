"""Ray's memory monitor ends the process of a run that takes too much."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from orchestration.grid.resources import ResourcesConfig
from orchestration.planning.run_queue import Job
from orchestration.store.run_state import Cause
from orchestration.store.store import Store
from tests.orchestration.conftest import SMALL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]
ALLOWED_BYTES = 4e9
"""Memory that may be allocated beyond what is in use at the start, by the tests that run beside this one as well."""
IMAGES, IMAGE_SIZE = 100, 5000
"""7.5 GB when decoded, of which no more than ALLOWED_BYTES ever get there."""


@pytest.fixture
def _short_of_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local Ray whose monitor thinks that the machine has little memory left."""
    monkeypatch.chdir(Path(__file__).parents[3])
    # Before Ray: it sets the environment that Ray reads at its import.
    from orchestration.ray_cluster.cluster import Cluster, running_ray
    from orchestration.store.scratch import scratch_directory

    # As Ray measures it: in a container, the container's.
    from ray._common.utils import get_system_memory  # isort: skip
    from ray._private.utils import get_used_memory  # isort: skip

    total, used = get_system_memory(), get_used_memory()
    if total - used < 2 * ALLOWED_BYTES:
        pytest.skip("too little memory is free on this machine")
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{(used + ALLOWED_BYTES) / total:.4f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    with scratch_directory(Path("/tmp")) as scratch, running_ray(Cluster(), scratch):
        yield


def greedy(folder: Path) -> RunConfig:
    """A run that needs more memory than there is: small files, to be enlarged."""
    for number in range(IMAGES):
        (folder / f"{number % 2}").mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 8, 3), number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number % 2}" / f"{number}.png")
    return build_run("folder", "baseline", overrides={"dataset.path": str(folder), "dataset.image_size": IMAGE_SIZE})


@pytest.mark.usefixtures("_short_of_memory")
def test_a_run_that_takes_too_much_is_given_up_and_the_others_go_on(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestration.execution.options import LaunchSettings
    from orchestration.launch import launch
    from orchestration.ray_cluster.cluster import Cluster

    big = greedy(tmp_path / "photos")
    others = [build_run("digits", "baseline", seed=seed, overrides=SMALL) for seed in range(3)]
    jobs = [Job(run.run_id, run, ResourcesConfig()) for run in (big, *others)]
    out = io.StringIO()
    # One at a time: Ray may end the run's neighbours too, and how often that happens is left to chance.
    options = LaunchSettings(retries=1, max_concurrent=1)
    progress = launch(jobs, store, Console(file=out, width=200), cluster=Cluster(), options=options)
    assert store.status.done() == {run.run_id for run in others}
    assert list(progress.failed) == [big.run_id]
    assert out.getvalue().count("the machine ran out of memory") >= 2
    failure = store.status.failures()[big.run_id]
    assert (failure.cause, failure.kind, failure.attempts) == (Cause.OUT_OF_MEMORY, "ProcessDied", 2)
    assert "running low on memory" in failure.traceback
    # Ray's own words about the death stay in failure.json.
    assert "raylet" not in "".join(capsys.readouterr())
