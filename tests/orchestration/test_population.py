"""Population-based augmentation on a Ray of this machine."""

import pytest

from autodo.augment.policy_file import PolicyFile
from autodo.config import RunConfig
from autodo.recipes import build_run
from autodo.storage import locate
from orchestration.grid import ResourcesConfig

pytestmark = pytest.mark.slow

RUN = build_run(
    "digits",
    "pba",
    overrides={
        "policy.search.images": 400,
        "policy.search.epochs": 6,
        "policy.search.population": 4,
        "policy.search.perturb_every": 2,
        "policy.search.model": "small-cnn",
    },
)


def search(folder, scratch, told: list[str], run: RunConfig = RUN, stop=lambda: False) -> PolicyFile | None:
    from orchestration import population

    return population.search(
        run,
        folder,
        data_dir=None,
        resources=ResourcesConfig(),
        scratch=locate(scratch),
        tell=told.append,
        stop=stop,
    )


@pytest.fixture
def on_ray(tmp_path_factory):
    from pathlib import Path

    from orchestration.cluster import Cluster, running_ray
    from orchestration.scratch import scratch_directory

    with scratch_directory(Path("/tmp")) as scratch, running_ray(Cluster(None, False), scratch):
        yield scratch


def test_the_best_members_schedule_is_found_and_a_search_that_is_cut_continues(on_ray, tmp_path):
    folder = locate(tmp_path / "search")
    folder.make_folder()
    told: list[str] = []
    stopped = search(folder, on_ray / "one", told, stop=lambda: any("epoch 3" in line for line in told))
    assert stopped is None
    assert folder.names() >= {f"member-{number}-epoch-2.pt" for number in range(4)}
    if "member-2-epoch-4.pt" in folder.names():  # what cannot be read does not count
        (folder / "member-2-epoch-4.pt").write_bytes(b"damaged")
    told.clear()
    policy = search(folder, on_ray / "two", told)
    assert told[0] == "continues from epoch 2 of 6"
    assert told[-1].startswith("epoch 6 of 6, best accuracy")
    assert policy is not None
    assert policy.schedule[0].start == 0
    assert all(stage.start * 6 % 1 == pytest.approx(0, abs=1e-9) for stage in policy.schedule)
    accuracies = policy.provenance["accuracies"]
    assert len(accuracies) == 4
    assert policy.provenance["accuracy"] == accuracies[0] == max(accuracies)
    assert accuracies[0] > 0.5


@pytest.mark.long
def test_some_members_become_heirs_of_better_ones(on_ray, tmp_path):
    import torch

    folder = locate(tmp_path / "search")
    folder.make_folder()
    search(folder, on_ray / "one", [])
    states = [torch.load(tmp_path / "search" / f"member-{n}-epoch-6.pt", weights_only=True) for n in range(4)]
    histories = [state["member"]["history"] for state in states]
    # The worst quarter of four is one, at each of two perturbations.
    assert 1 <= sum(len(history) > 1 for history in histories) <= 4
    firsts = [tuple(history[0][1]) for history in histories]
    assert len(set(firsts)) < 4, "an heir begins with its donor's history"
